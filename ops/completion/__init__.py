"""`ops completion`: what a shell needs to complete `ops`."""
