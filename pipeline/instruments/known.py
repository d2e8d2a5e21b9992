"""Which targets the model of kernels can speak of."""

from __future__ import annotations

from pipeline.declare.target import TargetProfile
from pipeline.estimating.modelled import is_known
from pipeline.instruments.modelled import Kernels, basis
from pipeline.runtimes.emulation.processors import processor_of


def kernels_of(target: TargetProfile) -> Kernels | None:
    """Return what is known of a target's kernels; None where none were counted on its processor or in its runtime."""
    processor = processor_of(target.cpu)
    if isinstance(processor, str):
        return None
    allowed = [each for each in target.runtimes if target.runtime in ("auto", each)]
    runtimes = tuple(each for each in allowed if is_known(each, cpu=processor.name))
    if not runtimes:
        return None
    clock_mhz = target.cpu.clock_mhz
    return Kernels(cpu=processor.name, clock_mhz=clock_mhz, runtimes=runtimes, profile=target.name, basis=basis())
