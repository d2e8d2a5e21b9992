"""The output that a network is trained for and shipped with, and those that auxiliary heads give beside it.

GoogLeNet and Inception v3 return a tuple while they train, networks for segmentation a dict: their main output comes
first, or is called ``out``.  A hook of the network gives that one to whoever calls it.  The others are handed to
whoever collects them, so that each adds its loss.

Shapes: all outputs of a network have one shape.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from pipeline.errors import ModelError

_NAMES = ("out", "output")  # of a main output in a dict
# of an auxiliary loss beside the main one: Szegedy et al. 2014 (two heads), 2015 (one head)
_WEIGHT_OF_ONE, _WEIGHT_OF_SEVERAL = 0.4, 0.3

_collected: ContextVar[list[Tensor] | None] = ContextVar("_collected", default=None)


def named_output(found: object) -> Any:
    """Return the main output of a dict that names one, and all else as it is."""
    if isinstance(found, Mapping):
        return next((found[name] for name in _NAMES if name in found), found)
    return found


def give_main_output(network: nn.Module) -> None:
    """Let the network return its main output alone, in training as in use."""
    network.register_forward_hook(_main_output)


@contextlib.contextmanager
def auxiliary_outputs() -> Iterator[list[Tensor]]:
    """Collect what auxiliary heads of networks in training mode return meanwhile."""
    found: list[Tensor] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def weight_of(others: Sequence[Tensor]) -> float:
    """Return what the loss of each of these auxiliary outputs counts beside the main one."""
    return _WEIGHT_OF_ONE if len(others) == 1 else _WEIGHT_OF_SEVERAL


def _main_output(network: nn.Module, _: tuple[Any, ...], found: Any) -> Any:
    if isinstance(found, Tensor):
        return found
    main = found[0] if isinstance(found, tuple | list) and found else named_output(found)
    collected = _collected.get()
    if network.training and collected is not None and isinstance(main, Tensor):
        collected += _others(found, main)
    return main


def _others(found: Any, main: Tensor) -> list[Tensor]:
    outputs = found.values() if isinstance(found, Mapping) else found
    others = [output for output in outputs if output is not None and output is not main]
    for output in others:
        if not isinstance(output, Tensor) or output.shape != main.shape:
            shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ModelError(
                f"forward() returns {shape} beside its main output {tuple(main.shape)} in training mode",
                where="network",
                remedy="auxiliary outputs have the shape of the main one, and are trained on the same labels",
            )
    return others
