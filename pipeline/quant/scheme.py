"""The table: how each operation is quantized.  QAT placement and both file writers follow it, so what was trained runs.

Weights are int8, symmetric, one scale per output channel, range ±127 (±63 with 7 bits); biases int32 with scale
s_x * s_w; activations are uint8 with scale and zero point per tensor (TFLite stores the same numbers minus 128).
A quantizer never stands between an operation and an activation function that its integer kernel takes in.

No bias may be lost: a channel's weight scale is at least what keeps its bias and its worst accumulator within int32,
whatever its weights are, and an activation's scale at least a share of the steps in which it is computed.  Training,
frozen integers and files follow the same rule.

Follows Jacob et al. 2018 (arXiv:1712.05877) and the int8 specification of TFLite.  One deviation is deliberate: the
global mean has its own scale.  With its input's scale, sums of 2^n values hit rounding ties, and runtimes differ there.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.graph.ops import FUNCTIONS
from pipeline.graph.params import UINT8, QuantParams

ACTIVATIONS = UINT8
# |bias| and the worst accumulator of a channel stay below it; int32 ends at twice as much, which rounding may use
ACCUMULATOR_LIMIT = 2**30
# The smallest weight scale of a layer is at least this share of what its largest accumulator asks for: the factor from
# accumulator to output then stays above 2^-32, where the fixed-point multipliers of TFLite's kernels end.
SMALLEST_OF_LAYER = 2**-8
# An output is at most this much finer than the steps in which its kernel's result comes: half of what kernels allow
FINEST_OF_RESULT = 1 / 128
LARGEST_RESCALING = 256.0  # XNNPACK's
COARSEST_ADDEND = 64.0  # of the sum's scale: fixed-point kernels lose the other addend beyond
SMALLEST_SCALE = 2.0**-60  # the product of two of them is still a normal float32
GATE = QuantParams.of(1 / 255)  # of a hard-sigmoid, which reaches 1
SANE_SCALE = 1 / ACTIVATIONS.steps  # for values that are always zero, where nothing else says what they could be


class Output(enum.Enum):
    """Where an operation's output gets its scale and zero point from."""

    OWN = "own"  # a range of its own, observed in training or calibration
    SAME = "same"  # its input's; values stay on the grid (max pooling, reshape)
    SAME_ROUNDED = "same, rounded"  # its input's; values fall between grid points (average pooling, bilinear resize)
    FIXED = "fixed"  # known from the function's range
    FLOAT = "float"  # no integer kernel anywhere: stays float, listed by name


@dataclass(frozen=True, kw_only=True)
class OpRule:
    """How one kind of operation is quantized."""

    output: Output
    fixed: QuantParams | None = None
    weighted: bool = False  # int8 weights per output channel, int32 bias
    # activation functions its integer kernel computes at its end: what ends on a grid is clamped by the grid's ends
    takes_in: frozenset[str] = frozenset()
    note: str = ""  # why it stays float


_CLAMPS = frozenset({"Relu", "Clip"})
_NO_KERNEL = "no runtime has an integer kernel for it"

RULES: Mapping[str, OpRule] = {
    "Conv": OpRule(output=Output.OWN, weighted=True, takes_in=_CLAMPS),
    "Gemm": OpRule(output=Output.OWN, weighted=True, takes_in=_CLAMPS),
    "Projection": OpRule(output=Output.OWN, weighted=True, takes_in=_CLAMPS),
    "Add": OpRule(output=Output.OWN, takes_in=_CLAMPS),
    "Mul": OpRule(output=Output.OWN, takes_in=_CLAMPS),
    "Sub": OpRule(output=Output.OWN, takes_in=_CLAMPS),
    "Scale": OpRule(output=Output.OWN, takes_in=_CLAMPS),
    "HardSwish": OpRule(output=Output.OWN),
    "LeakyRelu": OpRule(output=Output.OWN),
    "Relu": OpRule(output=Output.OWN),
    "Clip": OpRule(output=Output.OWN),
    "GlobalAveragePool": OpRule(output=Output.OWN, takes_in=_CLAMPS),
    "Concat": OpRule(output=Output.OWN, takes_in=_CLAMPS),
    "MaxPool": OpRule(output=Output.SAME),
    "Reshape": OpRule(output=Output.SAME),
    "Pad": OpRule(output=Output.SAME),
    "ResizeNearest": OpRule(output=Output.SAME),
    "Transpose": OpRule(output=Output.SAME),
    "Slice": OpRule(output=Output.SAME),
    "Gather": OpRule(output=Output.SAME),
    "AveragePool": OpRule(output=Output.SAME_ROUNDED),
    "ResizeLinear": OpRule(output=Output.SAME_ROUNDED),
    "Sigmoid": OpRule(output=Output.FIXED, fixed=QuantParams.of(1 / 256)),
    "HardSigmoid": OpRule(output=Output.FIXED, fixed=GATE),
    "Softmax": OpRule(output=Output.FIXED, fixed=QuantParams.of(1 / 256)),
    "Tanh": OpRule(output=Output.FIXED, fixed=QuantParams.of(1 / 128, 128)),
    "ConvTranspose": OpRule(output=Output.FLOAT, note="ONNX Runtime has no integer ConvTranspose"),
    "BatchNormalization": OpRule(output=Output.FLOAT, note="it could not be folded into the layer before it"),
    "PadFilled": OpRule(output=Output.FLOAT, note="its input's steps need not reach what it fills with"),
    "Div": OpRule(output=Output.FLOAT, note=_NO_KERNEL),
    "MatMul": OpRule(output=Output.FLOAT, note="integer kernels of two computed values are slower"),
    "LayerNormalization": OpRule(output=Output.FLOAT, note=_NO_KERNEL),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), OpRule(output=Output.FLOAT, note="its states add up over all steps")),
    "PRelu": OpRule(output=Output.FLOAT, note="kernels differ between runtimes"),
    "Input": OpRule(output=Output.FLOAT),
    "Outputs": OpRule(output=Output.FLOAT),
    **{
        kind: OpRule(output=Output.FLOAT, note=_NO_KERNEL)
        for kind in ("Elu", "Gelu", "Mish", "Pow", "Softplus", "ReduceMean", "ReduceMax", *FUNCTIONS)
    },
}
