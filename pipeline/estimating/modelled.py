"""The time of an inference that nobody counted: modelled events times what each takes, with both errors in the bar."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.artifacts.evidence import Interval
from pipeline.estimating.features import MISSES
from pipeline.estimating.fit import EVENTS, Fit, estimate_of
from pipeline.estimating.layers_table import networks
from pipeline.estimating.predicted import error_bar, fit_of, fits
from pipeline.estimating.static import INFERENCE, Floats, costs
from pipeline.estimating.static_fit import Off, off
from pipeline.estimating.work import Work

_STANDS_FOR = {"cortex-a53": "cortex-a72"}  # whose kernels it runs: neither has 8-bit dot products


@dataclass(frozen=True, kw_only=True)
class Modelled:
    """One inference of a network in one runtime on a processor."""

    instructions: float
    latency_ms: Interval | None  # None: nobody published times of the processor
    basis: str
    layers_ms: tuple[float, ...]  # () without a latency
    rest_ms: float = 0.0  # beside the layers


def is_known(runtime: str, *, cpu: str) -> bool:
    """Tell whether kernels of a runtime were counted on a processor."""
    return costs(runtime, _STANDS_FOR.get(cpu, cpu)) is not None


def modelled(
    layers: Sequence[Sequence[Work]], *, runtime: str, precision: str, cpu: str, clock_mhz: int
) -> Modelled | None:
    """Return what a network takes whose layers' kernels are known; None for a runtime whose kernels nobody counted."""
    own = costs(runtime, _STANDS_FOR.get(cpu, cpu))
    if own is None:
        return None
    each = own.of((*(work for works in layers for work in works), INFERENCE))  # (kernels + 1, kinds of events)
    total = dict(zip(EVENTS, each.sum(axis=0).tolist(), strict=True))
    instructions = sum(number for kind, number in total.items() if kind not in MISSES)
    fit = fit_of(cpu)
    if fit is None:
        why = f"nobody published times of a {cpu} that an estimate could rest on"
        return Modelled(instructions=instructions, latency_ms=None, basis=why, layers_ms=())
    known, why = error_bar(fit, runtime)
    off_by = own.errors[precision]
    bar = known * off_by.bar  # both may point the same way: of EfficientDet-Lite0 in float on a Cortex-A72 they do
    latency, layers_ms = (
        estimate_of(fit, total, clock_mhz=clock_mhz, error_bar=bar),
        _layers_ms(layers, each, fit, clock_mhz),
    )
    return Modelled(
        instructions=instructions,
        latency_ms=latency,
        basis=f"counts of unseen networks within {100 * off_by.median:.0f} % in the median; {why}",
        layers_ms=layers_ms,
        rest_ms=latency.value - sum(layers_ms),
    )


def _layers_ms(layers: Sequence[Sequence[Work]], each: Floats, fit: Fit, clock_mhz: int) -> tuple[float, ...]:
    found, start = [], 0
    for works in layers:
        events = each[start : start + len(works)].sum(axis=0).tolist()
        start += len(works)
        found.append(estimate_of(fit, dict(zip(EVENTS, events, strict=True)), clock_mhz=clock_mhz, error_bar=1.0).value)
    return tuple(found)


@functools.cache
def judged() -> tuple[Off, ...]:
    """Return how far off the model is for whole networks that it was not fitted on."""
    return off(networks(), {fit.cpu: fit for fit in fits()})
