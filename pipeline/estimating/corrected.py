"""A factor for a runtime that is not fitted, learnt from its times where that makes networks left out any better.

The ns of a processor's events are those of the runtime that has most times.  Another one may lose time that is not in
its instructions: waiting for the memory otherwise, threads that wake up.  That is one factor, no more: few times of it
are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_FEWEST = 3  # networks that make a factor: of fewer none can be left out


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What times of a runtime are to those that are estimated."""

    factor: float  # 1 where none makes networks that were left out any better
    furthest: float  # |log| of the largest error that is left, of networks that were left out
    networks: int


def correction(ratios: Sequence[tuple[str, float]]) -> Correction:
    """Learn from (network, its time / what was estimated), one or more of each network.

    Raises ValueError for no times.
    """
    if not ratios:
        raise ValueError("no times")
    logs: dict[str, list[float]] = {}
    for network, ratio in ratios:
        logs.setdefault(network, []).append(math.log(ratio))
    plain = np.abs([each for some in logs.values() for each in some])
    if len(logs) >= _FEWEST:
        left_out = np.abs([each - _without(logs, network) for network, some in logs.items() for each in some])
        if np.median(left_out) < np.median(plain):
            factor = math.exp(np.median([each for some in logs.values() for each in some]))
            return Correction(factor=factor, furthest=float(left_out.max()), networks=len(logs))
    return Correction(factor=1.0, furthest=float(plain.max()), networks=len(logs))


def _without(logs: Mapping[str, Sequence[float]], network: str) -> float:
    """Return the log of the factor that all other networks give."""
    return float(np.median([each for name, some in logs.items() if name != network for each in some]))
