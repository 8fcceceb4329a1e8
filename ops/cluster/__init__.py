"""The embedded cluster: a real Kubernetes control plane on loopback, with simulated nodes."""
