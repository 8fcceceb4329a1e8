"""The embedded cluster: a real control plane from Go modules, with simulated nodes; for `ops cluster` and `ops up`."""
