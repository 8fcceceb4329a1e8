"""`ops fit`: whether a model fits, and where its memory goes."""
