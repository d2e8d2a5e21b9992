"""What an inference takes without running it: events of each kernel from what it has to do, as drawn layers took them.

``static.json``: runtime → processor → the tiles in which its kernels work, of each kernel and kind of event how many
there are for each thing that they follow from, and how far off that was for networks that were not seen.  Written by
``bench/fit_layers.py``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.estimating.features import MISSES, Footprint, Tile, instructions_from, kernel_of, misses_from
from pipeline.estimating.fit import EVENTS
from pipeline.estimating.work import Work

STATIC = Path(__file__).with_name("static.json")
_ALIKE = {  # kernels that were not counted, and others that work as they do
    "Mish": "Gelu",
    "Softplus": "Gelu",
    "Erf": "Gelu",
    "Pow": "Gelu",
    "PRelu": "LeakyRelu",
    "Clip": "Relu",
    "RNN": "GRU",
    "Sub": "Add",
    "Div": "Mul",
    "ReduceMax": "ReduceMean",
    "BatchNormalization": "Scale",
}
_UNKNOWN = ("Elu", "Gelu", "Sigmoid", "Relu")  # functions of each element
INFERENCE = Work(kernel="Inference")  # what one takes beside its kernels

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How far off times were of networks that the model had not seen, against those that follow from counts."""

    median: float
    bar: float  # the factor within which nine of ten lay


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What kernels take in one runtime on one processor."""

    tiles: Mapping[bool, Tile]  # whether integers → tile
    events: Mapping[str, Mapping[str, Mapping[str, float]]]  # kernel → kind of event → what it follows from → number
    errors: Mapping[str, Errors] = field(
        default_factory=dict
    )  # precision → how far off networks are that were not seen

    def of(self, works: Sequence[Work]) -> Floats:
        """Return the events of each kernel of one network, (kernels, kinds of events)."""
        footprint = Footprint.of(works)
        return np.array([self._of_one(work, footprint) for work in works]).reshape(len(works), len(EVENTS))

    def _of_one(self, work: Work, footprint: Footprint) -> list[float]:
        known = self.events.get(self._known(work), {})
        tile = self.tiles[work.integer]
        instructions, misses = instructions_from(work, tile), misses_from(work, tile, footprint)
        found = []
        for kind in EVENTS:
            sizes = misses if kind in MISSES else instructions
            found.append(sum(number * sizes.get(name, 0.0) for name, number in known.get(kind, {}).items()))
        return found

    def _known(self, work: Work) -> str:
        names = (kernel_of(work), _ALIKE.get(work.kernel, work.kernel))
        tried = [f"{name}8" for name in names] if work.integer else []
        return next((name for name in (*tried, *names, *_UNKNOWN) if name in self.events), "")


@functools.cache
def costs(runtime: str, cpu: str) -> Costs | None:
    """Return what kernels of a runtime take on a processor; None where nobody counted them."""
    found = _static().get(runtime, {}).get(cpu)
    if found is None:
        return None
    tiles = {name == "integer": Tile(rows=rows, columns=columns, depth=depth)
             for name, (rows, columns, depth) in found["tiles"].items()}  # fmt: skip
    errors = {precision: Errors(**each) for precision, each in found["errors"].items()}
    return Costs(tiles=tiles, events=found["events"], errors=errors)


@functools.cache
def _static() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(STATIC.read_text(encoding="utf-8"))
    return found
