"""`ops keys`: teams and keys as the gateway has them."""
