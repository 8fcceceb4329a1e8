"""What can be served: the catalog, the machines, and the arithmetic between them. Imports no cloud SDK."""
