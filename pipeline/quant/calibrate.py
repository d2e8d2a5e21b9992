"""Ranges of activations from representative samples: min-max, percentile or least squared error (PTQ).

The quick route to int8, and the point from which quantization-aware training starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from pipeline.quant.fakequant import ActivationQuantizer, QWeighted
from pipeline.quant.scheme import ACTIVATION_MAX, ACTIVATION_MIN
from pipeline.spec import QuantizeSpec

_BINS = 2048
_SMALLEST_SHARE, _CANDIDATES = 0.3, 71  # ends tried for the least squared error: 30 % … 100 %, by 1 %
_BATCH = 64


@dataclass(kw_only=True)
class _Histogram:
    low: float = 0.0
    high: float = 0.0
    counts: Tensor | None = None  # (_BINS,)

    def widen(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))

    def count(self, x: Tensor) -> None:
        counts = torch.histc(x.float().flatten(), _BINS, self.low, max(self.high, self.low + 1e-12))
        self.counts = counts if self.counts is None else self.counts + counts

    def centers(self) -> Tensor:
        width = (self.high - self.low) / _BINS
        return self.low + width * (torch.arange(_BINS) + 0.5)


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


def _run(prepared: fx.GraphModule, inputs: Tensor) -> None:
    prepared.eval()
    for batch in torch.split(inputs, _BATCH):
        prepared(batch)


def _range(histogram: _Histogram, spec: QuantizeSpec) -> tuple[float, float]:
    if spec.calibration == "min-max" or histogram.counts is None or histogram.high == histogram.low:
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
    shares = torch.linspace(1.0, _SMALLEST_SHARE, _CANDIDATES)
    low, high = torch.tensor([histogram.low]), torch.tensor([histogram.high])
    high = (histogram.high * shares)[_least_error(histogram, low, histogram.high * shares)]
    low = (histogram.low * shares)[_least_error(histogram, histogram.low * shares, high[None])]
    return float(low), float(high)


def _least_error(histogram: _Histogram, lows: Tensor, highs: Tensor) -> int:
    """Return the index of the best of several ranges; lows and highs broadcast to (candidates,)."""
    assert histogram.counts is not None  # noqa: S101
    low, high = (lows + 0 * highs).unsqueeze(1), (highs + 0 * lows).unsqueeze(1)  # (candidates, 1)
    scale = (high - low) / (ACTIVATION_MAX - ACTIVATION_MIN)
    zero_point = (ACTIVATION_MIN - low / scale).round()
    centers = histogram.centers()  # (bins,)
    steps = ((centers / scale).round() + zero_point).clamp(ACTIVATION_MIN, ACTIVATION_MAX)
    error = ((steps - zero_point) * scale - centers).square()  # (candidates, bins)
    return int((error * histogram.counts).sum(1).argmin())


@contextmanager
def unquantized(prepared: fx.GraphModule) -> Iterator[None]:
    """Compute in float for a while."""
    parts = [module for module in prepared.modules() if isinstance(module, ActivationQuantizer | QWeighted)]
    before = [part.enabled for part in parts]
    for part in parts:
        part.enabled = False
    try:
        yield
    finally:
        for part, enabled in zip(parts, before, strict=True):
            part.enabled = enabled
