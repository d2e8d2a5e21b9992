"""Which class is taken for which: counts, what is read off them, and their figures.

Shapes: N samples (or pixels), K classes; counts are (K, K), true class down, decided class across.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Figure, Matrix
from pipeline.judging.stats import Floats, Indices
from pipeline.tasks.protocol import Put


def confusion(true: NDArray[Any], decided: NDArray[Any], classes: int) -> Indices:
    """Count (K, K) how often each class (of any shape, the same for both) is taken for each."""
    flat = true.astype(np.int64).ravel() * classes + decided.astype(np.int64).ravel()
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def recalls(counts: Indices) -> Floats:
    """Return each class's share that is found (K,), nan for a class without samples."""
    return shares(np.diag(counts), counts.sum(1))


def shares(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Divide, nan where the whole is zero."""
    parts: Floats = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)
    return parts


def share_text(share: float) -> str:
    """Write ``97.5 %``; a dash for what is no number."""
    return "—" if np.isnan(share) else f"{100 * share:.1f} %"


def matrices(counts: Mapping[str, Indices], classes: Sequence[str], put: Put) -> tuple[Figure, ...]:
    """Return the matrix of every title and, if the second one differs from the first, their difference."""
    names = tuple(classes)
    figures = [
        Matrix(title=f"Confusion, {title}", rows=names, columns=names, counts=put(each))
        for title, each in counts.items()
    ]
    first, *others = counts.values()
    if others and (others[0] != first).any():
        title = "Difference, int8 − float"
        figures.append(Matrix(title=title, rows=names, columns=names, counts=put(others[0] - first), signed=True))
    return tuple(figures)
