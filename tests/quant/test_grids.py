"""On whose grid a value lies, what a kernel takes in, what had better stay float: on graphs put together by hand."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from pipeline.graph import ops
from pipeline.graph.ends import Outputs
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.quant.fakequant import ActivationQuantizer, FollowingQuantizer
from pipeline.quant.grids import (
    clamped_by_quantizer,
    input_quantizer,
    on_grid,
    quantizer_of,
    result_quantizer,
    runs_inside,
    steps_of,
)
from pipeline.quant.neighbours import better_float
from pipeline.quant.scheme import GATE, RULES, Output
from pipeline.quant.spelled import spell_out
from tests.graph.flat import Flat, chain


def quantizer(low: float = 0.0, high: float = 255.0) -> ActivationQuantizer:
    made = ActivationQuantizer()
    made.set_range(low, high)
    return made


# ── grids ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grid_is_found_back_through_what_only_moves_values() -> None:
    flat, grid = Flat(2, 4), quantizer()
    x = flat.add(grid, flat.x)
    moved = flat.add(ops.Reshape((8,)), flat.add(nn.MaxPool1d(2), flat.add(ops.Pad((1, 3)), x)))
    computed = flat.add(nn.ReLU(), moved)
    flat.ending_in(computed)
    assert [on_grid(each) for each in (flat.x, x, moved, computed)] == [False, True, True, False]
    assert quantizer_of(moved) is input_quantizer(computed) is grid


def test_a_follower_lies_on_its_leaders_grid() -> None:
    flat, leader = Flat(4), quantizer()
    x = flat.add(leader, flat.x)
    followed = flat.add(FollowingQuantizer(leader), flat.add(nn.Tanh(), x))
    flat.ending_in(followed)
    assert on_grid(followed)
    assert quantizer_of(followed) is leader
    assert not on_grid(None)


@pytest.mark.parametrize(
    ("before", "after", "inside"),
    [
        (nn.Linear(4, 4), nn.ReLU(), True),
        (nn.Linear(4, 4), nn.ReLU6(), True),
        (nn.Linear(4, 4), nn.LeakyReLU(), False),
        (nn.Sigmoid(), nn.ReLU(), False),
        (quantizer(), nn.ReLU(), False),
    ],
    ids=["relu", "clip", "leaky", "after a sigmoid", "after a quantizer"],
)
def test_what_runs_inside_the_kernel_before_it(before: nn.Module, after: nn.Module, inside: bool) -> None:
    graph = chain((4,), before, after)
    assert runs_inside(compute_nodes(graph)[1]) is inside
    assert not runs_inside(compute_nodes(chain((4,), after))[0])  # nothing stands before it


def test_the_quantizer_in_which_a_kernel_ends() -> None:
    first, second = quantizer(), quantizer()
    graph = chain((4,), nn.Linear(4, 4), nn.ReLU(), first, nn.Linear(4, 4), nn.Tanh(), second)
    nodes = compute_nodes(graph)
    assert result_quantizer(nodes[0]) is result_quantizer(nodes[1]) is first
    assert result_quantizer(nodes[3]) is None  # a tanh stands between
    assert result_quantizer(nodes[5]) is None  # the end of the graph


def test_a_value_that_two_read_ends_in_no_single_quantizer() -> None:
    flat = Flat(4)
    layer = flat.add(nn.Linear(4, 4), flat.x)
    flat.ending_in(flat.add(ops.Add(), flat.add(quantizer(), layer), flat.add(nn.Tanh(), layer)))
    assert result_quantizer(layer) is None


@pytest.mark.parametrize(
    ("module", "low", "high", "clamped"),
    [
        (nn.ReLU(), 0.0, 255.0, True),
        (nn.ReLU(), -1.0, 254.0, False),
        (nn.ReLU6(), 0.0, 6.0, True),
        (nn.ReLU6(), 0.0, 6.01, True),  # by less than half a step
        (nn.ReLU6(), 0.0, 6.1, False),
        (nn.ReLU6(), 0.0, 3.0, True),
        (nn.Hardtanh(-55.0, 200.0), -55.0, 200.0, True),
        (nn.Hardtanh(-54.0, 200.0), -55.0, 200.0, False),
        (nn.Hardtanh(-55.0, 199.0), -55.0, 200.0, False),
        (nn.Tanh(), -128.0, 127.0, False),
    ],
)
def test_clamps_that_the_quantizer_does_anyway(module: nn.Module, low: float, high: float, clamped: bool) -> None:
    graph = chain((4,), module, quantizer(low, high))
    assert clamped_by_quantizer(compute_nodes(graph)[0]) is clamped


def test_clamps_that_something_else_reads_are_needed() -> None:
    assert not clamped_by_quantizer(compute_nodes(chain((4,), nn.ReLU()))[0])
    assert not clamped_by_quantizer(compute_nodes(chain((4,), nn.ReLU(), nn.Tanh()))[0])


def test_one_step_of_each_output_that_has_one() -> None:
    flat = Flat(4)
    grid, floats = flat.add(quantizer(0.0, 510.0), flat.x), flat.add(nn.Tanh(), flat.x)
    graph = flat.ending_in(flat.add(Outputs(("a", "b"), ((4,), (4,))), grid, floats))
    a, b = (TensorSpec(name, "float32", (4,), "F") for name in "ab")
    assert steps_of(graph, Signature((), (a, b))) == {"a": 2.0}
    assert steps_of(chain((4,), quantizer(-255.0, 0.0)), Signature((), (a,))) == {"a": 1.0}
    assert steps_of(chain((4,), nn.Tanh()), Signature((), (a,))) == {}


# ── neighbours ──────────────────────────────────────────────────────────────────────────────────────────────────────


def floats(graph: fx.GraphModule, *, always: tuple[str, ...] = ("Tanh", "LayerNormalization", "MatMul")) -> list[str]:
    """Return the kinds that had better be float where all but some kinds are quantized."""
    nodes = compute_nodes(graph)
    dropped = better_float([node for node in nodes if kind_of(module_of(node)) not in always])
    return [kind_of(module_of(node)) for node in nodes if node in dropped]


def factor() -> nn.Module:
    return ops.Scale(2.0, 0.0)


@pytest.mark.parametrize(
    ("modules", "wanted"),
    [
        ([nn.Linear(4, 4), factor(), nn.Linear(4, 4)], []),
        ([factor()], []),  # both ends are the network's own
        ([nn.Tanh(), factor(), nn.Linear(4, 4)], ["Scale"]),
        ([nn.Linear(4, 4), factor(), nn.Tanh()], ["Scale"]),
        ([nn.Linear(4, 4), ops.Reshape((2, 2)), factor(), ops.Reshape((4,)), nn.Tanh()], ["Scale"]),
        ([nn.Tanh(), factor(), factor(), factor(), nn.Linear(4, 4)], ["Scale"] * 3),  # one after the other
        ([nn.Linear(4, 4), nn.Softmax(1)], []),
        ([nn.Softmax(1), nn.Linear(4, 4)], []),
        ([nn.Softmax(1), nn.Tanh()], ["Softmax"]),
        ([nn.Softmax(1), ops.Reshape((2, 2)), nn.Tanh()], ["Softmax"]),
        ([nn.Softmax(1), factor(), nn.Tanh()], ["Softmax", "Scale"]),
        ([nn.Linear(4, 4), nn.ReLU(), nn.Tanh()], []),
    ],
)
def test_what_had_better_stay_float(modules: list[nn.Module], wanted: list[str]) -> None:
    assert floats(chain((4,), *modules)) == wanted


@pytest.mark.parametrize(("kind", "wanted"), [(ops.Add, ["Add"]), (ops.Sub, ["Sub"]), (ops.Mul, [])])
def test_sums_that_a_layer_norm_reads(kind: type[nn.Module], wanted: list[str]) -> None:
    flat = Flat(4)
    total = flat.add(kind(), flat.add(nn.Linear(4, 4), flat.x), flat.x)
    moved = flat.add(ops.Reshape((2, 2)), total)
    normed = flat.add(ops.Reshape((4,)), flat.add(nn.LayerNorm(2), moved))
    assert floats(flat.ending_in(flat.add(nn.Linear(4, 4), flat.add(ops.Mul(), normed, total)))) == wanted


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fixed_grids_hold_what_their_functions_reach() -> None:
    ends = {kind: (rule.fixed.lowest, rule.fixed.highest) for kind, rule in RULES.items() if rule.fixed}
    assert ends == {
        "Sigmoid": (0, 255 / 256),
        "Softmax": (0, 255 / 256),
        "Tanh": (-1, 127 / 128),
        "HardSigmoid": (0, 1),
    }
    assert RULES["HardSigmoid"].fixed == GATE


def test_rules_say_what_they_must() -> None:
    fixed = {kind for kind, rule in RULES.items() if rule.output is Output.FIXED}
    assert {kind for kind, rule in RULES.items() if rule.fixed is not None} == fixed
    silent = {kind for kind, rule in RULES.items() if rule.output is Output.FLOAT and not rule.note}
    assert silent == {"Input", "Outputs"}
    assert {kind for kind, rule in RULES.items() if rule.weighted} == {"Conv", "Gemm", "Projection"}
    ending = {"Conv", "Gemm", "Projection", "Add", "Sub", "Mul", "Scale", "GlobalAveragePool", "Concat"}
    assert {kind for kind, rule in RULES.items() if rule.takes_in} == ending
    assert not {kind for kind, rule in RULES.items() if rule.note and rule.output is not Output.FLOAT}


# ── spelling out ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "labels"),
    [
        (nn.Hardswish(), {"m0:gate": "HardSigmoid", "m0": "Mul"}),
        (ops.Scale(2.0, 3.0), {"m0:scaled": "Scale", "m0": "Scale"}),
        (ops.Scale(2.0, 0.0), {"m0": "Scale"}),
        (ops.Scale(1.0, 3.0), {"m0": "Scale"}),
        (nn.AvgPool1d(2), {"m0": "Conv"}),
        (nn.AvgPool1d(3, 1, 1), {"m0": "Conv"}),
        (nn.AvgPool1d(3, 1, 1, count_include_pad=False), {"m0": "AveragePool"}),
        (nn.AvgPool1d(3, 2, ceil_mode=True), {"m0": "AveragePool"}),
        (nn.AvgPool1d(25, 1, 0), {"m0": "Conv"}),
        (nn.AvgPool1d(26), {"m0": "GlobalAveragePool"}),
    ],
)
@torch.no_grad()
def test_operations_are_put_together_under_their_own_names(module: nn.Module, labels: dict[str, str]) -> None:
    shape = (2, 26)
    graph = chain(shape, module)
    x = torch.randn(3, *shape)
    wanted = graph(x)
    quantized = spell_out(graph, set(compute_nodes(graph)))
    graph.recompile()
    assert {node.meta["label"]: kind_of(module_of(node)) for node in compute_nodes(graph)} == labels
    assert quantized == set(compute_nodes(graph))
    assert float((graph(x) - wanted).abs().max()) < 1e-6


def test_a_difference_is_a_sum_with_the_negative_and_what_stays_float_stays() -> None:
    for wanted in (["Tanh", "Scale", "Add"], ["Tanh", "Sub"]):
        flat = Flat(4)
        graph = flat.ending_in(flat.add(ops.Sub(), flat.x, flat.add(nn.Tanh(), flat.x)))
        quantized = set(compute_nodes(graph)) if "Add" in wanted else set[fx.Node]()
        assert len(spell_out(graph, quantized)) == (3 if quantized else 0)
        graph.recompile()
        assert [kind_of(module_of(node)) for node in compute_nodes(graph)] == wanted
        assert float(graph(torch.ones(1, 4))[0, 0]) == pytest.approx(1 - 0.7615942)
