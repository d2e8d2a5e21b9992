"""A time as a sum over what an inference takes: so many ns for each kind of instruction and for each cache miss.

The ns of one processor are fitted on published times: non-negative least squares of the relative error, in which what
is far off weighs less (Huber).  How good that is, is told by networks that were left out, both precisions of each: what
was fitted tells nothing.

Shapes: R rows of the reference table, F kinds of events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pipeline.artifacts.evidence import Interval
from pipeline.estimating.table import Row

# kind of event → the counts that it sums up; a pair of vectors takes two loads
EVENTS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "multiply": (("fmla_vec", 1), ("dot", 1), ("mlal", 1), ("mul_vec", 1)),
    "vector": (
        *(
            ("fp_vec", 1),
            ("simd_alu", 1),
            ("simd_perm", 1),
            ("simd_narrow_shift", 1),
            ("simd_cvt", 1),
            ("fp_scalar", 1),
        ),
    ),
    "load": (("load", 1), ("load_pair", 1), ("load_q", 1), ("load_struct", 1), ("load_pair_q", 2)),
    "store": (("store", 1), ("store_q", 1)),
    "integer": (
        *(("int_alu", 1), ("int_shift", 1), ("int_mul", 1), ("int_div", 1), ("branch", 1), ("sys", 1), ("atomic", 1)),
    ),
    "L1 miss": (("l1d_miss", 1),),
    "L2 miss": (("l2_miss", 1),),
}
_OF_MEMORY = ("L2 miss",)  # takes as long whatever the processor's clock
_OUTLIER = 0.1  # relative error from which on a row weighs less
_ROUNDS = 20  # of reweighting
_COVERED = 0.9  # share of networks left out that lie inside the error bar

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What events take on one processor, and how far off it was for networks that it had not seen."""

    cpu: str
    clock_mhz: int
    ns: Mapping[str, float]  # kind of event → ns of each
    errors: Mapping[str, float]  # network left out → estimated / published - 1

    @property
    def median_error(self) -> float:
        """Return the median of the relative errors."""
        return float(np.median(np.abs(list(self.errors.values()))))

    @property
    def error_bar(self) -> float:
        """Return the factor within which nine of ten networks lay that were left out."""
        ratios = [abs(math.log1p(error)) for error in self.errors.values()]
        return float(np.exp(np.quantile(ratios, _COVERED)))


def fitted(rows: Sequence[Row]) -> Fit:
    """Fit one processor's rows.  Raises ValueError for rows of several or of none."""
    if len({(row.cpu, row.clock_mhz) for row in rows}) != 1:
        raise ValueError("rows of one processor are fitted")
    found, published = events_of(rows), np.array([row.published_ms for row in rows])
    errors = {}
    for model in dict.fromkeys(row.model for row in rows):
        left_out = np.array([row.model == model for row in rows])
        ns = _solved(found[~left_out], published[~left_out])
        estimated = found[left_out] @ ns / 1e6
        for row, error in zip(np.array(rows, object)[left_out], estimated / published[left_out] - 1, strict=True):
            errors[f"{row.model} {row.precision}"] = float(error)
    of_each = dict(zip(EVENTS, _solved(found, published).tolist(), strict=True))
    return Fit(cpu=rows[0].cpu, clock_mhz=rows[0].clock_mhz, ns=of_each, errors=errors)


def events_of(rows: Sequence[Row]) -> Floats:
    """Return how many events of each kind there are, (R, F)."""
    return np.array([list(events(row.counts).values()) for row in rows])


def events(counts: Mapping[str, float]) -> dict[str, float]:
    """Sum counts up by kind of event."""
    return {kind: sum(weight * counts[name] for name, weight in parts) for kind, parts in EVENTS.items()}


def estimate(fit: Fit, counts: Mapping[str, float], *, clock_mhz: int, error_bar: float) -> Interval:
    """Estimate the ms of one inference at a clock; ``error_bar``: the factor to both sides."""
    return estimate_of(fit, events(counts), clock_mhz=clock_mhz, error_bar=error_bar)


def estimate_of(fit: Fit, found: Mapping[str, float], *, clock_mhz: int, error_bar: float) -> Interval:
    """Estimate the ms of events, kind → number."""
    slower = fit.clock_mhz / clock_mhz
    ns = sum(number * fit.ns[kind] * (1 if kind in _OF_MEMORY else slower) for kind, number in found.items())
    return Interval(value=ns / 1e6, low=ns / 1e6 / error_bar, high=ns / 1e6 * error_bar)


def _solved(found: Floats, published_ms: Floats) -> Floats:
    """Return the ns of each kind of event, (F,), from events (R, F) and ms (R,)."""
    relative = found / (1e6 * published_ms[:, None])
    size = relative.max(axis=0)
    size = np.where(size > 0, size, 1.0)
    weights = np.ones(len(relative))
    ns = np.zeros(relative.shape[1])
    for _ in range(_ROUNDS):
        solution, _ = nnls(relative / size * weights[:, None], weights)
        ns = solution / size
        errors = np.abs(relative @ ns - 1)
        weights = np.sqrt(np.minimum(1.0, _OUTLIER / np.maximum(errors, 1e-9)))
    return ns
