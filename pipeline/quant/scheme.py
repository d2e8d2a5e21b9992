"""The table: how each operation is quantized.  QAT placement and both file writers follow it, so what was trained runs.

Weights are int8, symmetric, one scale per output channel, range ±127 (±63 with 7 bits); biases int32 with scale
s_x * s_w; activations are uint8 with scale and zero point per tensor (TFLite stores the same numbers minus 128).
A quantizer never stands between an operation and an activation function that its integer kernel takes in.

Follows Jacob et al. 2018 (arXiv:1712.05877) and the int8 specification of TFLite.  One deviation is deliberate: the
global mean has its own scale.  With its input's scale, sums of 2^n values hit rounding ties, and runtimes differ there.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

ACTIVATION_MIN, ACTIVATION_MAX = 0, 255  # uint8
BIAS_LIMIT = 2**31 - 1
SMALLEST_SCALE = 1e-8


class Output(enum.Enum):
    """Where an operation's output gets its scale and zero point from."""

    OWN = "own"  # a range of its own, observed in training or calibration
    SAME = "same"  # its input's; values stay on the grid (max pooling, reshape)
    SAME_ROUNDED = "same, rounded"  # its input's; values fall between grid points (average pooling, bilinear resize)
    FIXED = "fixed"  # known from the function's range
    FLOAT = "float"  # no integer kernel anywhere: stays float, listed by name


@dataclass(frozen=True, kw_only=True)
class QuantParams:
    """real = (q - zero_point) * scale, with q in 0 … 255."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class OpRule:
    """How one kind of operation is quantized."""

    output: Output
    fixed: QuantParams | None = None
    weighted: bool = False  # int8 weights per output channel, int32 bias
    takes_in: frozenset[str] = frozenset()  # activation functions its integer kernel computes at its end
    note: str = ""  # why it stays float


_CLAMPS = frozenset({"Relu", "Clip"})
_NO_KERNEL = "no runtime has an integer kernel for it"

RULES: Mapping[str, OpRule] = {
    "Conv": OpRule(output=Output.OWN, weighted=True, takes_in=_CLAMPS),
    "Gemm": OpRule(output=Output.OWN, weighted=True, takes_in=_CLAMPS),
    "Add": OpRule(output=Output.OWN, takes_in=_CLAMPS),
    "Mul": OpRule(output=Output.OWN),
    "Relu": OpRule(output=Output.OWN),
    "Clip": OpRule(output=Output.OWN),
    "GlobalAveragePool": OpRule(output=Output.OWN),
    "Concat": OpRule(output=Output.OWN),
    "MaxPool": OpRule(output=Output.SAME),
    "Reshape": OpRule(output=Output.SAME),
    "Pad": OpRule(output=Output.SAME),
    "ResizeNearest": OpRule(output=Output.SAME),
    "AveragePool": OpRule(output=Output.SAME_ROUNDED),
    "ResizeLinear": OpRule(output=Output.SAME_ROUNDED),
    "Sigmoid": OpRule(output=Output.FIXED, fixed=QuantParams(scale=1 / 256, zero_point=0)),
    "Softmax": OpRule(output=Output.FIXED, fixed=QuantParams(scale=1 / 256, zero_point=0)),
    "Tanh": OpRule(output=Output.FIXED, fixed=QuantParams(scale=1 / 128, zero_point=128)),
    "ConvTranspose": OpRule(output=Output.FLOAT, note="ONNX Runtime has no integer ConvTranspose"),
    "BatchNormalization": OpRule(output=Output.FLOAT, note="it could not be folded into the layer before it"),
    "HardSwish": OpRule(output=Output.FLOAT, note=_NO_KERNEL),
    "HardSigmoid": OpRule(output=Output.FLOAT, note=_NO_KERNEL),
    "LeakyRelu": OpRule(output=Output.FLOAT, note="kernels differ between runtimes"),
    "Sub": OpRule(output=Output.FLOAT, note=_NO_KERNEL),
    "Scale": OpRule(output=Output.FLOAT, note="arithmetic with a constant"),
}


def weight_limit(bits: int) -> int:
    """Return the largest weight magnitude: 127 for 8 bits, 63 for 7."""
    return (1 << (bits - 1)) - 1
