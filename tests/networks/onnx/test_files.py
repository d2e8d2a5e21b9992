"""ONNX files that somebody else made: each is whole and within bounds, or refused shortly."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from pipeline.errors import KaruiError, ModelError
from pipeline.networks.from_onnx import network_from
from pipeline.networks.onnx.files import external_files, read_file
from tests.networks.onnx.written import model, node, random, write

MAP = (1, 4, 6, 8)
W3 = random(6, 4, 3, 3)


def with_external(folder: Path, location: str, **entries: str) -> Path:
    """Write a convolution whose weights are said to lie in another file."""
    made = model([node("Conv", "x w", "y")], MAP, {"w": W3})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return write(made, folder)


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "net.data").write_bytes(b"abcd" + W3.tobytes())
    path = with_external(tmp_path, "net.data", offset="4", length=str(W3.nbytes))
    assert external_files(path) == (tmp_path / "net.data",)
    weights = network_from(path).get_parameter("the_y.weight").detach()
    np.testing.assert_array_equal(weights, W3)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "", "nowhere", "."])
def test_weights_elsewhere_are_not(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(W3.tobytes())
    (tmp_path / "inside").mkdir()
    path = with_external(tmp_path / "inside", location)
    with pytest.raises(ModelError, match="no file in the folder of the model"):
        read_file(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(W3.tobytes())
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "net.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="no file in the folder of the model"):
        read_file(with_external(tmp_path / "inside", "net.data"))


def test_weights_must_not_reach_beyond_their_file(tmp_path: Path) -> None:
    (tmp_path / "net.data").write_bytes(W3.tobytes())
    with pytest.raises(ModelError, match="reaches beyond the end"):
        read_file(with_external(tmp_path, "net.data", offset="8", length=str(W3.nbytes)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x08\x07", bytes(range(256)) * 20])
def test_other_files_are_told_apart(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is no (valid )?ONNX file"):
        read_file(path)


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = write(model([node("Conv", "x w", "y")], MAP, {"w": W3}), tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError):
        network_from(path)


@pytest.mark.parametrize("opset", [1, 6, 200])
def test_other_opsets_are_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"is written in opset {opset}"):
        read_file(write(model([node("Relu", "x", "y")], MAP, opset=opset), tmp_path))


def _bomb() -> onnx.ModelProto:
    """Functions that call one another twice each: 2 ** 60 nodes."""
    made = model([helper.make_node("f0", ["x"], ["y"], domain="mine")], MAP)
    for number in range(60):
        inner = "Relu" if number == 59 else f"f{number + 1}"
        domain = "" if number == 59 else "mine"
        nodes = [helper.make_node(inner, [a], [b], domain=domain) for a, b in (("a", "b"), ("b", "c"))]
        imports = [helper.make_opsetid("", 13), helper.make_opsetid("mine", 1)]
        made.functions.append(helper.make_function("mine", f"f{number}", ["a"], ["c"], nodes, imports))
    made.opset_import.append(helper.make_opsetid("mine", 1))
    made.ir_version = 8
    return made


HUGE = np.array([1 << 20, 1 << 20], np.int64)
HOSTILE = {
    "functions": _bomb(),
    "constant": model(
        [node("ConstantOfShape", "s", "c"), node("ReduceSum", "c", "d"), node("Add", "x d", "y")], MAP, {"s": HUGE}
    ),
    "tile": model(
        [node("Tile", "c s", "d"), node("ReduceSum", "d", "e"), node("Add", "x e", "y")],
        MAP,
        {"s": HUGE, "c": random(1, 1)},
    ),
    "range": model(
        [node("Range", "a b c", "d"), node("ReduceSum", "d", "e"), node("Add", "x e", "y")],
        MAP,
        {"a": np.float32(0), "b": np.float32(1e12), "c": np.float32(1)},
    ),
    "doubling": model(
        [node("Concat", f"c{at} c{at}", f"c{at + 1}", axis=0) for at in range(60)]
        + [node("ReduceSum", "c60", "e"), node("Add", "x e", "y")],
        MAP,
        {"c0": random(8)},
    ),
    "expand": model(
        [node("GlobalAveragePool", "x", "a"), node("Expand", "a s", "y")],
        MAP,
        {"s": np.array([1, 4, 1 << 20, 1 << 20], np.int64)},
    ),
    "input": model([node("Relu", "x", "y")], (1, 4, 1 << 20, 1 << 20)),
    "resize": model([node("Resize", "x - - s", "y")], MAP, {"s": np.array([1, 4, 1 << 30, 1 << 30], np.int64)}),
    "sparse sizes": model([node("Relu", "x", "y")], (0, 4)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_grow_beyond_all_bounds_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = write(HOSTILE[name], tmp_path)
    began = time.monotonic()
    with pytest.raises(KaruiError) as refused:
        network_from(path)
    assert time.monotonic() - began < 10
    assert len(str(refused.value)) < 2000


def test_an_input_that_is_left_out_is_told(tmp_path: Path) -> None:
    path = write(model([node("Max", "x -", "a"), node("Relu", "a", "y")], MAP), tmp_path)
    with pytest.raises(ModelError, match=r"node 'the_a' \(Max\) lacks its input 2"):
        network_from(path)


def test_attributes_that_cannot_be_meant_are_told(tmp_path: Path) -> None:
    nodes = [node("MaxPool", "x", "y", kernel_shape=[2, 1 << 40])]
    with pytest.raises(KaruiError) as refused:
        network_from(write(model(nodes, MAP), tmp_path))
    assert "Traceback" not in str(refused.value)


def test_names_that_act_on_a_terminal_are_shown(tmp_path: Path) -> None:
    made = model([helper.make_node("Det", ["x"], ["y"], name="a\x1b[2Jb")], MAP)
    with pytest.raises(KaruiError) as refused:
        network_from(write(made, tmp_path))
    assert "\x1b" not in str(refused.value)
    assert "a\\x1b[2Jb" in str(refused.value)
