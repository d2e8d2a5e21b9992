"""Layers with weights, and products: what their kernels have to do, counted by hand."""

from __future__ import annotations

from torch import nn

from tests.inspecting.kernels import (
    IN,
    IN_TOKENS,
    LINEAR,
    LINEAR8,
    OUT_TOKENS,
    TOKENS,
    Case,
    Of,
    conv,
    recurrent,
    simple,
)

# ── convolutions ────────────────────────────────────────────────────────────────────────────────────────────────────

CONVOLUTIONS = {
    "3x3": simple(conv(3, 8, 3, padding=1), "Conv r192 m512 x64 n8 k27 w9 l8", 192, 512),
    "dilated": simple(conv(3, 8, 3, dilation=2), "Conv r192 m128 x16 n8 k27 w9 l4", 192, 128),
    "oblong": simple(
        conv(3, 8, (3, 5), stride=(1, 2)), "Conv r240 m144 x18 n8 k45 w15 l6", 240, 144, (3, 8, 10)
    ),  # 6 lines of 3
    "of one channel": simple(conv(1, 4, 3), "Conv r64 m144 x36 n4 k9 w9 l6", 64, 144, (1, 8, 8)),
    "in groups": simple(conv(6, 8, 3, groups=2), "Conv r384 m288 x36 n4 k27 g2 w9 l6", 384, 288, (6, 8, 8)),
    "1x1 in groups": simple(conv(6, 8, 1, groups=2), "Conv r384 m512 x64 n4 k3 g2 l8", 384, 512, (6, 8, 8)),
    "pointwise": simple(conv(3, 6, 1), "Pointwise r192 m384 x64 n6 k3 l8", 192, 384),
    "1x1 that skips pixels": simple(conv(3, 8, 1, stride=2), "Conv r192 m128 x16 n8 k3 l4", 192, 128),
    "1x1 that skips lines": simple(conv(3, 8, 1, stride=(2, 1)), "Conv r192 m256 x32 n8 k3 l4", 192, 256),
    "1x1 that skips columns": simple(conv(3, 8, 1, stride=(1, 2)), "Conv r192 m256 x32 n8 k3 l8", 192, 256),
    "depthwise": simple(conv(6, 6, 3, groups=6), "Depthwise r384 m216 x36 k9 g6 w9 l6", 384, 216, (6, 8, 8)),
    "depthwise in steps": simple(
        conv(6, 6, 3, groups=6, stride=2), "Depthwise r384 m54 x9 k9 g6 w9 l3", 384, 54, (6, 8, 8)
    ),
    "depthwise, two of each": simple(
        conv(6, 12, 3, groups=6), "Depthwise r384 m432 x36 n2 k9 g6 w9 l6", 384, 432, (6, 8, 8)
    ),
    "with steps and pads": Case(
        make=conv(3, 8, 3, stride=2, padding=1),
        fp32="Conv r192 m128 x16 n8 k27 w9 l4",
        int8=f"{IN} | Conv8 r192 m128 x16 n8 k27 w9 l4 | DequantizeEnd8 r128 m128",
        # TFLite pads on one side alone where steps are two: what surrounds the picture is a layer of its own
        differs={
            ("tflite", "fp32"): "Pad r192 m300 | Conv r300 m128 x16 n8 k27 w9 l4",
            ("tflite", "int8"): "Pad8 r192 m300 | Conv8 r300 m128 x16 n8 k27 w9 l4",
        },
    ),
    "transposed": Case(
        make=lambda: nn.Sequential(nn.ConvTranspose2d(6, 4, 2, stride=2), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        shape=(6, 4, 4),
        fp32="ConvTranspose r96 m256 x16 n16 k6 w4 l4 | Relu r256 m256 | Pointwise r256 m128 x64 n2 k4 l8",
        int8="ConvTranspose r96 m256 x16 n16 k6 w4 l4 | Quantize8 r256 m256 | Relu8 r256 m256"
        " | Pointwise8 r256 m128 x64 n2 k4 l8 | DequantizeEnd8 r128 m128",
        # a matrix product for each pixel, whose results are moved beside each other
        differs={
            ("tflite", "fp32"): "Pointwise r96 m256 x16 n16 k6 l4 a1 | Transpose r256 m256"
            " | Pointwise r256 m128 x64 n2 k4 l8",
            ("tflite", "int8"): "Pointwise r96 m256 x16 n16 k6 l4 | Transpose r256 m256 | Quantize8 r256 m256"
            " | Scale8 r256 m256 | Pointwise8 r256 m128 x64 n2 k4 l8",
        },
    ),
    "transposed in groups": Case(
        make=lambda: nn.Sequential(nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), nn.Sigmoid()),
        shape=(6, 4, 4),
        fp32="ConvTranspose r96 m256 x16 n8 k3 g2 w4 l4 | Sigmoid r256 m256",
        int8="ConvTranspose r96 m256 x16 n8 k3 g2 w4 l4 | Sigmoid r256 m256",
        # TFLite has none in groups: weights of other groups are zeros
        differs={
            ("tflite", "fp32"): "Pointwise r96 m256 x16 n16 k6 l4 | Transpose r256 m256 | Sigmoid r256 m256",
            ("tflite", "int8"): "Pointwise r96 m256 x16 n16 k6 l4 | Transpose r256 m256 | Sigmoid r256 m256",
        },
    ),
    "of a series": Case(
        make=lambda: nn.Sequential(nn.Conv1d(3, 8, 3)),
        shape=(3, 16),
        fp32="Conv r48 m112 x14 n8 k9 w3",
        int8="QuantizeEnd8 r48 m48 | Conv8 r48 m112 x14 n8 k9 w3 | DequantizeEnd8 r112 m112",
        differs={
            ("tflite", "fp32"): "Transpose r48 m48 | Conv r48 m112 x14 n8 k9 w3 | Transpose r112 m112",
            ("tflite", "int8"): "Transpose8 r48 m48 | Conv8 r48 m112 x14 n8 k9 w3 | Transpose8 r112 m112",
        },
    ),
    "of a volume": Case(
        make=lambda: nn.Sequential(nn.Conv3d(2, 4, 3)),
        shape=(2, 6, 6, 6),
        fp32="Conv r432 m256 x64 n4 k54 w27 l16",
        int8="QuantizeEnd8 r432 m432 | Conv8 r432 m256 x64 n4 k54 w27 l16 | DequantizeEnd8 r256 m256",
        # of pictures: four slices, three of the volume's in the channels of each
        differs={
            ("tflite", "fp32"): "Transpose r432 m432 | Gather r432 m864 | Transpose r864 m864"
            " | Conv r864 m256 x64 n4 k54 w9 l16 | Transpose r256 m256",
            ("tflite", "int8"): "Transpose8 r432 m432 | Gather8 r432 m864 | Transpose8 r864 m864"
            " | Conv8 r864 m256 x64 n4 k54 w9 l16 | Transpose8 r256 m256",
        },
    ),
}

