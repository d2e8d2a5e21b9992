"""What every instrument is: the protocol that a module of ``pipeline.instruments`` satisfies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.artifacts.evidence import Place
from pipeline.artifacts.training import Paid
from pipeline.declare.words import Precision
from pipeline.estimating.work import Work

Works = Mapping[Precision, tuple[tuple[Work, ...], ...]]  # what the kernels of each layer do


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A network on its way through pruning: its float ONNX file, and what is counted on its graph."""

    path: Path
    macs: int
    works: Callable[[], Works]  # found when it is asked for


class Instrument(Protocol):
    """instruments/NAME.py: tells what a file costs, and where it knows that from."""

    def place(self, profile: str | None = None, /) -> Place:
        """Say where the numbers come from; ``profile``: the target profile that the place is, or stands for."""

    def compare(
        self, candidate: Contender, reference: Contender, /, *, threads: int, budget_s: float, seed: int
    ) -> Paid:
        """Compare what one inference of two files costs, with so many threads and in about so much time.

        Raises ModelError where a file cannot be run.
        """
