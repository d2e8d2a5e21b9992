"""The integers themselves: modules that compute with exactly what the exported files hold.

In float32, where integers are exact up to 2^24; this is the reference that the runtimes are compared with, and what
every decision about an int8 network is taken on.

Shapes: N batch, C channels, O output channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.graph.params import QuantParams
from pipeline.quant.fakequant import QWeighted

_EXACT_IN_FLOAT32 = 2**24
_NEAR_TIE = 0.01  # of a step: sums in another order move a quotient of 255 steps by less


@dataclass(frozen=True, kw_only=True)
class _Shake:
    """How values are rounded otherwise, to see how much of it reaches the output."""

    generator: torch.Generator
    moved_share: float  # (0 … 1) of all rounded values, by one step
    tied_share: float  # (0 … 1) of the ties, broken the other way: runtimes differ there

    def rounded(self, steps: Tensor) -> Tensor:
        """Round half to even, but for what is as near to another integer: some of it goes there."""
        rounded = steps.round()
        below = steps.floor()
        tied = (steps - below - 0.5).abs() < _NEAR_TIE
        other = torch.rand(steps.shape, generator=self.generator) < self.tied_share
        return torch.where(tied & other, 2 * below + 1 - rounded, rounded)

    def moved(self, steps: Tensor) -> Tensor:
        """Move some values up or down by one step."""
        if not self.moved_share:
            return steps
        flat = steps.flatten()
        count = max(1, round(self.moved_share * len(flat)))
        chosen = torch.randint(len(flat), (count,), generator=self.generator)
        flat[chosen] += 2 * torch.randint(2, (count,), generator=self.generator) - 1
        return flat.view_as(steps)


class FrozenQuantizer(nn.Module):
    """Rounds to a constant grid, half to even as the runtimes do."""

    def __init__(self, params: QuantParams) -> None:
        super().__init__()
        self.params = params
        self.shake: _Shake | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        params, shake = self.params, self.shake
        steps = (x / params.scale).float()
        steps = (shake.moved(shake.rounded(steps)) if shake else steps.round()) + params.zero_point
        return (steps.clamp(*params.grid) - params.zero_point) * params.scale


class FrozenWeighted(nn.Module):
    """A weighted layer on integers: the accumulator is exact, then one multiplication by s_x * s_w.

    Where the kernel ends in a grid, that is by s_x * s_w / s_y in float32, as ONNX Runtime and XNNPACK do it: what lies
    within 2^-24 of a tie is rounded as they round it, and would grow through a deep network otherwise.
    """

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
        self.result_scale: float | None = None

    def end_in(self, grid: QuantParams) -> None:
        """Let the kernel end in a grid: results are float64, where its steps times its scale are exact."""
        self.result_scale = grid.scale

    def forward(self, x: Tensor) -> Tensor:
        """As the layer it stands for."""
        accumulator = self._products((x / self.input_scale).round())
        if self.bias is not None:  # int32 sums beyond 2^24 need more than float32, products alone hardly ever
            accumulator = (accumulator.double() + self.bias).float() if self.wide else accumulator + self.bias.float()
        if self.result_scale is None:
            return accumulator * self.scale
        return (accumulator * (self.scale / self.result_scale)).double() * self.result_scale

    def _products(self, steps: Tensor) -> Tensor:
        layer = self.layer[0]
        if isinstance(layer, nn.Linear):
            return F.linear(steps, self.weight)
        products: Tensor = layer._conv_forward(steps, self.weight, None)
        return products


class _FrozenArithmetic(nn.Module):
    """What the sum and the product of two quantized values share: the result's zero point goes in before rounding."""

    def __init__(self, *grids: QuantParams, result: QuantParams, read_as: QuantParams | None = None) -> None:
        super().__init__()
        self.grids, self.zero_point, self.result_scale = grids, result.zero_point, (read_as or result).scale
        self.scales = [np.float32(grid.scale) for grid in (*grids, result)]
        self.shake: _Shake | None = None

    def _steps(self, x: Tensor, which: int) -> Tensor:
        return (x / self.grids[which].scale).round()

    def _real(self, raw: Tensor) -> Tensor:
        rounded = self.shake.rounded(raw) if self.shake else raw.round()
        return (rounded - self.zero_point) * self.result_scale


