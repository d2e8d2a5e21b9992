"""A node of a model file as far as its work follows from it, and what follows in either format.

Shapes are without the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Shape = tuple[int, ...]
Numbers = dict[str, int | str]  # numbers of a Work; "kernel" where the operation's name is not the kernel's


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a node reads and makes."""

    reads: Sequence[Shape]  # of what other nodes made
    weight: Shape  # of its first constant, as it stands in the file
    made: Shape
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of its attributes; in TFLite "filter" alone


def numbers_of(kind: str, seen: Seen, shaped: Mapping[str, Callable[[Seen], Numbers]]) -> Numbers:
    """Return what the shapes of a node of this kind say; nothing where the file does not tell them all."""
    try:
        return shaped.get(kind, plain)(seen)
    except (IndexError, KeyError, ValueError, ZeroDivisionError):
        return {}


def plain(seen: Seen) -> Numbers:
    """Say nothing."""
    del seen
    return {}


def linear(rows: int, columns: int, depth: int) -> Numbers:
    """Tell one row from many."""
    return {"kernel": "Gemm" if rows == 1 else "Projection", "rows": rows, "columns": columns, "depth": depth}


def product(seen: Seen) -> Numbers:
    """Return what two computed matrices come to."""
    *groups, rows, columns = (1, 1, *seen.made)
    return {"rows": rows, "columns": columns, "depth": (1, *seen.reads[0])[-1], "groups": math.prod(groups)}


def by_rows(seen: Seen) -> Numbers:
    """Count the rows along the last axis."""
    return {"rows": max(1, math.prod(seen.made) // max(1, (1, *seen.made)[-1]))}


def pair(seen: Seen) -> Numbers:
    """Tell two alike, one that is repeated, and a constant apart."""
    sizes = [math.prod(each) for each in seen.reads]
    if len(sizes) < 2:
        return {"kernel": "Scale"}
    return {} if min(sizes) == max(sizes) else {"kernel": "Broadcast", "rows": min(sizes)}
