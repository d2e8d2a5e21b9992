"""How a stage tells that it is alive: one Protocol, and the silent one for tests and ``--quiet``."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a long job reports; the console draws it, a test ignores it."""

    def start(self, title: str, total: int) -> None:
        """Begin a job of ``total`` equal steps."""

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """So many steps are done; the newest ``loss=…, accuracy=…`` stand beside the bar."""

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
