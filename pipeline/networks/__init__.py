"""The user's networks: built from their files, changed by edits, kept as checkpoints."""
