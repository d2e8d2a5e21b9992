"""Preprocessing: steps that a card declares, carried out by numpy alone, the same bits in training and on the device.

A step is a module with ``apply(raw, **settings)``: (n, …) → (n, …).  A new step is one file and one line below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import clip, fill, normalize, one_hot

STEPS: Mapping[str, Callable[..., NDArray[Any]]] = {
    "clip": clip.apply,
    "fill": fill.apply,
    "normalize": normalize.apply,
    "one_hot": one_hot.apply,
}


@dataclass(frozen=True)
class StepCall:
    """One step and its settings, as a manifest keeps them: numbers, words and lists of them."""

    step: str
    settings: dict[str, Any] = field(default_factory=dict)


Frontend = Mapping[str, tuple[StepCall, ...]]  # input name → steps, in order


def run_steps(raw: NDArray[Any], steps: Sequence[StepCall]) -> NDArray[Any]:
    """Take raw values (n, …) through the steps, in order.  Raises KeyError for a step that is not known."""
    for call in steps:
        raw = STEPS[call.step](raw, **call.settings)
    return raw


def prepare(inputs: Arrays, frontend: Frontend) -> dict[str, NDArray[Any]]:
    """Return every input as the network sees it; an input without steps stays as it is, C-contiguous."""
    return {name: np.ascontiguousarray(run_steps(raw, frontend.get(name, ()))) for name, raw in inputs.items()}
