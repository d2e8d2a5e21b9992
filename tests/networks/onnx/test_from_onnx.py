"""ONNX files as networks of torch: their ends, names and refusals, and what becomes of them.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.graph.ends import apart, is_end
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.networks import from_onnx
from pipeline.networks.edits import apply
from pipeline.networks.from_onnx import network_from
from pipeline.networks.from_torch import flat_graph, folded_graph
from pipeline.networks.onnx import ONNX
from pipeline.networks.pruning import plan
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.tflite import write_tflite
from tests.networks.onnx.compared import MAP, W3, ints, kinds
from tests.networks.onnx.written import model, node, random, two_ends, write


def test_constant_integers_with_a_computed_scale(tmp_path: Path) -> None:
    constants = {"q": np.arange(12, dtype=np.int8).reshape(3, 4), "z": np.array([1, 2, 3], np.int8)}
    path = write(model([node("DequantizeLinear", "q x z", "y", axis=0)], (3,), constants), tmp_path)
    network = network_from(path, whole=True).eval()
    scale = random(3)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(scale[None]))[0], session.run(None, {"x": scale})[0])


def test_dropout_in_training_mode_is_refused(tmp_path: Path) -> None:
    nodes = [node("Dropout", "x r t", "y")]
    with pytest.raises(UnsupportedOpError, match="is in training mode"):
        network_from(write(model(nodes, MAP, {"r": np.float32(0.5), "t": np.True_}), tmp_path))
    assert network_from(write(model(nodes, MAP, {"r": np.float32(0), "t": np.True_}), tmp_path))


def test_a_resize_that_runtimes_do_in_different_ways_is_refused(tmp_path: Path) -> None:
    nodes = [node("Resize", "x - s", "y", mode="linear", coordinate_transformation_mode="align_corners")]
    with pytest.raises(UnsupportedOpError, match=r"resizes 8 elements by 0\.6, which runtimes do in different ways"):
        network_from(write(model(nodes, MAP, {"s": np.array([1, 1, 1, 0.6], np.float32)}), tmp_path))


def test_a_file_for_any_batch_is_tried_with_three(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "y")]
    free = network_from(write(model(nodes, ("N", 4, 6, 8), {"w": W3}), tmp_path))
    assert free.said.endswith("batch 3 tried")
    assert network_from(write(model(nodes, MAP, {"w": W3}), tmp_path)).said.endswith("one sample at a time")
    assert network_from(write(model(nodes, (2, 4, 6, 8), {"w": W3}), tmp_path)).said.endswith("batch 2 tried")


def test_pictures_of_tensorflow_are_taken_with_their_channels_first(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
        node("Conv", "a w", "b"),
        node("Transpose", "b", "c", perm=[0, 2, 3, 1]),
        node("Reshape", "c s", "y"),
    ]
    path = write(model(nodes, (1, 6, 8, 3), {"w": random(2, 3, 3, 3), "s": ints(1, 48)}), tmp_path)
    assert network_from(path).sample_shape == (3, 6, 8)
    assert kinds(path) == ["Conv", "Transpose", "Reshape"]


def test_free_axes_are_those_of_the_data(tmp_path: Path) -> None:
    path = write(model([node("Conv", "x w", "y")], ("N", 4, "H", "W"), {"w": W3}), tmp_path)
    assert network_from(path, sample_shape=(4, 5, 9)).result_shape == (6, 3, 7)
    with pytest.raises(ModelError, match=r"free axes: \(1, 4, \?, \?\)") as refused:
        network_from(path)
    assert "--input x=1,3,224,224" in str(refused.value)
    with pytest.raises(ModelError, match=r"takes samples of shape \(4, \?, \?\), not \(3, 5, 9\)"):
        network_from(path, sample_shape=(3, 5, 9))


def test_bytes_behind_a_cast_are_numbers(tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "a", to=TensorProto.FLOAT), node("Mul", "a s", "b"), node("Conv", "b w", "y")]
    file = model(nodes, MAP, {"w": W3, "s": np.float32(1 / 255)}, kind=TensorProto.UINT8)
    assert "differs from the file by" in network_from(write(file, tmp_path)).said
    raw = model([node("Reshape", "x s", "a"), node("Cast", "a", "y", to=1)], MAP, {"s": ints(1, -1)}, kind=2)
    with pytest.raises(ModelError, match="input 'x' is of whole numbers"):
        network_from(write(raw, tmp_path))


def test_a_branch_that_is_decided_is_followed(tmp_path: Path) -> None:
    yes = helper.make_graph([node("Relu", "x", "p")], "yes", [], [helper.make_tensor_value_info("p", 1, None)])
    no = helper.make_graph([node("Neg", "x", "q")], "no", [], [helper.make_tensor_value_info("q", 1, None)])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=yes, else_branch=no)]
    assert kinds(write(model(nodes, MAP, {"c": np.array(False)}), tmp_path)) == ["Scale"]


def test_quantizers_leave_their_ranges_as_clamps(tmp_path: Path) -> None:
    nodes = [
        node("DequantizeLinear", "wq ws", "w"),
        node("Conv", "x w", "a"),
        node("QuantizeLinear", "a s z", "q"),
        node("DequantizeLinear", "q s z", "y"),
    ]
    constants: dict[str, Any] = {
        "wq": np.round(W3 * 20).astype(np.int8),
        "ws": np.float32(0.05),
        "s": np.float32(0.02),
        "z": np.uint8(0),
    }
    network = network_from(write(model(nodes, MAP, constants), tmp_path))
    y = network(torch.from_numpy(random(3, *MAP[1:]) * 5)).detach()
    assert float(y.min()) == 0.0
    assert float(y.max()) == pytest.approx(0.02 * 255)
    assert not torch.equal(y / 0.02, (y / 0.02).round())  # real numbers between
    weights = network.get_parameter("the_a.weight").detach()
    np.testing.assert_allclose(weights, constants["wq"] * 0.05, rtol=1e-6)


def test_names_are_those_of_the_nodes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "stem.0.weight"], ["17"]),
        helper.make_node("Relu", ["17"], ["18"]),
        helper.make_node("Relu", ["18"], ["19"], name="/block/act.1/Relu"),
        helper.make_node("Sigmoid", ["19"], ["y"], name="forward"),
    ]
    network = network_from(write(model(nodes, MAP, {"stem.0.weight": W3}), tmp_path))
    wanted = ["stem_0", "node_18", "block_act_1_Relu", "node_forward"]
    assert [name for name, _ in network.named_children()] == wanted
    assert [each.meta["label"] for each in compute_nodes(flat_graph(network, MAP[1:]))] == wanted


def test_one_of_several_outputs_is_chosen(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "y"), node("Sigmoid", "y", "other")]
    file = model(nodes, MAP, {"w": W3}, outputs=("y", "other"))
    path = write(file, tmp_path)
    assert [each.name for each in network_from(path).outputs] == ["y", "other"]
    assert [name for name, _ in network_from(path, output="y").named_children()] == ["the_y"]
    with pytest.raises(ModelError, match="no output 'othre'; did you mean 'other'"):
        network_from(path, output="othre")


def test_all_nodes_that_cannot_be_taken_are_told_at_once(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Det", "a", "b"),
        node("Relu", "a", "c"),
        node("NonZero", "c", "d"),
        node("Add", "b c", "e"),
        node("Mod", "e d", "y"),
    ]
    with pytest.raises(UnsupportedOpError) as refused:
        network_from(write(model(nodes, MAP, {"w": W3}), tmp_path))
    for name, op in (("the_b", "Det"), ("the_d", "NonZero"), ("the_y", "Mod")):
        assert f"node '{name}' ({op}) is not supported" in str(refused.value)


def test_a_network_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_onnx, "ONNX", {**ONNX, "Relu": ONNX["Sigmoid"]})
    with pytest.raises(ModelError, match="what karui reads from this file differs from the file by"):
        network_from(write(model([node("Relu", "x", "y")], MAP), tmp_path))


def test_it_is_trained_and_pruned_like_any_network(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w b", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "c"),
        node("Conv", "c v", "d"), node("GlobalAveragePool", "d", "e"),
        node("Reshape", "e s", "f"), node("Gemm", "f u", "y", transB=1),
    ]  # fmt: skip
    constants = {
        "w": random(16, 4, 3, 3), "b": random(16), "v": random(16, 16, 3, 3),
        "s": ints(1, 16), "u": random(5, 16),
    }  # fmt: skip
    network = network_from(write(model(nodes, MAP, constants), tmp_path))
    x = torch.from_numpy(random(3, *MAP[1:]))
    network(x).sum().backward()
    assert all(each.grad is not None for each in network.parameters())
    before = sum(each.numel() for each in network.parameters())
    pruned = apply(network, plan(network, MAP[1:], channel_share=0.4, round_to=2))
    assert sum(each.numel() for each in pruned.parameters()) < before
    flat = folded_graph(pruned, MAP[1:])
    torch.testing.assert_close(flat(x), pruned.eval()(x))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.second(x))
        result: torch.Tensor = self.head(x.mean((2, 3)))
        return result


def test_what_karui_writes_it_reads(tmp_path: Path) -> None:
    network = Residual().eval()
    path = tmp_path / "net.onnx"
    path.write_bytes(to_bytes(write_onnx(folded_graph(network, MAP[1:]), name="net")))
    read = network_from(path)
    assert {name for name, _ in read.named_children()} >= {"first", "second", "head"}
    x = torch.from_numpy(random(3, *MAP[1:]))
    torch.testing.assert_close(read.eval()(x), network(x))
    assert write_tflite(write_onnx(folded_graph(read, read.sample_shape), name="again"))


@pytest.mark.parametrize("opset", [9, 13, 17])
def test_exports_of_torch(opset: int, tmp_path: Path, recwarn: Any) -> None:
    network, path = Residual().eval(), tmp_path / "net.onnx"
    torch.onnx.export(network, (torch.zeros(MAP),), str(path), opset_version=opset, dynamo=False, input_names=["x"])
    recwarn.clear()
    read, x = network_from(path).eval(), torch.from_numpy(random(3, *MAP[1:]))
    torch.testing.assert_close(read(x), network(x))


def test_several_inputs_and_outputs_lie_side_by_side(tmp_path: Path) -> None:
    path = write(two_ends(), tmp_path)
    network = network_from(path)
    assert [(each.name, each.shape) for each in network.inputs] == [("x_in", (3, 8, 8)), ("side", (4,))]
    assert [(each.name, each.shape) for each in network.outputs] == [("scores", (3,)), ("map", (2, 8, 8))]
    x, side = random(3, 3, 8, 8), random(3, 4, seed=5)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    alone = [session.run(None, {"x": x[at : at + 1], "side": side[at : at + 1]}) for at in range(3)]
    together = torch.from_numpy(np.concatenate([x.reshape(3, -1), side], 1))
    graph = flat_graph(network, network.sample_shape)
    for each in (network.eval(), graph):
        with torch.no_grad():
            found = apart(network.outputs, each(together).numpy())
        for place, name in enumerate(("scores", "map")):
            wanted = np.concatenate([every[place] for every in alone])
            np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)
    assert [kind_of(module_of(each)) for each in compute_nodes(graph) if is_end(each)] == ["Input", "Input", "Outputs"]


def test_inputs_of_several_are_asked_for_by_name(tmp_path: Path) -> None:
    nodes = [node("Concat", "x z", "y", axis=1)]
    path = write(model(nodes, ("N", "F"), also={"z": ("N", 2)}), tmp_path)
    with pytest.raises(ModelError, match=r"input 'x' has free axes: \(1, \?\)") as caught:
        network_from(path)
    assert "--input x=" in caught.value.remedy
    assert network_from(path, sample_shape={"x": (3,)}).outputs[0].shape == (5,)
    with pytest.raises(ModelError, match="has 2 inputs: x, z"):
        network_from(path, sample_shape=(3,))
    with pytest.raises(ModelError, match="has no input 'w'; it has x, z"):
        network_from(path, sample_shape={"w": (3,)})


def test_what_is_handed_on_as_it_is_has_a_node_in_the_files(tmp_path: Path) -> None:
    path = write(model([node("Identity", "x", "y"), node("Relu", "x", "z")], (1, 5), outputs=("y", "z")), tmp_path)
    network = network_from(path)
    written = write_onnx(folded_graph(network, (5,)), name="net")
    again = tmp_path / "again.onnx"
    again.write_bytes(to_bytes(written))
    session = onnxruntime.InferenceSession(again.read_bytes(), providers=["CPUExecutionProvider"])
    x = random(2, 5)
    y, z = session.run(["y", "z"], {"input": x})
    np.testing.assert_allclose(y, x)
    np.testing.assert_allclose(z, np.maximum(x, 0))
