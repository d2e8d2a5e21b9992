"""TFLite Metadata, read back field by field with the numbers of the public schema, and the files behind the model."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import number_types as kinds
from flatbuffers.table import Table
from onnx import TensorProto, helper

from pipeline.onboard.about import (
    ARRAY,
    KEY,
    NUMBERS,
    PICTURE,
    PROBABILITIES,
    SCORES,
    About,
    Input,
    Output,
    Raw,
    Stored,
)
from pipeline.onboard.frontend import StepCall
from pipeline.onboard.metadata import text_in
from pipeline.runtimes import written
from pipeline.tflite.metadata import FILE_IDENTIFIER, NAME, files_of, metadata_of, with_files
from tests.tflite.old import run_in_old_runtime

INT8 = Stored(name="input", layout="NHWC", dtype="int8", shape=(4, 6, 3), scale=0.5, zero_point=-3)
FLOAT = Stored(name="input", layout="NHWC", dtype="float32", shape=(4, 6, 3))
NORMALIZE = StepCall("normalize", {"divide": 255.0, "mean": [0.5, 0.25, 0.0], "std": [0.5]})
PICTURES = Input(
    name="picture",
    axes="CHW",
    shape=(3, 4, 6),
    raw=Raw(PICTURE, "uint8", (3, 4, 6), colours="RGB"),
    steps=(NORMALIZE,),
    stored=FLOAT,
)
CLASSES = Output(name="scores", axes="K", shape=(2,), holds=SCORES, times=1.0, stored=FLOAT)
ABOUT = About(
    recipe="mine",
    task="classification",
    karui="1.0",
    data="set",
    data_sha256="0" * 64,
    labels=("Ähre", "b\nc"),
    inputs=(PICTURES,),
    outputs=(CLASSES,),
)


class Read:
    """A table of a flatbuffer, its fields by their numbers in the schema."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def _at(self, number: int) -> int:
        offset: int = self._table.Offset(4 + 2 * number)
        return self._table.Pos + offset if offset else 0

    def text(self, number: int) -> str:
        return bytes(self._table.String(self._at(number))).decode()

    def byte(self, number: int) -> int:
        return int(self._table.Get(kinds.Uint8Flags, self._at(number))) if self._at(number) else 0

    def whole(self, number: int) -> int:
        return int(self._table.Get(kinds.Int32Flags, self._at(number)))

    def table(self, number: int) -> Read:
        return Read(Table(self._table.Bytes, self._table.Indirect(self._at(number))))

    def tables(self, number: int) -> list[Read]:
        if not self._at(number):
            return []
        offset = self._at(number) - self._table.Pos
        start = self._table.Vector(offset)
        return [
            Read(Table(self._table.Bytes, self._table.Indirect(start + 4 * place)))
            for place in range(self._table.VectorLen(offset))
        ]

    def numbers(self, number: int) -> list[float]:
        offset = self._at(number) - self._table.Pos
        found: list[float] = self._table.GetVectorAsNumpy(kinds.Float32Flags, offset).tolist()
        return found

    def has(self, number: int) -> bool:
        return bool(self._at(number))


def read(about: About) -> Read:
    """Write and read back: a ModelMetadata table."""
    data = metadata_of(about)
    assert data[4:8] == FILE_IDENTIFIER == b"M001"
    assert data == metadata_of(about)
    return Read(Table(data, flatbuffers.encode.Get(kinds.UOffsetTFlags.packer_type, data, 0)))


def graph(about: About) -> Read:
    (only,) = read(about).tables(3)
    return only


def input_of(**changes: Any) -> Read:
    (only,) = graph(replace(ABOUT, inputs=(replace(PICTURES, **changes),))).tables(2)
    return only


def output_of(output: Output, **changes: Any) -> Read:
    (only,) = graph(replace(ABOUT, outputs=(output,), **changes)).tables(3)
    return only


def test_the_model_is_named() -> None:
    model = read(ABOUT)
    assert model.text(0) == "mine"
    assert model.text(1).startswith("classification, trained on set; written by karui 1.0")
    assert model.text(7) == "1.0.0"
    assert model.tables(6) == []


