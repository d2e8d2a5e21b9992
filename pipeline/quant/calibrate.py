"""Ranges of activations from representative samples: min-max, percentile or least squared error (PTQ).

The quick route to int8, and the point from which quantization-aware training starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.kept import KeptGrid
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.quant.constants import QScale
from pipeline.quant.fakequant import ActivationQuantizer, QWeighted
from pipeline.quant.grids import WEIGHTED, on_grid, quantizer_of, runs_inside
from pipeline.quant.scheme import ACCUMULATOR_LIMIT, ACTIVATIONS, FINEST_OF_RESULT, SANE_SCALE, SMALLEST_SCALE
from pipeline.quant.settling import settle_scales

_BINS = 2048
_SMALLEST_SHARE, _CANDIDATES = 0.3, 71  # ends tried for the least squared error: 30 % … 100 %, by 1 %
_BATCH = 64
_SMALLEST_SPAN = SMALLEST_SCALE * ACTIVATIONS.steps


@dataclass(kw_only=True)
class _Histogram:
    low: float = 0.0
    high: float = 0.0
    counts: Tensor | None = None  # (_BINS,)

    def widen(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))

    def count(self, x: Tensor) -> None:
        if self.high - self.low <= _SMALLEST_SPAN:
            return  # always zero, or as good as
        counts = torch.histc(x.float().flatten(), _BINS, self.low, self.high)
        self.counts = counts if self.counts is None else self.counts + counts

    def centers(self) -> Tensor:
        width = (self.high - self.low) / _BINS
        return self.low + width * (torch.arange(_BINS, dtype=torch.float64) + 0.5)


@torch.no_grad()
def calibrate(prepared: fx.GraphModule, inputs: Tensor, spec: QuantizeSpec) -> None:
    """Set the range of every quantizer of ``prepared`` from float activations on ``inputs`` (N, …), in place."""
    quantizers = [m for m in prepared.modules() if isinstance(m, ActivationQuantizer) and m.fixed is None]
    histograms = {quantizer: _Histogram() for quantizer in quantizers}
    with unquantized(prepared):
        for quantizer, histogram in histograms.items():
            quantizer.tap = histogram.widen
        _run(prepared, inputs)
        if spec.calibration != "min-max":
            for quantizer, histogram in histograms.items():
                quantizer.tap = histogram.count
            _run(prepared, inputs)
    for quantizer, histogram in histograms.items():
        quantizer.tap = None
        quantizer.set_range(*_range(histogram, spec))
    _keep_grids(prepared)
    bound_scales(prepared)


def _keep_grids(prepared: fx.GraphModule) -> None:
    """Lay quantizers where a network that was quantized before has them."""
    for node in compute_nodes(prepared):
        module, source = module_of(node), node.args[0]
        if isinstance(module, ActivationQuantizer) and isinstance(source, fx.Node) and source.op == "call_module":
            kept = module_of(source)
            if isinstance(kept, KeptGrid):
                module.pin(kept.params)


@torch.no_grad()
def bound_scales(prepared: fx.GraphModule) -> None:
    """Keep every scale from becoming finer than its kernel can give, in place; values that never occur get a sane one.

    An activation function that never fires has the range [0, 0]; scales of zero, or far below the steps in which a sum
    is computed, would be refused by runtimes.  Results of more than 2^31 steps, before they are clamped, wrap around in
    kernels that add the zero point first.  To be done after calibration, and again after training has moved ranges.
    """
    for node in compute_nodes(prepared):
        quantizer = module_of(node)
        if not isinstance(quantizer, ActivationQuantizer) or quantizer.fixed is not None:
            continue
        step = _result_step(node.args[0])
        never = float(quantizer.high) == float(quantizer.low)
        smallest = SANE_SCALE if never and step is None else (step or 0.0) * (1.0 if never else FINEST_OF_RESULT)
        quantizer.smallest_scale.fill_(max(smallest, _reach(node.args[0]) / ACCUMULATOR_LIMIT, SMALLEST_SCALE))
    settle_scales(prepared)


def _result_step(node: object) -> float | None:
    """Return the largest step in which an integer kernel computes a value, an activation function inside it included.

    None for what is computed in float, and for the network's input.
    """
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module, source = module_of(node), node.args[0]
    if isinstance(module, WEIGHTED):
        return module.input_quantizer.params.scale * float(module.weight_scale().max())
    if runs_inside(node):
        return _result_step(source)
    scales = [quantizer_of(value).params.scale for value in node.all_input_nodes if on_grid(value)]
    if len(scales) < len(node.all_input_nodes):
        return None
    if isinstance(module, QScale):
        scales.append(module.params.scale)
        return math.prod(scales) if module.has_factor else max(scales)
    return math.prod(scales) if kind_of(module) == "Mul" else max(scales)


def _reach(node: object) -> float:
    """Return what no sum of a layer with weights exceeds, an activation function inside it included; 0 for others."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return 0.0
    module = module_of(node)
    if isinstance(module, WEIGHTED):
        return module.reach()
    return _reach(node.args[0]) if runs_inside(node) else 0.0


