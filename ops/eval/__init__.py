"""`ops eval`: whether what a model writes is right."""
