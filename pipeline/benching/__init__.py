"""``karui bench``: how long files take on the machine at hand, measured, and what that machine was like meanwhile."""
