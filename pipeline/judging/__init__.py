"""Paired tests and intervals, latency statistics, the limits of a target, and the verdict."""
