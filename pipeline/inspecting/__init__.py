"""``karui inspect``: what a network or a model file is made of, what its layers cost, and what deserves a look."""
