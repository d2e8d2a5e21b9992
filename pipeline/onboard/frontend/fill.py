"""A value for what is missing: NaN → a number per column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def apply(raw: NDArray[Any], *, values: Sequence[float]) -> NDArray[np.float32]:
    """Return rows (n, F) as float32 with ``values[column]`` (F of them) in place of NaN; ``raw`` stays as it is."""
    with np.errstate(over="ignore"):  # what becomes infinite is refused where all inputs are
        out: NDArray[np.float32] = np.array(raw, dtype=np.float32, order="C")
        fill = np.asarray(values, dtype=np.float32)
    missing = np.isnan(out)
    out[missing] = np.broadcast_to(fill, out.shape)[missing]
    return out
