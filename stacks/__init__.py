"""Which of the catalog runs: config, admission, and the wiring of components."""
