"""Values beyond a limit are cut off: one row in a thousand must not decide how wide a step of int8 is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = float(np.finfo(np.float32).max)


def apply(raw: NDArray[Any], *, limit: float) -> NDArray[np.float32]:
    """Return values of any shape as float32, none below -``limit`` or above ``limit``; NaN stays NaN."""
    most = np.float32(min(limit, _LARGEST))
    clipped: NDArray[np.float32] = np.clip(raw.astype(np.float32), -most, most)
    return clipped
