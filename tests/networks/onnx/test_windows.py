"""Convolutions, pools, pads and resizes: pads in every form, windows that hang over, options that are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.networks.from_onnx import network_from
from tests.networks.onnx.compared import MAP, W3, Case, case, each_opset, ints, kinds
from tests.networks.onnx.written import node, random

F32 = np.float32
ROW = (1, 4, 8)  # N, C, L
LARGE = (1, 32, 16, 16)  # too many elements for a matrix between all of them
ODD = (1, 4, 5, 7)  # a window more or less than in an even map
PADS: dict[str, Any] = {"pads": [1, 1, 1, 1]}
UNEVEN: dict[str, Any] = {"pads": [0, 1, 1, 2]}

POOLS: dict[str, Case] = {
    **{
        f"mean, {padded}{', counted' * counted}{', hanging over' * ceil}": case(
            "AveragePool", opsets=(11, 22), shape=ODD if padded == "even" else MAP, kernel_shape=[2, 3],
            strides=[3, 2], count_include_pad=counted, ceil_mode=ceil, **(PADS if padded == "even" else UNEVEN),
        )
        for counted in (0, 1)
        for ceil in (0, 1)
        for padded in ("even", "uneven")
    },
    **{
        f"mean, {mode}{', counted' * counted}": case(
            "AveragePool", opsets=(7, 13), shape=ODD, kernel_shape=[2, 3], strides=[2, 2], auto_pad=mode,
            count_include_pad=counted,
        )
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for counted in (0, 1)
    },
    "maximum, hanging over": case(
        "MaxPool", opsets=(11, 22), shape=ODD, kernel_shape=[2, 3], strides=[3, 2], ceil_mode=1, **PADS
    ),
    "maximum, uneven and dilated": case(
        "MaxPool", opsets=(11,), kernel_shape=[3, 3], strides=[2, 2], dilations=[1, 2], **UNEVEN
    ),
    "maximum, uneven, hanging over": case(
        "MaxPool", opsets=(11,), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, **UNEVEN
    ),
    "maximum, uneven, a window in pads alone": case(
        "MaxPool", opsets=(11, 22), kernel_shape=[2, 3], strides=[3, 2], ceil_mode=1, **UNEVEN
    ),
    "maximum of a row": case("MaxPool", shape=ROW, kernel_shape=[3], strides=[2], auto_pad="SAME_LOWER"),
}  # fmt: skip

PADDED: dict[str, Case] = {
    **{
        f"{mode}, of old": case("Pad", opsets=(7,), mode=mode, pads=[0, 0, 2, 1, 0, 0, 0, 3])
        for mode in ("reflect", "edge")
    },
    **{
        f"{mode}{', cut' * cut}": case(
            "Pad", "x p", {"p": ints(0, 0, -2 if cut else 2, 1, 0, 0, 1, 3)},
            opsets=(19,) if mode == "wrap" else (11, 13), mode=mode,
        )
        for mode in ("reflect", "edge", "wrap")
        for cut in (0, 1)
    },
    "reflect, again and again": case("Pad", "x p", {"p": ints(0, 0, 0, 7, 0, 0, 0, 7)}, mode="reflect"),
    "of some axes": case("Pad", "x p v a", {"p": ints(1, 2), "v": F32(3), "a": ints(-1)}, opsets=(18,)),
    "cut": case("Pad", "x p", {"p": ints(0, -1, 0, 1, 0, 0, -2, 0)}),
    "none": case("Pad", "x p", {"p": ints(*[0] * 8)}),
    "of the first axis": case("Pad", "x p", {"p": ints(1, 0, 0, 0, 0, 0, 0, 0)}),
}  # fmt: skip

CONVOLUTIONS: dict[str, Case] = {
    "valid": case("Conv", "x w", {"w": W3}, auto_pad="VALID", strides=[2, 2]),
    "grouped": case("Conv", "x w", {"w": random(6, 2, 3, 3)}, group=2, opsets=(7, 22)),
    "transposed, same": case("ConvTranspose", "x w", {"w": random(4, 5, 3, 3)}, auto_pad="SAME_UPPER", strides=[2, 2]),
    "transposed, same from the start": case(
        "ConvTranspose", "x w", {"w": random(4, 5, 3, 3)}, auto_pad="SAME_LOWER", strides=[2, 2]
    ),
    "transposed, everything": case(
        "ConvTranspose", "x w b", {"w": random(4, 3, 3, 2), "b": random(6)}, group=2, strides=[3, 2],
        dilations=[2, 1], pads=[0, 1, 2, 1],
    ),
    "transposed, more at the end": case(
        "ConvTranspose", "x w", {"w": random(4, 5, 3, 3)}, strides=[2, 3], output_padding=[1, 2], pads=[1, 0, 0, 1]
    ),
    "transposed, its size said": case(
        "ConvTranspose", "x w", {"w": random(4, 5, 3, 3)}, strides=[2, 2], output_shape=[11, 15], auto_pad="SAME_UPPER"
    ),
}  # fmt: skip

PLACES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
RESIZED: dict[str, Case] = {
    **{
        f"{mode}, {places}": case(
            "Resize", "x r s", {"r": np.array([0] * 4 + [1] * 4, F32), "s": np.array([1, 1, 2, 0.5], F32)},
            opsets=(11, 13, 19), mode=mode, coordinate_transformation_mode=places,
        )
        for mode in ("nearest", "linear", "cubic")
        for places in PLACES
    },
    "symmetric": case(
        "Resize", "x - s", {"s": np.array([1, 1, 1.3, 2], F32)}, opsets=(19,), mode="linear",
        coordinate_transformation_mode="half_pixel_symmetric",
    ),
    "of old": case("Resize", "x s", {"s": np.array([1, 1, 2, 0.5], F32)}, opsets=(10,)),
    "some axes": case("Resize", "x - - s", {"s": ints(4, 9)}, opsets=(18,), axes=[3, 2], mode="linear"),
    "without aliases": case("Resize", "x - - s", {"s": ints(1, 4, 3, 4)}, opsets=(18,), antialias=1, mode="linear"),
    "a part of it": case(
        "Resize", "x r s", {"r": np.array([0, 0, 0.2, 0.1, 1, 1, 0.7, 0.9], F32), "s": np.array([1, 1, 2, 2], F32)},
        coordinate_transformation_mode="tf_crop_and_resize", mode="linear",
    ),
    "in its proportions": case(
        "Resize", "x - - s", {"s": ints(4, 9)}, opsets=(18,), keep_aspect_ratio_policy="not_larger", axes=[2, 3]
    ),
    "channels": case("Resize", "x - s", {"s": np.array([1, 2, 1, 1], F32)}, mode="linear"),
    "nothing": case("Resize", "x - s", {"s": np.array([1, 1, 1, 1], F32)}),
    "cubic, its own": case(
        "Resize", "x - s", {"s": np.array([1, 1, 1.5, 1], F32)}, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5
    ),
    **{
        f"nearest, {rounding}": case("Resize", "x - s", {"s": np.array([1, 1, 1.5, 2], F32)}, nearest_mode=rounding)
        for rounding in ("floor", "ceil", "round_prefer_ceil")
    },
}  # fmt: skip

REFUSED: dict[str, tuple[Case, str]] = {
    "gaps": (
        case("AveragePool", shape=LARGE, kernel_shape=[3, 3], dilations=[2, 2], opsets=(19,)),
        r"node 'the_y' \(AveragePool\) averages over windows with gaps",
    ),
    "places": (
        Case(
            nodes=[
                node("MaxPool", "x", "a i", kernel_shape=[2, 2]), node("Cast", "i", "b", to=1), node("Mul", "a b", "y"),
            ],
            constants={},
        ),
        r"node 'the_a' \(MaxPool\) has a second output that is used",
    ),
    "computed weights": (
        Case(nodes=[node("Relu", "x", "w"), node("Conv", "x w", "y")], constants={}),
        r"node 'the_y' \(Conv\) has a computed input 2 where only a constant can be taken",
    ),
    "hanging over uneven pads": (
        case("AveragePool", shape=LARGE, kernel_shape=[3, 3], ceil_mode=1, pads=[0, 0, 2, 2]),
        "averages over windows that hang over uneven pads",
    ),
    "crop": (
        case(
            "Resize", "x r s", {"r": np.array([0] * 4 + [1] * 4, F32), "s": np.array([1, 1, 2, 2], F32)},
            shape=LARGE, mode="cubic", coordinate_transformation_mode="tf_crop_and_resize",
        ),
        "crops before it resizes",
    ),
    "aspect": (
        case(
            "Resize", "x - - s", {"s": ints(4, 9)}, opsets=(18,), shape=LARGE, axes=[2, 3],
            keep_aspect_ratio_policy="not_larger",
        ),
        "keeps the aspect ratio",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "opset"), each_opset(POOLS))
def test_pools(name: str, opset: int, tmp_path: Path) -> None:
    kinds(POOLS[name].at(opset, tmp_path))


@pytest.mark.parametrize(("name", "opset"), each_opset(PADDED))
def test_pads(name: str, opset: int, tmp_path: Path) -> None:
    kinds(PADDED[name].at(opset, tmp_path))


@pytest.mark.parametrize(("name", "opset"), each_opset(CONVOLUTIONS))
def test_convolutions(name: str, opset: int, tmp_path: Path) -> None:
    kinds(CONVOLUTIONS[name].at(opset, tmp_path))


@pytest.mark.parametrize(("name", "opset"), each_opset(RESIZED))
def test_resizes(name: str, opset: int, tmp_path: Path) -> None:
    kinds(RESIZED[name].at(opset, tmp_path))


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_node(name: str, tmp_path: Path) -> None:
    refused, words = REFUSED[name]
    with pytest.raises(UnsupportedOpError, match=words):
        network_from(refused.at(refused.opsets[0], tmp_path))
