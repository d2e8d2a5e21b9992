"""The flat graph of known operations that every later pass works on: traced, folded, counted."""
