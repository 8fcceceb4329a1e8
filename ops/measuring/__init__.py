"""Measuring a model in its cluster: Jobs of `ops bench` and `ops eval`, and the programs that run in them."""
