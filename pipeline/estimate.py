"""``karui estimate``: how long a model file takes on a target that is not at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import catalog
from pipeline.artifacts.evidence import Interval
from pipeline.artifacts.files import RUNTIME_OF_FORMAT
from pipeline.errors import ConfigError, EmulationError
from pipeline.estimating.predicted import fit_of, predicted
from pipeline.onboard.arrays import Arrays
from pipeline.runtimes import open_session
from pipeline.runtimes.emulation.counting import Counting
from pipeline.runtimes.emulation.system import system_for


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """One inference of a file in one runtime on a target."""

    file: str
    target: str
    runtime: str
    instructions: float
    latency_ms: Interval
    basis: str  # of the interval

    @property
    def text(self) -> str:
        """``onnxruntime: 7.4 ms (5.9–9.3, estimated from 13.2 M instructions; …)``."""
        ms, millions = self.latency_ms, self.instructions / 1e6
        between = f"{ms.low:.3g}–{ms.high:.3g}"
        return (
            f"{self.runtime}: {ms.value:.3g} ms ({between}, estimated from {millions:.3g} M instructions; {self.basis})"
        )


def estimates(model: Path, target_name: str) -> Iterator[Estimated]:
    """Count one inference in every runtime of the file's format, and estimate its time on the target, on one thread.

    Raises ConfigError, EmulationError and ModelError in words.
    """
    kind = model.suffix.lower().removeprefix(".")
    runtimes = [runtime for key, some in RUNTIME_OF_FORMAT.items() if key == kind for runtime in some]
    if not model.is_file() or not runtimes:
        raise ConfigError(f"'{model}' is no .onnx or .tflite file that is there", where="estimate")
    target = catalog.load_target(target_name)
    system = system_for(target)
    if fit_of(system.processor.name) is None:
        raise EmulationError(f"nobody published times of a {system.processor.name} that an estimate could rest on")
    usable = [runtime for runtime in runtimes if runtime in system.homes]
    if not usable:
        raise EmulationError(f"{target.name} runs none of {', '.join(runtimes)} here")
    with Counting(system) as counting:
        for runtime in usable:
            counts = counting.count(model, runtime, _sample(model))
            found = predicted(counts, cpu=system.processor.name, clock_mhz=target.cpu.clock_mhz, runtime=runtime)
            assert found is not None  # noqa: S101  (there is a fit)
            ms, basis = found
            yield Estimated(
                file=str(model),
                target=target.name,
                runtime=runtime,
                instructions=counts["total"],
                latency_ms=ms,
                basis=basis,
            )


def _sample(model: Path) -> Arrays:
    """Draw one sample for each input."""
    session = open_session(model, "onnxruntime" if model.suffix.lower() == ".onnx" else "litert")
    rng, drawn = np.random.default_rng(0), {}
    for spec in session.signature.inputs:
        values = rng.standard_normal((1, *(max(side, 1) for side in spec.shape)))
        drawn[spec.name] = (
            values.astype(spec.dtype) if spec.dtype.startswith("float") else np.zeros_like(values, spec.dtype)
        )
    session.close()
    return drawn
