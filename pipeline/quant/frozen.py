"""The integers themselves: modules that compute with exactly what the exported files hold.

In float32, where integers are exact up to 2^24; this is the reference that the runtimes are compared with, and what
every decision about an int8 network is taken on.

Shapes: N batch, C channels, O output channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.graph.params import QuantParams
from pipeline.quant.fakequant import QWeighted

_EXACT_IN_FLOAT32 = 2**24
_NEAR_TIE = 0.01  # of a step: sums in another order move a quotient of 255 steps by less


def _round(steps: Tensor, *, other_ties: bool) -> Tensor:
    """Round half to even; with ``other_ties`` what is as near to two integers goes to the other one."""
    rounded = steps.round()
    if not other_ties:
        return rounded
    below = steps.floor()
    tied = (steps - below - 0.5).abs() < _NEAR_TIE
    return torch.where(tied, 2 * below + 1 - rounded, rounded)


class FrozenQuantizer(nn.Module):
    """Rounds to a constant grid, half to even as the runtimes do."""

    def __init__(self, params: QuantParams) -> None:
        super().__init__()
        self.params = params
        # set to move a share of the values by one step, to see how much of it reaches the output
        self.disturbance: torch.Generator | None = None
        self.disturbed_share = 0.0
        self.other_ties = False  # runtimes break ties differently

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        params = self.params
        steps = _round(x / params.scale, other_ties=self.other_ties) + params.zero_point
        if self.disturbance is not None:
            steps = self._disturbed(steps, self.disturbance)
        return (steps.clamp(*params.grid) - params.zero_point) * params.scale

    def _disturbed(self, steps: Tensor, generator: torch.Generator) -> Tensor:
        """Move a share of the values up or down by one step."""
        flat = steps.flatten()
        count = max(1, round(self.disturbed_share * len(flat)))
        chosen = torch.randint(len(flat), (count,), generator=generator)
        ways = 2 * torch.randint(2, (count,), generator=generator) - 1
        flat[chosen] += ways
        return flat.view_as(steps)


class FrozenWeighted(nn.Module):
    """A weighted layer on integers: the accumulator is exact, then one multiplication by s_x * s_w."""

    weight: Tensor
    bias: Tensor | None
    scale: Tensor

    def __init__(self, layer: QWeighted) -> None:
        super().__init__()
        self.integers = layer.freeze()
        self.layer = (layer,)  # for how it is applied; its own weights are not used
        self.input_scale = layer.input_quantizer.params.scale
        channels = (1, -1) + (1,) * (self.integers.weight.dim() - 2)
        self.register_buffer("weight", self.integers.weight.float())
        bias = self.integers.bias
        self.register_buffer("bias", None if bias is None else bias.double().view(channels))
        self.wide = bias is not None and int(bias.abs().max()) >= _EXACT_IN_FLOAT32
        scales = torch.tensor(self.integers.weight_params.scales) * torch.tensor(self.input_scale)
        self.register_buffer("scale", scales.view(channels))

    def forward(self, x: Tensor) -> Tensor:
        """As the layer it stands for."""
        accumulator = self._products((x / self.input_scale).round())
        if self.bias is not None:  # int32 sums beyond 2^24 need more than float32, products alone hardly ever
            accumulator = (accumulator.double() + self.bias).float() if self.wide else accumulator + self.bias.float()
        return accumulator * self.scale

    def _products(self, steps: Tensor) -> Tensor:
        layer = self.layer[0]
        if isinstance(layer, nn.Linear):
            return F.linear(steps, self.weight)
        products: Tensor = layer._conv_forward(steps, self.weight, None)
        return products


class FrozenPool(nn.Module):
    """An averaging operation on integers, so that sums are exact and ties stay ties; rounded to its input's grid."""

    def __init__(self, pool: nn.Module, scale: float, *, round_result: bool) -> None:
        super().__init__()
        self.pool, self.scale, self.round_result = pool, scale, round_result
        self.other_ties = False

    def forward(self, x: Tensor) -> Tensor:
        """As the pooling it stands for."""
        mean: Tensor = self.pool((x / self.scale).round())
        return (_round(mean, other_ties=self.other_ties) if self.round_result else mean) * self.scale


@torch.no_grad()
def shaken_outputs(frozen: nn.Module, inputs: Tensor, *, share: float, times: int) -> Tensor:
    """Return the outputs (times + 1, N, …) when a ``share`` (0 … 1) of all rounded values is one step off, seeded.

    The last are those when all ties are broken the other way: means of equal pixels are tied everywhere at once.
    How far they lie from the undisturbed outputs says how rounding grows through this network.
    """
    quantizers = [module for module in frozen.modules() if isinstance(module, FrozenQuantizer)]
    rounding = [module for module in frozen.modules() if isinstance(module, FrozenQuantizer | FrozenPool)]
    found = []
    try:
        for seed in range(times):
            generator = torch.Generator().manual_seed(seed)
            for quantizer in quantizers:
                quantizer.disturbance, quantizer.disturbed_share = generator, share
            found.append(frozen(inputs))
        for quantizer in quantizers:
            quantizer.disturbance = None
        for module in rounding:
            module.other_ties = True
        found.append(frozen(inputs))
    finally:
        for quantizer in quantizers:
            quantizer.disturbance = None
        for module in rounding:
            module.other_ties = False
    return torch.stack(found)
