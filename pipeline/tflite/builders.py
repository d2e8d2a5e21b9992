"""The table: which function writes which ONNX operation."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.tflite import opcodes, ops_conv, ops_deconv, ops_dense, ops_pointwise, ops_pool, ops_resize, ops_shape
from pipeline.tflite.ops_pointwise import Builder

BUILDERS: Mapping[str, Builder] = {
    "Add": ops_pointwise.binary(opcodes.ADD, "Add"),
    "AveragePool": ops_pool.average_pool,
    "BatchNormalization": ops_pointwise.batch_normalization,
    "Clip": ops_pointwise.clip,
    "Concat": ops_shape.concat,
    "Conv": ops_conv.conv,
    "ConvTranspose": ops_deconv.conv_transpose,
    "Div": ops_pointwise.binary(opcodes.DIV, "Div", has_int8=False),
    "Flatten": ops_shape.reshape,
    "Gemm": ops_dense.gemm,
    "GlobalAveragePool": ops_pool.global_average_pool,
    "GlobalMaxPool": ops_pool.global_max_pool,
    "HardSigmoid": ops_pointwise.hard_sigmoid,
    "HardSwish": ops_pointwise.hard_swish,
    "LeakyRelu": ops_pointwise.leaky_relu,
    "MatMul": ops_dense.matmul,
    "MaxPool": ops_pool.max_pool,
    "Mul": ops_pointwise.binary(opcodes.MUL, "Mul"),
    "PRelu": ops_pointwise.prelu,
    "Pad": ops_shape.pad_constant,
    "QuantizeLinear": ops_shape.quantize,
    "ReduceMean": ops_pool.reduce_mean,
    "Relu": ops_pointwise.clip,
    "Reshape": ops_shape.reshape,
    "Resize": ops_resize.resize,
    "Sigmoid": ops_pointwise.sigmoid,
    "Softmax": ops_pointwise.softmax,
    "Squeeze": ops_shape.reshape,
    "Sub": ops_pointwise.binary(opcodes.SUB, "Sub"),
    "Tanh": ops_pointwise.tanh,
    "Transpose": ops_shape.transpose,
    "Unsqueeze": ops_shape.reshape,
}
