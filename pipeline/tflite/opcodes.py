"""TFLite operators and the version of each that is written: the lowest with the kernel, so that old runtimes load it.

Versions are those of ``tensorflow/lite/tools/versioning/op_version.cc``.  A runtime only looks up whether it knows the
operator up to this version; the options written beside it are honoured by every runtime since tflite-runtime 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

_B = schema.BuiltinOperator


@dataclass(frozen=True)
class Opcode:
    """A builtin operator and its versions for float32 and for int8 outputs."""

    code: int
    float_version: int = 1
    int8_version: int = 2


ABS = Opcode(_B.ABS, int8_version=1)
ADD = Opcode(_B.ADD)
AVERAGE_POOL_2D = Opcode(_B.AVERAGE_POOL_2D)
BATCH_MATMUL = Opcode(_B.BATCH_MATMUL)
CONCATENATION = Opcode(_B.CONCATENATION)
CONV_2D = Opcode(_B.CONV_2D, int8_version=3)
GROUPED_CONV_2D = Opcode(_B.CONV_2D, float_version=6, int8_version=6)
COS = Opcode(_B.COS, int8_version=1)
DEPTHWISE_CONV_2D = Opcode(_B.DEPTHWISE_CONV_2D, float_version=2, int8_version=3)  # 2: dilation
DEPTH_TO_SPACE = Opcode(_B.DEPTH_TO_SPACE, int8_version=1)
DEQUANTIZE = Opcode(_B.DEQUANTIZE, float_version=2)
DIV = Opcode(_B.DIV)
ELU = Opcode(_B.ELU, int8_version=1)
EXP = Opcode(_B.EXP, int8_version=1)
FLOOR = Opcode(_B.FLOOR, int8_version=1)
FULLY_CONNECTED = Opcode(_B.FULLY_CONNECTED, int8_version=4)
FULLY_CONNECTED_ND = Opcode(_B.FULLY_CONNECTED, float_version=5, int8_version=5)  # 5: keepNumDims
GATHER = Opcode(_B.GATHER)
GELU = Opcode(_B.GELU, int8_version=1)
HARD_SWISH = Opcode(_B.HARD_SWISH, int8_version=1)
LEAKY_RELU = Opcode(_B.LEAKY_RELU)
LOG = Opcode(_B.LOG, int8_version=1)
LOGISTIC = Opcode(_B.LOGISTIC)
MAXIMUM = Opcode(_B.MAXIMUM)
MAX_POOL_2D = Opcode(_B.MAX_POOL_2D)
MEAN = Opcode(_B.MEAN)
MINIMUM = Opcode(_B.MINIMUM)
MUL = Opcode(_B.MUL)
PAD = Opcode(_B.PAD)
PADV2 = Opcode(_B.PADV2)
POW = Opcode(_B.POW, int8_version=1)
PRELU = Opcode(_B.PRELU, int8_version=1)
QUANTIZE = Opcode(_B.QUANTIZE, int8_version=1)
REDUCE_MAX = Opcode(_B.REDUCE_MAX)
RELU = Opcode(_B.RELU)
RELU6 = Opcode(_B.RELU6)
RESHAPE = Opcode(_B.RESHAPE, int8_version=1)
RESIZE_BILINEAR = Opcode(_B.RESIZE_BILINEAR, float_version=3, int8_version=3)  # 3: half_pixel_centers
RESIZE_NEAREST_NEIGHBOR = Opcode(_B.RESIZE_NEAREST_NEIGHBOR, float_version=3, int8_version=3)
ROUND = Opcode(_B.ROUND, int8_version=1)
RSQRT = Opcode(_B.RSQRT, int8_version=1)
SIN = Opcode(_B.SIN, int8_version=1)
SLICE = Opcode(_B.SLICE)
SOFTMAX = Opcode(_B.SOFTMAX)
SQRT = Opcode(_B.SQRT, int8_version=1)
STRIDED_SLICE = Opcode(_B.STRIDED_SLICE)
SUB = Opcode(_B.SUB)
TANH = Opcode(_B.TANH)
TRANSPOSE = Opcode(_B.TRANSPOSE)
