"""`ops schema`: the types of config and catalog as JSON Schema, for editors."""
