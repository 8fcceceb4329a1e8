"""`ops smoke`: does each model answer, directly and through the gateway, and is it billed."""
