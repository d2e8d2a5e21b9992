"""The time of one inference in a runtime on a target, with the error bar that the reference table gives it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping

from pipeline.artifacts.evidence import Interval
from pipeline.estimating.fit import Fit, estimate, fitted
from pipeline.estimating.table import Row, reference

_FEWEST = 10  # networks of one runtime that make a fit


def predicted(counts: Mapping[str, float], *, cpu: str, clock_mhz: int, runtime: str) -> tuple[Interval, str] | None:
    """Return the ms and what they rest on, in words; None for a processor of which nobody published times."""
    fit = fit_of(cpu)
    if fit is None:
        return None
    bar, why = error_bar(fit, runtime)
    found = estimate(fit, counts, clock_mhz=clock_mhz, error_bar=bar)
    return found, why


@functools.cache
def fit_of(cpu: str) -> Fit | None:
    """Return the fit on one processor's rows of the runtime that has enough; None where none has."""
    rows = [row for row in reference() if row.cpu == cpu]
    most = Counter(row.runtime for row in rows).most_common(1)
    if not most or most[0][1] < _FEWEST:
        return None
    return fitted([row for row in rows if row.runtime == most[0][0]])


def fits() -> tuple[Fit, ...]:
    """Return the fits of all processors that can be fitted."""
    found = (fit_of(cpu) for cpu in dict.fromkeys(row.cpu for row in reference()))
    return tuple(fit for fit in found if fit is not None)


def held_out(fit: Fit) -> tuple[tuple[Row, float], ...]:
    """Return the rows of other runtimes on the same processor, and estimated / published - 1 of each."""
    known = [row for row in reference() if row.cpu == fit.cpu]
    fitted_runtime = Counter(row.runtime for row in known).most_common(1)[0][0]
    rest = [row for row in known if row.runtime != fitted_runtime]
    return tuple(
        (row, estimate(fit, row.counts, clock_mhz=row.clock_mhz, error_bar=1.0).value / row.published_ms - 1)
        for row in rest
    )


def error_bar(fit: Fit, runtime: str) -> tuple[float, str]:
    """Return the factor to both sides: of networks left out and, for another runtime, of what is known of that."""
    off = {row.runtime: 0.0 for row, _ in held_out(fit)}
    for row, error in held_out(fit):
        off[row.runtime] = max(off[row.runtime], abs(math.log1p(error)))
    if runtime in off:
        bar = fit.error_bar * math.exp(off[runtime])
        return bar, f"{runtime} within a factor of {bar:.2f}, as its published times lay"
    bar = fit.error_bar * math.exp(max(off.values(), default=math.log(2)))
    return bar, f"{runtime} within a factor of {bar:.2f}, as other runtimes lay: no time of it was published"
