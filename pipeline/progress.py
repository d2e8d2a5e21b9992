"""How a stage tells that it is alive: one Protocol, and the silent one for tests and ``--quiet``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """What a long job reports; the console draws it, a test ignores it."""

    def start(self, title: str, total: int) -> None:
        """Begin a job of ``total`` equal steps."""

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """So many steps are done; the newest ``loss=…, mIoU=…`` stand beside the bar.

        With ``epoch=3, epochs=30`` an epoch is over.
        """

    def say(self, text: str) -> None:
        """One line that stays."""


class Silent:
    """Says nothing."""

    def start(self, title: str, total: int) -> None:
        """Ignore."""

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""


def numbers_text(numbers: Mapping[str, float]) -> str:
    """Return ``epoch 3/30  loss 0.1234`` for ``{"epoch": 3, "epochs": 30, "loss": 0.12341}``."""
    words = [f"epoch {numbers['epoch']:g}/{numbers['epochs']:g}"] if {"epoch", "epochs"} <= numbers.keys() else []
    others = ((name, value) for name, value in numbers.items() if not (words and name in ("epoch", "epochs")))
    return "  ".join([*words, *(f"{name.replace('_', ' ')} {value:.4g}" for name, value in others)])
