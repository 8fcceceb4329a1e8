"""`ops catalog`: what can be served, what fits, and what is known of each model."""
