"""`ops doctor`: what is wrong with a deployment, with what each part says of itself, and what to type."""
