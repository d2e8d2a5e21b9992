"""The instrument that is a model of a target that is not at hand: what its kernels take, the same at every hour."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.artifacts.evidence import Interval, Place
from pipeline.artifacts.networks import Digest
from pipeline.artifacts.training import Paid
from pipeline.declare.words import Precision, RuntimeName
from pipeline.estimating.modelled import Modelled, modelled
from pipeline.estimating.predicted import fit_of
from pipeline.estimating.static import STATIC
from pipeline.estimating.table import REFERENCE, own_version
from pipeline.estimating.work import Work
from pipeline.instruments.protocol import Contender

# nine of ten ratios lay within this factor of those that follow from counts: of the networks, pruned by 20, 40 and 60 %
# of their multiply-accumulates, that bench/count_pruned.py names
RATIO_BARS: Mapping[Precision, float] = {"int8": 1.05, "fp32": 1.17}


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What is known of the kernels of a target."""

    cpu: str  # "cortex-a72"
    clock_mhz: int
    runtimes: tuple[RuntimeName, ...]  # whose kernels were counted there
    profile: str  # the target's
    basis: Digest  # the state of the model and of the times that it rests on

    @property
    def place(self) -> Place:
        """Say that times follow from the work of kernels."""
        name = f"the basis of a model of the kernels of a {self.cpu} at {self.clock_mhz} MHz"
        return Place(how="estimated", name=name, profile=self.profile)

    @property
    def tells_times(self) -> bool:
        """Whether anybody published times of such a processor."""
        return fit_of(self.cpu) is not None

    def take(self, layers: Sequence[Sequence[Work]], runtime: RuntimeName, precision: Precision) -> Modelled | None:
        """Return what one inference takes on one thread; None in a runtime whose kernels were not counted."""
        if runtime not in self.runtimes:
            return None
        return modelled(layers, runtime=runtime, precision=precision, cpu=self.cpu, clock_mhz=self.clock_mhz)

    def latency_ms(
        self, layers: Sequence[Sequence[Work]], runtime: RuntimeName, precision: Precision
    ) -> tuple[Interval, str] | None:
        """Return how long one inference takes and how far off that may be, in words; None where nobody knows."""
        found = self.take(layers, runtime, precision)
        if found is None or found.latency_ms is None:
            return None
        ms, name = found.latency_ms, "float" if precision == "fp32" else precision
        return ms, f"{name} in {runtime} within a factor of {ms.high / ms.value:.2f}"


@dataclass(frozen=True, kw_only=True)
class ByKernels:
    """Compares networks in the precision that will ship, each in the runtime in which it is fastest."""

    kernels: Kernels
    precision: Precision

    def place(self, profile: str | None = None) -> Place:
        """Say that times follow from the work of kernels; ``profile`` is theirs."""
        del profile
        return self.kernels.place

    def compare(self, candidate: Contender, reference: Contender, *, threads: int, budget_s: float, seed: int) -> Paid:
        """Compare two networks by what their kernels take; a network equals itself."""
        del threads, budget_s, seed
        after, before = self._cost(candidate), self._cost(reference)
        ratio = after / before
        bar = 1.0 if after == before else RATIO_BARS[self.precision]
        return Paid(ratio=ratio, low=ratio / bar, high=ratio * bar, of="latency", place=self.place())

    def _cost(self, contender: Contender) -> float:
        """Return ms, or instructions of a processor of which nobody published times."""
        layers = contender.works()[self.precision]
        found = (self.kernels.take(layers, each, self.precision) for each in self.kernels.runtimes)
        return min(
            each.latency_ms.value if each.latency_ms else each.instructions for each in found if each is not None
        )


def basis() -> Digest:
    """Return what tells one state of the model, and of the times that it rests on, from another."""
    data = (STATIC.read_bytes(), REFERENCE.read_bytes(), own_version().encode())
    return hashlib.sha256(b"\0".join(data)).hexdigest()
