"""Pools, joins, sums, norms and functions: what their kernels have to do, counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from tests.inspecting.kernels import (
    IN,
    IN_TOKENS,
    LINEAR,
    LINEAR8,
    OUT,
    OUT_TOKENS,
    SIX,
    SIX8,
    TOKENS,
    Case,
    Of,
    behind,
    of,
    read_twice,
    six,
    squared,
)

# ── pools, means, joins, sums ───────────────────────────────────────────────────────────────────────────────────────

# TFLite has no norm: mean, what is above it, squared, its mean, a small number, 1 / root, a product, factor, offset
_NORM_OF_TOKENS = (
    "GlobalAveragePool r35 m7 g7 | Broadcast r42 m35 x7 | Mul r70 m35 | GlobalAveragePool r35 m7 g7"
    " | Scale r7 m7 | Rsqrt r7 m7 | Broadcast r42 m35 x7 | Scale r35 m35 | Scale r35 m35"
)
_NORM_OF_ALL = (
    "GlobalAveragePool r384 m1 | Broadcast r385 m384 | Mul r768 m384 | GlobalAveragePool r384 m1"
    " | Scale r1 m1 | Rsqrt r1 m1 | Broadcast r385 m384 | Scale r384 m384"
)
_PADDED = "PadFilled r384 m600 | MaxPool r600 m96 g6 w9 l4"  # 6 channels of 10 x 10
OTHERS = {
    "a largest value": behind(
        lambda: six(nn.MaxPool2d(2)), "MaxPool r384 m96 g6 w4 l4", "MaxPool8 r384 m96 g6 w4 l4", 96
    ),
    "a largest value around each pixel": behind(
        lambda: six(nn.MaxPool2d(3, 1, 1)), "MaxPool r384 m384 g6 w9 l8", "MaxPool8 r384 m384 g6 w9 l8"
    ),
    "a largest value of windows that overlap": behind(
        lambda: six(nn.MaxPool2d(3, 2, 1)),
        "MaxPool r384 m96 g6 w9 l4",
        "MaxPool8 r384 m96 g6 w9 l4",
        96,
        tflite_fp32=_PADDED,
        tflite_int8=_PADDED.replace(" r", "8 r"),
    ),
    "a mean of windows": behind(
        lambda: six(nn.AvgPool2d((2, 4))),
        "AveragePool r384 m48 g6 w8 l4",
        "Depthwise8 r384 m48 x8 k8 g6 w8 l4",  # a sum with one and the same factor
        48,
    ),
    "a mean of all pixels": behind(
        lambda: six(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)),
        "GlobalAveragePool r384 m6 g6 | Gemm r6 m2 n2 k6",
        "GlobalAveragePool8 r384 m6 g6 | Gemm8 r6 m2 n2 k6",
        2,
    ),
    "channels beside each other": Case(
        make=lambda: Of(lambda x, a: torch.cat([a(x), x], 1), nn.Conv2d(3, 6, 1)),
        fp32=f"{SIX} | Concat r576 m576",
        int8=f"{IN} | {SIX8} | Concat8 r576 m576 | DequantizeEnd8 r576 m576",
        differs={("tflite", "int8"): f"{SIX8} | Scale8 r384 m384 | Concat8 r576 m576"},  # all on one grid
    ),
    "a sum": Case(
        make=of(lambda x, a, b: a(x) + b(x), twice=True),
        fp32=f"{SIX} | {SIX} | Add r768 m384",
        int8=f"{IN} | {SIX8} | {SIX8} | Add8 r768 m384 | {OUT}",
    ),
    "a sum that ends in a ReLU": Case(
        make=of(lambda x, a, b: (a(x) + b(x)).relu(), twice=True),
        fp32=f"{SIX} | {SIX} | Add r768 m384 a1",
        int8=f"{IN} | {SIX8} | {SIX8} | Add8 r768 m384 | {OUT}",
    ),
    "a sum with one value per channel": Case(
        make=of(lambda x, a, b: a(x) + b(x).mean((2, 3), keepdim=True), twice=True),
        fp32=f"{SIX} | {SIX} | GlobalAveragePool r384 m6 g6 | Broadcast r390 m384 x6",
        int8=f"{IN} | {SIX8} | {SIX8} | GlobalAveragePool8 r384 m6 g6 | Broadcast8 r390 m384 x6 | {OUT}",
    ),
    "a product with itself": behind(
        lambda: Of(squared, nn.Conv2d(3, 6, 1)),
        "Mul r768 m384",
        "Mul8 r768 m384",
    ),
    "a sum with a constant that ends in a ReLU": behind(
        lambda: Of(
            lambda x, a: (nn.functional.max_pool2d(a(x), 2) + torch.arange(6.0).view(1, 6, 1, 1)).relu(),
            nn.Conv2d(3, 6, 1),
        ),
        "MaxPool r384 m96 g6 w4 l4 | Scale r96 m96 | Relu r96 m96",
        "MaxPool8 r384 m96 g6 w4 l4 | Scale8 r96 m96",
        96,
        tflite_fp32="MaxPool r384 m96 g6 w4 l4 | Scale r96 m96 a1",
    ),
    "twice as large": behind(
        lambda: six(nn.Upsample(scale_factor=2)), "ResizeNearest r384 m1536", "ResizeNearest8 r384 m1536", 1536
    ),
    "twice as large, with means between": behind(
        lambda: six(nn.Upsample(scale_factor=2, mode="bilinear")),
        "ResizeLinear r384 m1536",
        "ResizeLinear8 r384 m1536",
        1536,
    ),
    "zeros around": behind(lambda: six(nn.ZeroPad2d(1)), "Pad r384 m600", "Pad8 r384 m600", 600),
    "halves around": Case(
        make=lambda: six(nn.ConstantPad2d(1, 0.5)),
        fp32=f"{SIX} | PadFilled r384 m600",
        int8=f"{IN} | {SIX8} | Dequantize8 r384 m384 | PadFilled r384 m600",
    ),
    "some of the channels": behind(of(lambda x, a: a(x)[:, :3]), "Slice r384 m192", "Slice8 r384 m192", 192),
    "channels in another order": behind(
        of(lambda x, a: a(x)[:, torch.tensor([0, 2, 1])]), "Gather r384 m192", "Gather8 r384 m192", 192
    ),
    # ── functions of each element, and of rows ──
    "softmax of tokens": Case(
        make=lambda: nn.Sequential(nn.Linear(16, 5, bias=False), nn.Softmax(-1)),
        shape=TOKENS,
        fp32=f"{LINEAR} | Softmax r35 m35 x7",
        int8=f"{IN_TOKENS} | {LINEAR8} | Softmax8 r35 m35 x7 | {OUT_TOKENS}",
    ),
    "softmax of the channels of each pixel": behind(
        lambda: six(nn.Softmax(1)), "Softmax r384 m384 x64", "Softmax8 r384 m384 x64"
    ),
    "a norm of tokens": Case(
        make=lambda: nn.Sequential(nn.Linear(16, 5, bias=False), nn.LayerNorm(5)),
        shape=TOKENS,
        fp32=f"{LINEAR} | LayerNormalization r35 m35 x7",
        int8=f"{IN_TOKENS} | {LINEAR8} | Dequantize8 r35 m35 | LayerNormalization r35 m35 x7",
        differs={
            ("tflite", "fp32"): f"{LINEAR} | {_NORM_OF_TOKENS}",
            ("tflite", "int8"): f"{LINEAR8} | Dequantize8 r35 m35 | {_NORM_OF_TOKENS}",
        },
    ),
    "a norm of all values": Case(
        make=lambda: six(nn.LayerNorm((6, 8, 8), elementwise_affine=False)),
        fp32=f"{SIX} | LayerNormalization r384 m384",
        int8=f"{IN} | {SIX8} | Dequantize8 r384 m384 | LayerNormalization r384 m384",
        differs={
            ("tflite", "fp32"): f"{SIX} | {_NORM_OF_ALL}",
            ("tflite", "int8"): f"{SIX8} | Dequantize8 r384 m384 | {_NORM_OF_ALL}",
        },
    ),
    "a ReLU": Case(make=lambda: six(nn.ReLU()), fp32=f"{SIX} a1", int8=f"{IN} | {SIX8} | {OUT}"),
    "a clip": Case(make=lambda: six(nn.ReLU6()), fp32=f"{SIX} a1", int8=f"{IN} | {SIX8} | {OUT}"),
    "a ReLU of what others read, too": behind(
        lambda: Of(read_twice, nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)),
        "Relu r384 m384 | Pointwise r384 m384 x64 n6 k6 l8 | Add r768 m384",
        "Relu8 r384 m384 | Pointwise8 r384 m384 x64 n6 k6 l8 | Add8 r768 m384",
        tflite_int8="Scale8 r384 m384 | Pointwise8 r384 m384 x64 n6 k6 l8 | Add8 r768 m384",
    ),
    "a ReLU of the input": Case(
        make=lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(3, 6, 1)),
        fp32=f"Relu r192 m192 | {SIX}",
        int8=f"{IN} | Relu8 r192 m192 | {SIX8} | {OUT}",
        differs={("tflite", "int8"): f"Scale8 r192 m192 | {SIX8}"},
    ),
    "hard-swish": behind(
        lambda: six(nn.Hardswish()),
        "HardSwish r384 m384",
        "HardSigmoid8 r384 m384 | Mul8 r768 m384",
        # a sum with a constant that is clamped, and in TFLite files read with another scale
        onnx_int8="Scale8 r384 m384 | Mul8 r768 m384",
        tflite_int8="Scale8 r384 m384 | Scale8 r384 m384 | Mul8 r768 m384",
    ),
    "LeakyReLU": behind(lambda: six(nn.LeakyReLU(0.1)), "LeakyRelu r384 m384", "LeakyRelu8 r384 m384"),
    "PReLU": Case(
        make=lambda: six(nn.PReLU()),
        fp32=f"{SIX} | PRelu r384 m384",
        int8=f"{IN} | {SIX8} | Dequantize8 r384 m384 | PRelu r384 m384",
    ),
    "sigmoid": behind(lambda: six(nn.Sigmoid()), "Sigmoid r384 m384", "Sigmoid8 r384 m384"),
    "swish": behind(lambda: six(nn.SiLU()), "Sigmoid r384 m384 | Mul r768 m384", "Sigmoid8 r384 m384 | Mul8 r768 m384"),
    "tanh": behind(
        lambda: six(nn.Tanh()),
        "Tanh r384 m384",
        "Tanh8 r384 m384",
        onnx_int8="Dequantize8 r384 m384 | Tanh r384 m384 | Quantize8 r384 m384",  # ONNX Runtime has no integer kernel
    ),
    "exp": Case(
        make=of(lambda x, a: a(x).exp()),
        fp32=f"{SIX} | Exp r384 m384",
        int8=f"{IN} | {SIX8} | Dequantize8 r384 m384 | Exp r384 m384",
    ),
    "arithmetic beside float functions": Case(
        make=of(lambda x, a, b: (a(x) + b(x)).exp(), twice=True),
        fp32=f"{SIX} | {SIX} | Add r768 m384 | Exp r384 m384",
        int8=f"{IN} | {SIX8} | {SIX8} | Add8 r768 m384 | Dequantize8 r384 m384 | Exp r384 m384",
    ),
}
