"""What stages hand on: frozen, keyword-only dataclasses that survive a round trip through JSON.

Large things (weights, outputs, model files) lie in the store under their sha256; artifacts carry the ``Digest``.
Fields marked ``NOT_IN_KEY`` say where something lies on this machine and do not make two artifacts different.  Every
artifact has a ``summary``: its own line for people.

Shapes: N samples, C channels, H height, W width, K classes, L layers.
"""
