"""What a model needs, as pure arithmetic on architecture numbers: a file an engine, one for hosts, one for versions."""
