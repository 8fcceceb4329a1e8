"""How each part is made: one ComponentResource a file, typed args in, typed outputs out."""
