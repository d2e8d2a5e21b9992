"""Hostile and careless files of every kind that karui reads, made from valid ones and tried in a process apart."""
