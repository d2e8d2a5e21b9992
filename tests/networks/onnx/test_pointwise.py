"""Functions of each element and arithmetic: what is left out, and meanings that changed with the opset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.networks.from_onnx import network_from
from tests.networks.onnx.compared import Case, case, each_opset, kinds
from tests.networks.onnx.written import node, random

F32 = np.float32
NEWEST = 22
PLAIN = (
    *("Abs", "Celu", "Cos", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish"),
    *("Neg", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Tanh"),
)

FUNCTIONS: dict[str, Case] = {
    **{
        op: case(op, opsets=(NEWEST,))
        for op in PLAIN
    },
    **{
        f"{op} above 0": Case(nodes=[node("Exp", "x", "p"), node(op, "p", "y")], constants={}, opsets=(7, NEWEST))
        for op in ("Log", "Sqrt", "Reciprocal")
    },
    "Sinh": case("Sinh", opsets=(9, NEWEST)),
    "Cosh": case("Cosh", opsets=(9, NEWEST)),
    "Elu with alpha": case("Elu", alpha=0.3, opsets=(7, NEWEST)),
    "Celu with alpha": case("Celu", alpha=2.0),
    "Selu with both": case("Selu", alpha=0.5, gamma=2.0),
    "LeakyRelu with alpha": case("LeakyRelu", alpha=0.3, opsets=(7,)),
    "Shrink without a jump": case("Shrink", bias=0.5, lambd=0.5),
    "HardSigmoid as torch has it": case("HardSigmoid", alpha=1 / 6),
    "Gelu by tanh": case("Gelu", approximate="tanh", opsets=(20,)),
    "Swish with alpha": case("Swish", alpha=0.5, opsets=(24,)),
    "Softmax": case("Softmax", opsets=(7, 11, 13, NEWEST)),
    "Softmax from the end": case("Softmax", axis=-2, opsets=(11, 13)),
    "Softmax of the first axis": case("Softmax", axis=0, opsets=(7, 11, 13)),
    "LogSoftmax": case("LogSoftmax", axis=2, opsets=(7, 11, 13)),
    "Clip of no side": case("Clip", opsets=(7, 11, 13)),
    "Clip of one side": case("Clip", "x low", {"low": F32(0)}, opsets=(11, 13)),
    "Clip whose bounds cross": case("Clip", "x low high", {"low": F32(1), "high": F32(-1)}),
    "Clip to infinity": case("Clip", "x low high", {"low": F32(-np.inf), "high": F32(0.3)}),
    "Clip by a list of one": case("Clip", "x low", {"low": np.array([-0.5], F32)}),
    "Dropout of old": case("Dropout", ratio=0.4, opsets=(7,)),
    "Cast to float": case("Cast", to=1),
    "CastLike": case("CastLike", "x like", {"like": F32(1)}, opsets=(15,)),
}  # fmt: skip

ARITHMETIC: dict[str, Case] = {
    "Pow of whole type": case("Pow", "x e", {"e": np.int64(2)}),
    "Max of three": case("Max", "x a b", {"a": random(8), "b": F32(0.1)}, opsets=(8, 13)),
    "Max of one": case("Max"),
    "Min of computed": Case(
        nodes=[node("Relu", "x", "r"), node("Min", "r x c", "y")], constants={"c": random(4, 1, 1)}
    ),
    "Mean of three": Case(nodes=[node("Relu", "x", "r"), node("Mean", "r x c", "y")], constants={"c": random(4, 1, 1)}),
    "Sum of one": case("Sum"),
    "Sum of three": Case(nodes=[node("Relu", "x", "r"), node("Sum", "c r x", "y")], constants={"c": random(8)}),
    "Where the constant is no": case("Where", "m x c", {"m": random(6, 8) > 0, "c": F32(-3)}),
    "Where the constant is yes": case("Where", "m c x", {"m": random(8) > 0, "c": F32(3)}),
    "Where hidden before a softmax": Case(
        nodes=[node("Where", "m x c", "h"), node("Softmax", "h", "y", axis=-1)],
        constants={"m": np.tri(6, 8) > 0, "c": F32(-np.inf)},
    ),
    "Sub from a constant": case("Sub", "c x", {"c": random(4, 1, 1)}, opsets=(7, 13)),
    "Div of a constant": Case(nodes=[node("Exp", "x", "p"), node("Div", "c p", "y")], constants={"c": random(8)}),
    "Add of more axes": case("Add", "x c", {"c": random(2, 1, 4, 6, 8)}),
    "Add of a batch of constants": case("Add", "x c", {"c": random(3, 4, 6, 8)}),
    "PRelu for each element": case("PRelu", "x s", {"s": random(4, 6, 8)}, opsets=(7, 13)),
    "PRelu for each column": case("PRelu", "x s", {"s": random(8)}),
    "PRelu for all": case("PRelu", "x s", {"s": random(1)}),
}  # fmt: skip

REFUSED: dict[str, tuple[Case, str]] = {
    "jump": (case("Shrink"), r"node 'the_y' \(Shrink\) jumps at its threshold"),
    "threshold": (case("ThresholdedRelu", alpha=0.3), r"node 'the_y' \(ThresholdedRelu\) is not supported"),
    "computed power": (
        Case(nodes=[node("Relu", "x", "r"), node("Pow", "r x", "y")], constants={}), "raises to a computed power",
    ),
    "power of a constant": (case("Pow", "c x", {"c": F32(2)}), "raises a constant to a computed power"),
    "nine powers": (case("Pow", "x e", {"e": np.arange(48, dtype=F32).reshape(6, 8) % 9}), "too many different exp"),
    "powers below zero": (case("Pow", "x e", {"e": np.array([-1, 2] * 4, F32)}), "has negative exponents among others"),
    "whole numbers": (
        Case(nodes=[node("Cast", "x", "i", to=7), node("Cast", "i", "y", to=1)], constants={}),
        "makes whole numbers of computed ones",
    ),
    "mask": (
        Case(nodes=[node("Dropout", "x", "a m"), node("Cast", "m", "n", to=1), node("Mul", "a n", "y")], constants={}),
        r"node 'the_a' \(Dropout\) has a mask that is used",
    ),
    "computed choice": (
        Case(nodes=[node("Greater", "x c", "m"), node("Where", "m x c", "y")], constants={"c": F32(0)}),
        r"node 'the_m' \(Greater\) is not supported",
    ),
    "slopes that are computed": (
        Case(nodes=[node("Relu", "x", "r"), node("PRelu", "x r", "y")], constants={}),
        "has a computed input 2 where only a constant can be taken",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "opset"), each_opset(FUNCTIONS))
def test_functions(name: str, opset: int, tmp_path: Path) -> None:
    kinds(FUNCTIONS[name].at(opset, tmp_path))


@pytest.mark.parametrize(("name", "opset"), each_opset(ARITHMETIC))
def test_arithmetic(name: str, opset: int, tmp_path: Path) -> None:
    kinds(ARITHMETIC[name].at(opset, tmp_path))


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_node(name: str, tmp_path: Path) -> None:
    refused, words = REFUSED[name]
    with pytest.raises(UnsupportedOpError, match=words):
        network_from(refused.at(13, tmp_path))
