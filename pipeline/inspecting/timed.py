"""How long a network or file is estimated to take on a target, layer by layer, from what its kernels have to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.artifacts.evidence import Interval
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import Precision, RuntimeName
from pipeline.estimating.modelled import Modelled, modelled
from pipeline.inspecting.layers import Inspected
from pipeline.runtimes.emulation.processors import processor_of

_RUNTIMES: Mapping[str, tuple[RuntimeName, ...]] = {
    "network": ("onnxruntime", "litert"),
    "onnx": ("onnxruntime",),
    "tflite": ("litert",),
}
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One inference in one precision on a target, in the runtime in which it is faster."""

    target: str
    precision: Precision
    runtime: RuntimeName
    instructions: float
    latency_ms: Interval | None  # None: nobody published times that tell
    basis: str  # of the latency, or why there is none
    layers_ms: tuple[float, ...]  # of each layer, as they are inspected; () where there is no latency
    rest_ms: float  # what an inference takes beside its layers


@dataclass(frozen=True, kw_only=True)
class OnTarget:
    """What is estimated of one target."""

    target: str
    timed: tuple[Timed, ...]
    why_not: str = ""  # nothing is


def on_target(inspected: Inspected, target: TargetProfile) -> OnTarget:
    """Estimate every precision that a network has, on one thread."""
    processor = processor_of(target.cpu)
    if isinstance(processor, str):
        return OnTarget(target=target.name, timed=(), why_not=processor)
    allowed = [each for each in _RUNTIMES[inspected.kind] if target.runtime in ("auto", each)]
    if not allowed:
        return OnTarget(
            target=target.name, timed=(), why_not=f"its runtime is {target.runtime}, of which no kernels were counted"
        )
    found = []
    for precision in _PRECISIONS:
        if not any(layer.works.get(precision) for layer in inspected.layers):
            continue
        works = [layer.works.get(precision, ()) for layer in inspected.layers]
        ways = [
            (runtime, made)
            for runtime in allowed
            if (
                made := modelled(
                    works, runtime=runtime, precision=precision, cpu=processor.name, clock_mhz=target.cpu.clock_mhz
                )
            )
        ]
        if ways:
            found.append(_timed(target.name, precision, *min(ways, key=_cost)))
    if found:
        return OnTarget(target=target.name, timed=tuple(found))
    why = f"no kernels were counted on a {processor.name}" if inspected.layers else "there are no layers"
    return OnTarget(target=target.name, timed=(), why_not=why)


def _cost(way: tuple[RuntimeName, Modelled]) -> float:
    made = way[1]
    return made.instructions if made.latency_ms is None else made.latency_ms.value


def _timed(target: str, precision: Precision, runtime: RuntimeName, made: Modelled) -> Timed:
    return Timed(
        target=target,
        precision=precision,
        runtime=runtime,
        instructions=made.instructions,
        latency_ms=made.latency_ms,
        basis=made.basis,
        layers_ms=made.layers_ms,
        rest_ms=made.rest_ms,
    )
