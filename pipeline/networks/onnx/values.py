"""A tensor that follows from the network's input, and why a node cannot be taken."""

from __future__ import annotations

from dataclasses import dataclass


class Refusal(Exception):  # noqa: N818  (collected, then raised as one UnsupportedOpError)
    """A node that cannot be taken; says why in the words that follow its name."""


class Doubtful(Refusal):
    """Runtimes do not agree on what a node gives."""


class TouchesBatch(Exception):  # noqa: N818  (the node is taken again, lifted)
    """A node works along the axis of samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A tensor that is computed from the network's input."""

    number: int
    shape: tuple[int, ...]  # in the file, for one call of it
    lifted: bool  # lies in memory as (n, *shape) even where the shape is (1, …)
