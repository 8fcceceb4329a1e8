"""`ops add`: from a model of the hub, a config.json or a GGUF file to an entry that plans."""