class FrozenSum(_FrozenArithmetic):
    """A sum on integers, by float32 ratios of scales and with fused multiplications as ONNX Runtime computes it.

    Between scales as in ``sums`` nothing is rounded before the sum is complete, in whatever order it is computed.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """As the sum it stands for."""
        ratio_a, ratio_b = (float(scale / self.scales[2]) for scale in self.scales[:2])
        zero_a, zero_b = (grid.zero_point for grid in self.grids)
        of_zeros = np.float32(zero_a * ratio_a + float(np.float32(zero_b * ratio_b)))
        start = float(np.float32(self.zero_point) - of_zeros)
        half = ((self._steps(b, 1) + zero_b).double() * ratio_b + start).float()
        return self._real(((self._steps(a, 0) + zero_a).double() * ratio_a + half.double()).float())


class FrozenProduct(_FrozenArithmetic):
    """A product on integers, with one float32 factor as ONNX Runtime computes it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """As the product it stands for."""
        factor = float(self.scales[0] * self.scales[1] / self.scales[2])
        return self._real(self._steps(a, 0) * self._steps(b, 1) * factor + self.zero_point)


class FrozenConstant(nn.Module):
    """A sum or a product with a constant."""

    constant: Tensor

    def __init__(self, arithmetic: FrozenSum | FrozenProduct, constant: Tensor) -> None:
        super().__init__()
        self.arithmetic = arithmetic
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        """As the operation it stands for."""
        result: Tensor = self.arithmetic(x, self.constant)
        return result


class FrozenPool(nn.Module):
    """A pool of means on integers, so that sums are exact and ties stay ties; rounded to its input's grid."""

    def __init__(self, pool: nn.Module, scale: float) -> None:
        super().__init__()
        self.pool, self.scale, self.round_result = pool, scale, True
        self.shake: _Shake | None = None

    def forward(self, x: Tensor) -> Tensor:
        """As the pooling it stands for."""
        mean: Tensor = self.pool((x / self.scale).round())
        if self.round_result:
            mean = self.shake.rounded(mean) if self.shake else mean.round()
        return mean * self.scale


class FrozenMean(nn.Module):
    """A mean over all positions that ends in a grid of its own: the exact sum, multiplied once in float32."""

    def __init__(self, scale: float, result_scale: float) -> None:
        super().__init__()
        self.scale, self.result_scale = scale, result_scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, …) → (N, C, 1, …); results are float64, where steps times their scale are exact."""
        positions = tuple(range(2, x.dim()))
        total = (x / self.scale).round().double().sum(positions, keepdim=True).float()
        factor = np.float32(self.scale) / (np.float32(self.result_scale) * np.float32(x[0, 0].numel()))
        return (total * float(factor)).double() * self.result_scale


_ROUNDING = FrozenQuantizer | FrozenPool | _FrozenArithmetic


@torch.no_grad()
def shaken_outputs(frozen: nn.Module, inputs: Tensor, *, share: float, times: int) -> Tensor:
    """Return the outputs (times + 1, N, …) when a ``share`` (0 … 1) of all rounded values is one step off, seeded.

    Half of the ties are broken the other way then, and in the last outputs all of them and nothing else: means of equal
    pixels are tied everywhere at once.  How far they lie from the undisturbed outputs says how rounding grows through
    this network.
    """
    rounding = [module for module in frozen.modules() if isinstance(module, _ROUNDING)]
    shakes = [_Shake(generator=_seeded(seed), moved_share=share, tied_share=0.5) for seed in range(times)]
    shakes.append(_Shake(generator=_seeded(times), moved_share=0.0, tied_share=1.0))
    found = []
    try:
        for shake in shakes:
            for module in rounding:
                module.shake = shake
            found.append(frozen(inputs))
    finally:
        for module in rounding:
            module.shake = None
    return torch.stack(found)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
