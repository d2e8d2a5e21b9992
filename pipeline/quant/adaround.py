"""Choose for every weight whether it is rounded up or down, by what that does to its layer's outputs.

Follows AdaRound (Nagel et al. 2020, arXiv:2004.10568): layer after layer, each on what the quantized layers before it
give, a soft choice h(V) in 0 … 1 per weight is trained against the layer's float output, and driven to 0 or 1.

Shapes: N samples, n of them at once; weights (O, …).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.graph.kinds import module_of
from pipeline.quant.fakequant import QWeighted
from pipeline.quant.grids import WEIGHTED

_MOST_SAMPLES = 256
_STEPS, _BATCH, _LEARNING_RATE = 400, 32, 1e-2
_STRETCH_LOW, _STRETCH_HIGH = -0.1, 1.1  # of the rectified sigmoid
_DRIVE, _WARM_UP = (
    0.01,
    0.2,
)  # weight of what drives choices to 0 or 1, and the share of steps without
_FIRST_POWER, _LAST_POWER = 20.0, 2.0


def adaround(prepared: fx.GraphModule, inputs: Tensor, *, seed: int) -> None:
    """Choose the rounding of a calibrated graph's weights, in place, on calibration samples ``inputs`` (N, …).

    The weights then lie on their grid, where rounding to the nearest leaves them.
    """
    _Rounding(prepared.eval(), torch.Generator().manual_seed(seed)).run(inputs[:_MOST_SAMPLES])


class _Rounding(fx.Interpreter):
    def __init__(self, prepared: fx.GraphModule, generator: torch.Generator) -> None:
        super().__init__(prepared)
        self.generator = generator

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_module" and isinstance(module_of(n), WEIGHTED):
            (x,), _ = self.fetch_args_kwargs_from_env(n)
            _choose(module_of(n), x, self.generator)  # type: ignore[arg-type]
        with torch.no_grad():
            return super().run_node(n)


@torch.enable_grad()
def _choose(layer: QWeighted, x: Tensor, generator: torch.Generator) -> None:
    """Round the weights of one layer for its inputs ``x`` (N, …)."""
    scale = layer.weight_scale().detach().view(-1, *(1,) * (layer.weight.dim() - 1))
    weight = layer.weight.detach()
    low, high = layer.grid
    below = (weight / scale).floor().clamp(low, high)
    wanted = _apply(layer, weight, x)
    choice = _inverse((weight / scale - below).clamp(0.01, 0.99)).requires_grad_()
    optimizer = torch.optim.Adam([choice], _LEARNING_RATE)
    size = wanted.square().mean().clamp(min=1e-12)
    for step in range(_STEPS):
        chosen = torch.randint(len(x), (min(_BATCH, len(x)),), generator=generator)
        soft = _soft(choice)
        rounded = (below + soft).clamp(low, high) * scale
        loss = (_apply(layer, rounded, x[chosen]) - wanted[chosen]).square().mean() / size
        done = (step / _STEPS - _WARM_UP) / (1 - _WARM_UP)
        if done > 0:
            power = _LAST_POWER + (_FIRST_POWER - _LAST_POWER) * (1 - done)
            loss = loss + _DRIVE * (1 - (2 * soft - 1).abs().pow(power)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    _take_if_nearer(layer, (below + (_soft(choice.detach()) >= 0.5)).clamp(low, high) * scale, x, wanted)


@torch.no_grad()
def _take_if_nearer(layer: QWeighted, found: Tensor, x: Tensor, wanted: Tensor) -> None:
    """Take the weights found where their outputs are nearer to float than those of rounding to the nearest."""
    nearest = layer.fake_parameters()[0]
    largest = layer.weight.abs().flatten(1).argmax(1, keepdim=True)  # scales follow from it: it stays
    found = found.flatten(1).scatter(1, largest, layer.weight.flatten(1).gather(1, largest)).view_as(layer.weight)
    errors = [(_apply(layer, weight, x) - wanted).square().sum() for weight in (found, nearest)]
    if errors[0] < errors[1]:
        layer.weight.copy_(found)


def _apply(layer: QWeighted, weight: Tensor, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight)
    result: Tensor = layer._conv_forward(x, weight, None)
    return result


def _soft(choice: Tensor) -> Tensor:
    return (torch.sigmoid(choice) * (_STRETCH_HIGH - _STRETCH_LOW) + _STRETCH_LOW).clamp(0, 1)


def _inverse(soft: Tensor) -> Tensor:
    share = (soft - _STRETCH_LOW) / (_STRETCH_HIGH - _STRETCH_LOW)
    return (share / (1 - share)).log()
