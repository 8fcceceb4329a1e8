"""Draws and writes from the program what docs/ shows of it: tables, diagrams, pictures. `make docs` runs it."""
