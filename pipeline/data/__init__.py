"""Data sets: one file per kind of source; ``load.reference`` finds them, ``load.load`` reads and divides them."""
