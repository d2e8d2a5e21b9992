"""The stages; each is a function from artifacts to a new artifact, and none imports another."""
