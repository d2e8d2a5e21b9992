"""Categories as columns of 0 and 1: a column of codes → one column per code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def apply(raw: NDArray[Any], *, columns: Sequence[int], codes: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    """Return rows (n, F') as float32: ``columns[i]`` of (n, F) gives way to one column for each of ``codes[i]``.

    It holds 1 where the row has that code and 0 elsewhere; a code that is not listed, or none, gives zeros alone.
    """
    out: list[NDArray[np.float32]] = []
    for column in range(raw.shape[1]):
        values = raw[:, column : column + 1].astype(np.float32)  # (n, 1)
        if column in columns:
            known = np.asarray(codes[list(columns).index(column)], dtype=np.float32)
            values = (values == known[None]).astype(np.float32)  # (n, K)
        out.append(values)
    return np.concatenate(out, axis=1)
