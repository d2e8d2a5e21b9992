"""How long a file takes on a target that is neither at hand nor emulated: by a model of its kernels."""

from __future__ import annotations

from pipeline.artifacts.files import Variant
from pipeline.artifacts.validation import ByModel
from pipeline.declare.target import TargetProfile
from pipeline.inspecting.kernels import kernels_in
from pipeline.instruments.known import kernels_of
from pipeline.validating.opened import Opened


def by_model(opened: Opened, variant: Variant, target: TargetProfile) -> ByModel | None:
    """Estimate it from what the file has to do; None of a target or in a runtime whose kernels were not counted."""
    kernels = kernels_of(target)
    if kernels is None or opened.runtime not in kernels.runtimes:
        return None
    layers = kernels_in(opened.path, variant.format, variant.precision)
    found = kernels.latency_ms(layers, opened.runtime, variant.precision)
    return None if found is None else ByModel(place=kernels.place, latency_ms=found[0], basis=found[1])
