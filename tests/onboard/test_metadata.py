"""What a file says about itself: written and read back, and refused where it is damaged or forged."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from pipeline.onboard.about import KEY, PICTURE, SCORES, About, Column, Input, Output, Raw, Stored, from_text, to_text
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.frontend import StepCall
from pipeline.onboard.metadata import about_file, text_in
from pipeline.tflite import write_tflite

STORED = Stored(name="input", layout="NHWC", dtype="int8", shape=(4, 4, 3), scale=0.5, zero_point=-3)
ABOUT = About(
    recipe="mine",
    task="classification",
    karui="1.0",
    data="set",
    data_sha256="0" * 64,
    labels=("Ähre", "b\nc"),
    inputs=(
        Input(
            name="input",
            axes="CHW",
            shape=(3, 4, 4),
            raw=Raw(PICTURE, "uint8", (3, 4, 4), colours="RGB", columns=(Column("a", ("x", "y")),)),
            steps=(StepCall("normalize", {"divide": 255.0, "mean": [0.1], "std": [2.0]}),),
            stored=STORED,
        ),
    ),
    outputs=(Output(name="output", axes="K", shape=(2,), holds=SCORES, times=1.0, stored=STORED),),
)


def model(text: str) -> onnx.ModelProto:
    """Return a network of one ReLU that carries a text."""
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    helper.set_model_props(made, {"other": "text", KEY: text})
    return made


def onnx_file(text: str) -> bytes:
    """Return the same as an ONNX file."""
    return bytes(model(text).SerializeToString())


def tflite_file(text: str) -> bytes:
    """Return the same as a TFLite file."""
    return write_tflite(model(text))


FILES = {"a.onnx": onnx_file, "a.tflite": tflite_file}


def test_it_comes_back_as_it_went() -> None:
    assert from_text(to_text(ABOUT), "") == ABOUT
    assert to_text(ABOUT).isascii()


@pytest.mark.parametrize("name", FILES)
def test_it_is_found_in_a_file(name: str, tmp_path: Path) -> None:
    content = FILES[name](to_text(ABOUT))
    (tmp_path / name).write_bytes(content)
    assert about_file(tmp_path / name) == ABOUT
    assert text_in(content, "", "other") == "text"
    assert text_in(content, "", "nothing") is None


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_refused_or_read_but_never_break(name: str) -> None:
    content, draws = FILES[name](to_text(ABOUT)), np.random.default_rng(0)
    for _ in range(3000):
        changed = bytearray(content[: draws.integers(1, len(content))] if draws.random() < 0.3 else content)
        for place in draws.integers(0, len(changed), draws.integers(1, 8)):
            changed[place] = draws.choice([0, 1, 127, 128, 255, int(draws.integers(256))])
        with contextlib.suppress(FileRefused):
            from_text(text_in(bytes(changed), "file") or "", "file")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"format": 2}, "format 2"),
        ({"labels": "abc"}, "damaged"),
        ({"labels": [1]}, "damaged"),
        ({"inputs": []}, "damaged"),
        ({"outputs": [{}]}, "damaged"),
        ({"task": None}, "damaged"),
    ],
)
def test_what_it_cannot_mean_is_refused(changes: dict[str, Any], word: str) -> None:
    words = {**json.loads(to_text(ABOUT)), **changes}
    with pytest.raises(FileRefused, match=word):
        from_text(json.dumps(words), "file")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"format": 1}'])
def test_text_that_is_something_else_is_refused(text: str) -> None:
    with pytest.raises(FileRefused, match="damaged"):
        from_text(text, "file")


def test_a_step_that_is_not_known_here_is_named() -> None:
    unknown = replace(ABOUT.inputs[0], steps=(StepCall("fourier"),))
    with pytest.raises(FileRefused, match="fourier"):
        from_text(to_text(replace(ABOUT, inputs=(unknown,))), "file")


def test_files_that_say_nothing_are_refused(tmp_path: Path) -> None:
    silent = model("")
    del silent.metadata_props[:]
    (tmp_path / "a.onnx").write_bytes(silent.SerializeToString())
    with pytest.raises(FileRefused, match="says nothing"):
        about_file(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(FileRefused, match="no readable"):
        about_file(tmp_path / "b.onnx")
    with pytest.raises(FileRefused, match="no such"):
        about_file(tmp_path / "c.onnx")
