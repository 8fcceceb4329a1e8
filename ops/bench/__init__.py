"""`ops bench`: how fast a model is under load, measured beside it in the cluster."""