# ── linear layers, products, recurrent layers ───────────────────────────────────────────────────────────────────────

_BIASED = "Scale r35 m35"  # the bias of tokens is a layer of its own in float TFLite files
LINEARS = {
    "a row": simple(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), "Gemm r192 m5 n5 k192", 192, 5),
    "a row that ends in a ReLU": Case(
        make=lambda: nn.Sequential(nn.Linear(20, 5), nn.ReLU(), nn.Linear(5, 3)),
        shape=(20,),
        fp32="Gemm r20 m5 n5 k20 a1 | Gemm r5 m3 n3 k5",
        int8="QuantizeEnd8 r20 m20 | Gemm8 r20 m5 n5 k20 | Gemm8 r5 m3 n3 k5 | DequantizeEnd8 r3 m3",
    ),
    "tokens": Case(
        make=lambda: nn.Sequential(nn.Linear(16, 5)),
        shape=TOKENS,
        fp32=LINEAR,
        int8=f"{IN_TOKENS} | {LINEAR8} | {OUT_TOKENS}",
        differs={("tflite", "fp32"): f"{LINEAR} | {_BIASED}"},
    ),
    "tokens without a bias": Case(
        make=lambda: nn.Sequential(nn.Linear(16, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False)),
        shape=TOKENS,
        fp32=f"{LINEAR} a1 | Projection r35 m28 x7 n4 k5",
        int8=f"{IN_TOKENS} | {LINEAR8} | Projection8 r35 m28 x7 n4 k5 | DequantizeEnd8 r28 m28",
    ),
    "tokens that end in a ReLU": Case(
        make=lambda: nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 4)),
        shape=TOKENS,
        fp32=f"{LINEAR} a1 | Projection r35 m28 x7 n4 k5",
        int8=f"{IN_TOKENS} | {LINEAR8} | Projection8 r35 m28 x7 n4 k5 | DequantizeEnd8 r28 m28",
        differs={("tflite", "fp32"): f"{LINEAR} | {_BIASED} a1 | Projection r35 m28 x7 n4 k5 | Scale r28 m28"},
    ),
    "one token": Case(
        make=lambda: nn.Sequential(nn.Linear(16, 5)),
        shape=(1, 16),
        fp32="Gemm r16 m5 n5 k16",
        int8="QuantizeEnd8 r16 m16 | Gemm8 r16 m5 n5 k16 | DequantizeEnd8 r5 m5",
        differs={("tflite", "fp32"): "Gemm r16 m5 n5 k16 | Scale r5 m5"},
    ),
    "two computed values": Case(
        make=lambda: Of(
            lambda x, a, b: (a(x) @ b(x).transpose(1, 2)).relu(),
            nn.Linear(16, 5, bias=False),
            nn.Linear(16, 5, bias=False),
        ),
        shape=TOKENS,
        fp32=f"{LINEAR} | {LINEAR} | Transpose r35 m35 | MatMul r70 m49 x7 n7 k5 | Relu r49 m49",
        int8=f"{IN_TOKENS} | {LINEAR8} | {LINEAR8} | Transpose8 r35 m35 | Dequantize8 r35 m35 | Dequantize8 r35 m35"
        " | MatMul r70 m49 x7 n7 k5 | Relu r49 m49",
        # its kernel reads the second matrix either way
        differs={
            ("tflite", "fp32"): f"{LINEAR} | {LINEAR} | MatMul r70 m49 x7 n7 k5 | Relu r49 m49",
            ("tflite", "int8"): f"{LINEAR8} | {LINEAR8} | Dequantize8 r35 m35 | Dequantize8 r35 m35"
            " | MatMul r70 m49 x7 n7 k5 | Relu r49 m49",
        },
    ),
    "an LSTM": Case(
        make=recurrent(nn.LSTM), shape=TOKENS, fp32="LSTM r112 m35 x7 n20 k21", int8="LSTM r112 m35 x7 n20 k21"
    ),
    "an LSTM both ways": Case(
        make=recurrent(nn.LSTM, bidirectional=True),
        shape=TOKENS,
        fp32="LSTM r112 m70 x7 n20 k21 g2",
        int8="LSTM r112 m70 x7 n20 k21 g2",
    ),
    "a GRU": Case(make=recurrent(nn.GRU), shape=TOKENS, fp32="GRU r112 m35 x7 n15 k21", int8="GRU r112 m35 x7 n15 k21"),
    "an RNN": Case(make=recurrent(nn.RNN), shape=TOKENS, fp32="RNN r112 m35 x7 n5 k21", int8="RNN r112 m35 x7 n5 k21"),
    "the last state of an LSTM": Case(
        make=lambda: Of(
            lambda x, layer, last: last(layer(x)[0][:, -1]), nn.LSTM(16, 5, batch_first=True), nn.Linear(5, 2)
        ),
        shape=TOKENS,
        fp32="LSTM r112 m35 x7 n20 k21 | Slice r35 m5 | Gemm r5 m2 n2 k5",
        int8="LSTM r112 m35 x7 n20 k21 | Quantize8 r35 m35 | Slice8 r35 m5 | Gemm8 r5 m2 n2 k5 | DequantizeEnd8 r2 m2",
    ),
}
