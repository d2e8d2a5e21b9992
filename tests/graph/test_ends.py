"""Several inputs and outputs as one tensor and back: what lies where.

Shapes: n samples, W values of all inputs or outputs of a sample.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.graph.ends import Input, Outputs, apart, is_end, joined, joined_arrays, joined_shape, takes_joined
from pipeline.graph.kinds import compute_nodes
from pipeline.onboard.arrays import TensorSpec
from pipeline.quant.to_onnx import to_bytes, write_onnx
from tests.graph.flat import Flat
from tests.quant.exact import exact_session

IMAGE, NUMBER, LINE = (
    TensorSpec("image", "float32", (2, 1, 2), "CHW"),
    TensorSpec("number", "float32", (), ""),
    TensorSpec("line", "float32", (3,), "F"),
)
SPECS = (IMAGE, NUMBER, LINE)  # 4 + 1 + 3 values
WHOLE = np.arange(16, dtype=np.float32).reshape(2, 8)


def test_an_input_is_cut_out_of_the_whole() -> None:
    found = Input("image", 1, (2, 1, 2))(torch.from_numpy(WHOLE))
    assert found.tolist() == [[[[1, 2]], [[3, 4]]], [[[9, 10]], [[11, 12]]]]
    assert Input("number", 4, ())(torch.from_numpy(WHOLE)).tolist() == [4, 12]


def test_outputs_lie_side_by_side() -> None:
    ends = Outputs(("a", "b"), ((2, 1), (1,)))
    assert ends(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[9.0]])).tolist() == [[1, 2, 9]]


def test_what_is_joined_comes_apart_again() -> None:
    found = apart(SPECS, WHOLE)
    assert {name: each.tolist() for name, each in found.items()} == {
        "image": [[[[0, 1]], [[2, 3]]], [[[8, 9]], [[10, 11]]]],
        "number": [4, 12],
        "line": [[5, 6, 7], [13, 14, 15]],
    }
    assert np.array_equal(joined_arrays(found), WHOLE)
    tensors = {name: torch.from_numpy(each.copy()).reshape(2, -1) for name, each in found.items()}
    assert joined(tensors).tolist() == WHOLE.tolist()


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float64])
def test_inputs_of_other_types_become_floats(kind: type) -> None:
    both = {"a": np.array([[1, 2]], kind), "b": np.array([[[3.5]]], np.float32)}
    found = joined_arrays(both)
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 2, 3.5]]
    assert joined({name: torch.from_numpy(each) for name, each in both.items()}).dtype == torch.float32


def test_a_single_value_stays_as_it_is() -> None:
    image = np.ones((3, 2, 1, 2), np.float32)
    assert joined_arrays({"image": image}).shape == (3, 2, 1, 2)
    assert joined({"image": torch.from_numpy(image)}).shape == joined(torch.from_numpy(image)).shape == (3, 2, 1, 2)
    assert apart((IMAGE,), image)["image"] is image
    assert joined_shape((IMAGE,)) == (2, 1, 2)
    assert joined_shape(SPECS) == (8,)


def test_leading_axes_stay_in_front() -> None:
    """Outputs of several shaken networks come apart at once: (times, n, W)."""
    found = apart((LINE, NUMBER), np.arange(16).reshape(2, 2, 4))
    assert found["line"].shape == (2, 2, 3)
    assert found["number"].tolist() == [[3, 7], [11, 15]]


class Both(nn.Module):
    """What a network with two inputs and two outputs looks like inside."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Input("left", 0, (2,)), Input("right", 2, (1, 2))

    def forward(self, whole: Tensor) -> Tensor:
        total: Tensor = self.left(whole) + self.right(whole).flatten(1)
        return total


def test_a_network_says_whether_it_takes_several_as_one() -> None:
    assert takes_joined(Both())
    assert takes_joined(nn.Sequential(nn.Linear(2, 2), Outputs(("a",), ((2,),))))
    assert not takes_joined(nn.Linear(2, 2))
    assert not takes_joined(lambda whole: whole)


def test_ends_compute_nothing_and_have_their_names_in_the_file() -> None:
    flat = Flat(6)
    left, right = flat.add(Input("left", 0, (2,)), flat.x), flat.add(Input("right", 2, (2, 2)), flat.x)
    twice = flat.add(nn.ReLU(), right, label="left")  # a layer may be called like an input
    graph = flat.ending_in(flat.add(Outputs(("clamped", "same"), ((2, 2), (2,))), twice, flat.add(nn.Tanh(), left)))
    assert [is_end(node) for node in compute_nodes(graph)] == [True, True, False, False, True]
    assert [is_end(node) for node in graph.graph.nodes if node.op != "call_module"] == [True, True]
    model = write_onnx(graph, name="several")
    assert [each.name for each in model.graph.input] == ["left", "right"]
    assert [each.name for each in model.graph.output] == ["clamped", "same"]
    given = {"left": np.zeros((3, 2), np.float32), "right": np.full((3, 2, 2), -1, np.float32)}
    given["right"][1, 0, 1] = 5
    clamped, same = exact_session(to_bytes(model)).run(None, given)
    assert clamped[1].tolist() == [[0, 5], [0, 0]]
    assert not same.any()