def test_pictures_have_colours_a_size_and_how_they_are_normalized() -> None:
    tensor = input_of()
    assert (tensor.text(0), tensor.text(1)) == ("picture", "a picture; done to it beforehand: normalize")
    content = tensor.table(3)
    assert content.byte(0) == 2  # ImageProperties
    assert content.table(1).byte(0) == 1  # RGB
    size = content.table(1).table(1)
    assert (size.whole(0), size.whole(1)) == (6, 4)  # width, height
    (unit,) = tensor.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    mean, std = unit.table(1).numbers(0), unit.table(1).numbers(1)
    assert (mean, std) == ([127.5, 63.75, 0.0], [127.5] * 3)
    raw = np.array([[0, 100, 255]] * 3, np.float32).T
    wanted = (raw / 255 - np.array([0.5, 0.25, 0.0])) / 0.5
    np.testing.assert_allclose((raw - np.array(mean)) / np.array(std), wanted, atol=1e-6)
    assert tensor.table(5).numbers(0) == [1.0, 1.5, 2.0]  # Stats: max
    assert tensor.table(5).numbers(1) == [-1.0, -0.5, 0.0]


def test_one_number_stands_for_equal_ones() -> None:
    equal = StepCall("normalize", {"divide": 1.0, "mean": [2.0, 2.0, 2.0], "std": [4.0]})
    (unit,) = input_of(steps=(equal,)).tables(4)
    assert (unit.table(1).numbers(0), unit.table(1).numbers(1)) == ([2.0], [4.0])


def test_grey_pictures_and_integers() -> None:
    tensor = input_of(raw=Raw(PICTURE, "uint8", (1, 4, 6), colours="L"), steps=(), stored=INT8)
    assert tensor.table(3).table(1).byte(0) == 2  # GRAYSCALE
    (unit,) = tensor.tables(4)
    assert (unit.table(1).numbers(0), unit.table(1).numbers(1)) == ([0.0], [1.0])
    assert (tensor.table(5).numbers(0), tensor.table(5).numbers(1)) == ([127.0], [-128.0])


def test_other_steps_than_one_normalization_have_no_words_in_the_schema() -> None:
    tensor = input_of(raw=Raw(ARRAY, "float32", (5,)), steps=(NORMALIZE, StepCall("clip", {"limit": 3.0})))
    assert tensor.text(1) == "an array; done to it beforehand: normalize, then clip"
    assert tensor.table(3).byte(0) == 1  # FeatureProperties
    assert tensor.tables(4) == []
    assert not tensor.has(5)


def test_labels_stand_at_the_axis_that_they_name() -> None:
    (labels,) = output_of(CLASSES).tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    assert not output_of(CLASSES).has(5)
    likely = output_of(replace(CLASSES, holds=PROBABILITIES)).table(5)
    assert (likely.numbers(0), likely.numbers(1)) == ([1.0], [0.0])


def test_labels_of_yes_or_no_are_a_file_of_the_model() -> None:
    one = replace(CLASSES, shape=(1,))
    assert output_of(one).tables(6) == []
    (labels,) = read(replace(ABOUT, task="binary", outputs=(one,))).tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 1)  # DESCRIPTIONS


def test_maps_are_grey_pictures_in_the_middle_axes() -> None:
    content = output_of(replace(CLASSES, axes="KHW", shape=(2, 4, 6))).table(3)
    assert (content.byte(0), content.table(1).byte(0)) == (2, 2)
    assert (content.table(2).whole(0), content.table(2).whole(1)) == (1, 2)


def test_numbers_without_names_have_no_labels() -> None:
    about = replace(ABOUT, labels=(), outputs=(replace(CLASSES, holds=NUMBERS, times=10.0),))
    (tensor,) = graph(about).tables(3)
    assert tensor.text(1) == "numbers, times 10"
    assert tensor.tables(6) == []
    assert files_of(about) == {}
    assert with_files(b"model", files_of(about)) == b"model"


# ── in a model file ─────────────────────────────────────────────────────────────────────────────────────────────────


def tflite() -> bytes:
    """Return a network of one ReLU, with everything that karui writes into a file."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "y")]
    net = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(net, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return written._tflite(model, ABOUT)


def test_the_files_lie_behind_the_model_as_an_archive() -> None:
    data = tflite()
    assert data == tflite()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode() == "Ähre\nb c\n"
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
    assert data[4:8] == b"TFL3"


def test_the_model_names_both_texts() -> None:
    data = tflite()
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    held = {each.name.decode(): bytes(model.buffers[each.buffer].data) for each in model.metadata}
    assert list(held) == [KEY, NAME]
    assert held[NAME] == metadata_of(ABOUT)
    assert text_in(data, "") == held[KEY].decode()


@pytest.mark.parametrize("old", [False, True])
def test_every_runtime_takes_the_file(old: bool) -> None:
    x = np.array([[-1.0, 2.0, 3.0]], np.float32)
    if old:
        found = run_in_old_runtime({"relu": (tflite(), x)})["relu"].values
    else:
        model = Interpreter(model_content=tflite())
        found = model.get_signature_runner()(x=x)["y"]
    assert found.tolist() == [[0.0, 2.0, 3.0]]
