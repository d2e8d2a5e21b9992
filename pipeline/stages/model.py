"""model: how long the files take on a target that is not at hand, by a model of its kernels: nothing is run there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.artifacts.evidence import Measurement, Observed, Place, Quantity
from pipeline.artifacts.files import Exported
from pipeline.artifacts.networks import DataRef
from pipeline.inspecting.kernels import kernels_in
from pipeline.instruments.here import FileWay, ways_of
from pipeline.instruments.modelled import Kernels
from pipeline.runs.run import Work, stage
from pipeline.tasks import named

_LATENCIES: tuple[Quantity, ...] = ("latency_p50_ms", "latency_p95_ms")  # of an idle board: nothing tells them apart


@stage(version=1)
def model(
    work: Work, *, data: DataRef, files: tuple[Exported, ...], kernels: Kernels, place: Place, runtimes: dict[str, str]
) -> Observed:
    """Estimate the time of every file in every runtime of the target whose kernels are known.

    ``place``: of the kernels; ``runtimes``: name → version.  Raises ModelError for a file that cannot be read.
    """
    del runtimes
    ways, not_usable = ways_of(files, work.store)
    return Observed(
        place=place,
        metric=named(data.card.task).METRIC,
        measurements=tuple(_estimated(ways, kernels, place)),
        not_usable=not_usable,
    )


def _estimated(ways: Sequence[FileWay], kernels: Kernels, place: Place) -> Iterator[Measurement]:
    for each in ways:
        precision = each.way.variant.precision
        layers = kernels_in(each.path, each.way.variant.format, precision)
        found = kernels.latency_ms(layers, each.runtime, precision)
        if found is None:
            continue
        ms, basis = found
        for quantity in _LATENCIES:
            yield Measurement(
                quantity=quantity, way=each.way, threads=1, place=place,
                value=ms.value, low=ms.low, high=ms.high, basis=basis,
            )  # fmt: skip