def _run(prepared: fx.GraphModule, inputs: Tensor) -> None:
    prepared.eval()
    for batch in torch.split(inputs, _BATCH):
        prepared(batch)


def _range(histogram: _Histogram, spec: QuantizeSpec) -> tuple[float, float]:
    if spec.calibration == "min-max" or histogram.counts is None:
        return histogram.low, histogram.high
    if spec.calibration == "percentile":
        return _percentile_range(histogram, spec.percentile)
    return _least_error_range(histogram)


def _percentile_range(histogram: _Histogram, percentile: float) -> tuple[float, float]:
    assert histogram.counts is not None  # noqa: S101
    share = histogram.counts.double().cumsum(0) / histogram.counts.double().sum()
    tail = 1 - percentile / 100
    centers = histogram.centers()
    low = centers[int(torch.searchsorted(share, tail))] if histogram.low < 0 else torch.zeros(())
    high = centers[min(int(torch.searchsorted(share, 1 - tail)), _BINS - 1)]
    return float(low), float(high)


def _least_error_range(histogram: _Histogram) -> tuple[float, float]:
    """Clip the high end, then the low end, to 30 … 100 %: whatever gives the least expected squared error."""
    shares = torch.linspace(1.0, _SMALLEST_SHARE, _CANDIDATES, dtype=torch.float64)
    low = torch.tensor([histogram.low], dtype=torch.float64)
    high = (histogram.high * shares)[_least_error(histogram, low, histogram.high * shares)]
    low = (histogram.low * shares)[_least_error(histogram, histogram.low * shares, high[None])]
    return float(low), float(high)


def _least_error(histogram: _Histogram, lows: Tensor, highs: Tensor) -> int:
    """Return the index of the best of several ranges; lows and highs broadcast to (candidates,)."""
    assert histogram.counts is not None  # noqa: S101
    low, high = (lows + 0 * highs).unsqueeze(1), (highs + 0 * lows).unsqueeze(1)  # (candidates, 1)
    scale = (high - low) / ACTIVATIONS.steps
    zero_point = (ACTIVATIONS.lowest - low / scale).round()
    centers = histogram.centers()  # (bins,)
    steps = ((centers / scale).round() + zero_point).clamp(*ACTIVATIONS)
    error = ((steps - zero_point) * scale - centers).square()  # (candidates, bins)
    return int((error * histogram.counts).sum(1).argmin())


@contextmanager
def unquantized(prepared: fx.GraphModule) -> Iterator[None]:
    """Compute in float for a while."""
    parts = [module for module in prepared.modules() if isinstance(module, ActivationQuantizer | QWeighted | QScale)]
    before = [part.enabled for part in parts]
    for part in parts:
        part.enabled = False
    try:
        yield
    finally:
        for part, enabled in zip(parts, before, strict=True):
            part.enabled = enabled
