"""The instrument that counts instead of timing: multiply-accumulates, the same on every machine and at every hour."""

from __future__ import annotations

from pipeline.artifacts.evidence import Place
from pipeline.artifacts.training import Paid
from pipeline.instruments.protocol import Contender

PLACE = Place(how="estimated", name="MACs")


def place(profile: str | None = None) -> Place:
    """Say that numbers were counted; they stand for no target."""
    del profile
    return PLACE


def compare(candidate: Contender, reference: Contender, *, threads: int, budget_s: float, seed: int) -> Paid:
    """Compare two files by their counts: exact, so that the interval is the ratio itself."""
    del threads, budget_s, seed
    return compare_macs(candidate.macs, reference.macs)


def compare_macs(candidate: int, reference: int) -> Paid:
    """Compare two counts.  Raises ValueError for a reference that computes nothing."""
    if reference < 1:
        raise ValueError(f"{reference} MACs to compare with")
    ratio = candidate / reference
    return Paid(ratio=ratio, low=ratio, high=ratio, of="macs", place=PLACE)
