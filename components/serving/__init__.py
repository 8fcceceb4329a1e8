"""What serves a model: one component an engine, and what all of them share."""
