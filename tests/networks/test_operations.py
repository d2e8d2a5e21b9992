"""Layers and functions of every kind, one after the other: as a graph, as float files, and as integers.

Shapes: N batch, T steps, F features, C channels, D depth, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.errors import UnsupportedOpError
from pipeline.graph.costs import layer_costs
from pipeline.networks.from_torch import flat_graph, folded_graph
from pipeline.quant.to_onnx import write_onnx
from pipeline.tflite import write_tflite
from tests.networks.files import in_int8_files, in_the_files

Shape = tuple[int, ...]
Function = Callable[..., Tensor]
STEPS: Shape = (6, 8)  # (T, F)


class With(nn.Module):
    """A function of the input and of some layers."""

    def __init__(self, function: Function, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def _sequence(x: Tensor, layer: nn.Module) -> Tensor:
    result: Tensor = layer(x)[0]
    return result


def _steps_first(x: Tensor, layer: nn.Module) -> Tensor:
    return _sequence(x.transpose(0, 1), layer).transpose(0, 1)


def _last_states(x: Tensor, layer: nn.Module) -> Tensor:
    states = layer(x)[1]
    states = torch.stack(states) if isinstance(states, tuple) else states.unsqueeze(0)  # (1 or 2, L * D, N, H)
    return states.permute(2, 0, 1, 3).flatten(1)


def _cells(x: Tensor, cell: nn.Module) -> Tensor:
    state: Any = None
    for step in x.unbind(1):
        state = cell(step, state)
    last: Tensor = state[0] if isinstance(state, tuple) else state
    return last


RECURRENT: dict[str, nn.Module] = {
    "the last step": With(lambda x, layer: layer(x)[0][:, -1], nn.LSTM(8, 5, batch_first=True)),
    "without biases": With(_sequence, nn.GRU(8, 5, batch_first=True, bias=False)),
    "relu": With(_sequence, nn.RNN(8, 5, batch_first=True, nonlinearity="relu")),
    "from computed states": With(
        lambda x, gru, first: gru(x, first(x[:, 0]).unsqueeze(0))[0], nn.GRU(8, 5, batch_first=True), nn.Linear(8, 5)
    ),
    "from computed states and cells, both ways": With(
        lambda x, lstm, first: lstm(x, tuple(first(x[:, :2].transpose(0, 1)).chunk(2, -1)))[0],
        nn.LSTM(8, 5, batch_first=True, bidirectional=True),
        nn.Linear(8, 10),
    ),
    **{
        f"{make.__name__}, {name}": With(function, make(8, 5, **options))
        for make in (nn.LSTM, nn.GRU, nn.RNN)
        for name, function, options in (
            ("steps first", _steps_first, {}),
            ("two layers, both ways", _sequence, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
            ("last states", _last_states, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        )
    },
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name: str) -> None:
    _right(RECURRENT[name], STEPS)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.LSTM(8, 5, batch_first=True, proj_size=3), "nn.LSTM with proj_size"),
        (nn.GRU(8, 5, batch_first=True), "nn.GRU that starts from a constant other than zero"),
    ],
)
def test_recurrent_layers_that_are_refused_by_name(layer: nn.Module, words: str) -> None:
    def forward(x: Tensor, layer: nn.Module) -> Tensor:
        first = (torch.ones(1, len(x), 5),) if isinstance(layer, nn.GRU) else ()
        result: Tensor = layer(x, *first)[0]
        return result

    with pytest.raises(UnsupportedOpError, match=f"{words} is not supported"):
        flat_graph(With(forward, layer).eval(), STEPS)


def test_too_many_steps_are_refused_in_tflite_alone() -> None:
    graph = folded_graph(With(_sequence, nn.LSTM(1, 1, batch_first=True)).eval(), (513, 1))
    model = write_onnx(graph, name="net")
    with pytest.raises(UnsupportedOpError, match="LSTM over 513 steps") as caught:
        write_tflite(model)
    assert "layer 'layers.0' (LSTM)" in caught.value.where


def test_a_recurrent_layer_counts_the_products_of_all_its_steps() -> None:
    network = With(_sequence, nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True)).eval()
    first, second = layer_costs(folded_graph(network, STEPS))
    assert first.macs == 6 * 2 * 4 * 5 * (8 + 5)
    assert second.macs == 6 * 2 * 4 * 5 * (10 + 5)
    assert first.parameters + second.parameters == sum(each.numel() for each in network.parameters())


# ── windows in one, two and three dimensions ────────────────────────────────────────────────────────────────────────

SIDES: dict[int, Shape] = {1: (4, 7), 2: (4, 7, 6), 3: (4, 5, 6, 7)}
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "one element": {"kernel_size": 1},
    "strided and dilated": {"kernel_size": 2, "stride": 2, "dilation": 2, "padding": 1},
    "depthwise": {"kernel_size": 3, "groups": 4},
    "grouped": {"kernel_size": 3, "groups": 2, "padding": 1},
    "same, of even size": {"kernel_size": 2, "padding": "same"},
    "reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "replicated": {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
}
TRANSPOSED: dict[str, dict[str, Any]] = {
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "grouped and dilated": {"kernel_size": 2, "stride": 2, "dilation": 2, "groups": 2},
    "with gaps": {"kernel_size": 1, "stride": 2},
    "cut": {"kernel_size": 2, "padding": 2},
}
POOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "maximum": ("MaxPool", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "maximum, dilated": ("MaxPool", {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 3}),
    "mean": ("AvgPool", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "mean, pads left out": ("AvgPool", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    "norm": ("LPPool", {"norm_type": 2, "kernel_size": 2}),
    "adaptive mean": ("AdaptiveAvgPool", {"output_size": 3}),
    "adaptive mean of all": ("AdaptiveAvgPool", {"output_size": 1}),
    "adaptive maximum": ("AdaptiveMaxPool", {"output_size": 3}),
    "adaptive, larger": ("AdaptiveMaxPool", {"output_size": 8}),
}


@pytest.mark.parametrize("dimensions", SIDES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, dimensions: int) -> None:
    layer = getattr(nn, f"Conv{dimensions}d")(4, 8, **CONVOLUTIONS[name])
    norm = getattr(nn, f"BatchNorm{dimensions}d")(8)
    _right(nn.Sequential(layer, _shifted(norm), nn.ReLU()), SIDES[dimensions])


@pytest.mark.parametrize("dimensions", SIDES)
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str, dimensions: int) -> None:
    _right(getattr(nn, f"ConvTranspose{dimensions}d")(4, 6, **TRANSPOSED[name]), SIDES[dimensions])


@pytest.mark.parametrize("dimensions", SIDES)
@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str, dimensions: int) -> None:
    make, options = POOLS[name]
    pool = getattr(nn, f"{make}{dimensions}d")(**options).eval()
    graph = folded_graph(pool, SIDES[dimensions])
    in_the_files(graph, pool, SIDES[dimensions])
    # a volume is pooled twice, and a tie of the first pool is up to three steps of the second one's finer grid
    in_int8_files(graph, SIDES[dimensions], steps=6.01 if dimensions == 3 else 2.01)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("divisor", [1, 5])
def test_pools_with_a_divisor(divisor: int, dimensions: int) -> None:
    pool = getattr(nn, f"AvgPool{dimensions}d")(3, 2, 1, ceil_mode=True, divisor_override=divisor)
    graph = folded_graph(pool.eval(), SIDES[dimensions])
    in_the_files(graph, pool, SIDES[dimensions])


@pytest.mark.parametrize("dimensions", SIDES)
@pytest.mark.parametrize(
    "mode", ["nearest", "nearest-exact", "linear", "linear, corners", "by a factor that leaves a rest"]
)
def test_resizes(mode: str, dimensions: int) -> None:
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[dimensions]
    options: dict[str, Any] = {"mode": mode if mode.startswith("nearest") else linear}
    if mode == "linear, corners":
        options["align_corners"] = True
    factor = {"scale_factor": 0.7} if mode.endswith("rest") else {"size": (8,) * dimensions}
    _right(With(lambda x: F.interpolate(x, **factor, **options)), SIDES[dimensions])


@pytest.mark.parametrize("dimensions", SIDES)
def test_norms_that_stand_alone(dimensions: int) -> None:
    for make in ("BatchNorm", "InstanceNorm"):
        norm = getattr(nn, f"{make}{dimensions}d")(4, affine=True, track_running_stats=True)
        _right(_shifted(norm), SIDES[dimensions])


def _shifted(norm: nn.Module) -> nn.Module:
    """Give a norm statistics as after training."""
    norm.running_mean.normal_(generator=torch.Generator().manual_seed(0))  # type: ignore[operator]
    norm.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(0))  # type: ignore[operator]
    return norm


def test_windows_unfolded_and_folded_again() -> None:
    for options in ({"kernel_size": 3, "padding": 1}, {"kernel_size": 2, "stride": 2}, {"kernel_size": 2, "stride": 3}):
        _right(nn.Sequential(nn.Unfold(**options), nn.Fold((7, 6), **options)), (2, 7, 6))


# ── functions ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Weighing(nn.Module):
    """A function of the input and of a parameter that belongs to no layer."""

    def __init__(self, function: Function, *shape: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


def _shift_in_time(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :2, :-1] = x[:, :2, 1:]
    out[:, 2:] = x[:, 2:]
    out[:, -1] += 1
    out[..., 0] = 0.5
    return out


def _heads(x: Tensor, count: int = 2) -> Tensor:
    return x.reshape(*x.shape[:-1], count, -1).transpose(1, 2)


FUNCTIONS: dict[str, Function] = {
    "comparisons": lambda x: (x > 0).float() + (x <= 0.5) * x - (x >= x.mean(1, keepdim=True)).to(x.dtype),
    "equality": lambda x: (x == x.amax(1, keepdim=True)).float() + (x != 1),
    "logic": lambda x: x * ((x > -1) & (x < 1)) + x * ~((x > 1) | (x < -0.5)),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "where by a constant": lambda x: torch.where(torch.ones(6, 8).tril().bool(), x, 0.5),
    "masked_fill": lambda x: (x @ x.mT).masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf")).softmax(-1),
    "sign and rounding": lambda x: x.sign() + (3 * x).trunc() + (3 * x).frac() + (4 * x).ceil() % 4,
    "the larger and the smaller": lambda x: (
        torch.maximum(x, x.roll(1, 1)) + torch.min(x, 2 * x) + x.clamp(max=torch.ones(8))
    ),
    "smallest": lambda x: x.amin(1) + x.min(1).values,
    "alpha": lambda x: torch.add(x, x.relu(), alpha=2) - torch.rsub(x, 3, alpha=2),
    "lerp": lambda x: torch.lerp(x, x.relu(), 0.3),
    "logarithms": lambda x: torch.log1p(x.abs()) + (x.abs() + 1).log2() + x.abs().add(1).log10(),
    "powers": lambda x: 2**x + x**4 + (x.abs() + 0.1) ** -0.7 + torch.expm1(x) + torch.exp2(x),
    "hyperbolic": lambda x: x.sinh() - x.cosh(),
    "logsumexp": lambda x: torch.logsumexp(10 * x, 1) + torch.logsumexp(x, 1, keepdim=True)[:, 0],
    "cumsum": lambda x: x.cumsum(1) + x.cumsum(-1),
    "var_mean": lambda x: torch.var_mean(x, 1, unbiased=False)[0] + torch.std_mean(x, 1)[1],
    "norms of any order": lambda x: (
        x.norm(p=1, dim=1) + x.norm(p=3, dim=1) + torch.linalg.vector_norm(x, float("inf"), 1)
    ),
    "cosine similarity": lambda x: F.cosine_similarity(x[:, :3], x[:, 3:], dim=-1),
    "gelu written out": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "triangles": lambda x: torch.tril(x @ x.mT) + torch.triu(x @ x.mT, 1),
    "diagonal": lambda x: torch.diagonal(x @ x.mT, dim1=1, dim2=2),
    "moved": lambda x: x.movedim(1, -1).narrow(1, 1, 4).tile(1, 1, 2),
    "side by side": lambda x: torch.hstack([x, x.relu()]).tensor_split(3, dim=1)[1],
    "several index tensors": lambda x: x[:, [0, 1, 5], [2, 0, 7]],
    "parts assigned to": _shift_in_time,
    "einsum of each element": lambda x: torch.einsum("btd,btd->bt", x, x.relu()),
    "einsum with dots": lambda x: torch.einsum("...qd,...kd->...qk", x, x.relu()),
    "outer product": lambda x: torch.einsum("bi,bj->bij", x[:, 0], x[:, 1]),
    "baddbmm": lambda x: torch.baddbmm(x @ x.mT, x, x.mT, alpha=0.5),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "grouped attention": lambda x: F.scaled_dot_product_attention(
        _heads(x), _heads(x)[:, :1], _heads(x)[:, 1:], enable_gqa=True
    ),
    "attention with a mask": lambda x: F.scaled_dot_product_attention(x, x, x, torch.eye(6).log()),
    "a constant of every shape": lambda x: x * torch.full_like(x, 2.0) + x.new_full((8,), 3.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    _right(With(FUNCTIONS[name]), STEPS)


WEIGHED: dict[str, Weighing] = {
    "einsum": Weighing(lambda x, w: torch.einsum("btd,de->bte", x, w), 8, 5),
    "einsum to heads": Weighing(lambda x, w: torch.einsum("btd,dhe->bhte", x, w), 8, 2, 5),
    "einsum, a matrix for each step": Weighing(lambda x, w: torch.einsum("btd,tde->bte", x, w), 6, 8, 3),
    "a matrix for each step": Weighing(lambda x, w: x.unsqueeze(2) @ w, 6, 8, 3),
    "all matrices for each": Weighing(lambda x, w: x.unsqueeze(1) @ w, 3, 8, 5),
    "all matrices from the left": Weighing(lambda x, w: w @ x.unsqueeze(1), 3, 5, 6),
    "from the left": Weighing(lambda x, w: w @ x, 3, 6),
    "a vector": Weighing(lambda x, w: x @ w, 8),
    "torch.mm": Weighing(lambda x, w: torch.mm(x[:, 0], w), 8, 3),
}


@pytest.mark.parametrize("name", WEIGHED)
def test_products_with_parameters(name: str) -> None:
    _right(WEIGHED[name], STEPS)


LAYERS: list[nn.Module] = [
    *(nn.SELU(), nn.CELU(0.5), nn.Softshrink(), nn.Hardshrink(), nn.Threshold(0.1, 0.5), nn.LogSigmoid(), nn.RReLU()),
    *(nn.GLU(), nn.Softmin(1), nn.Softsign(), nn.Tanhshrink(), nn.Softplus(beta=2), nn.RMSNorm(8), nn.RMSNorm((6, 8))),
    nn.MultiheadAttention(8, 2, batch_first=True),
    nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu"),
    nn.TransformerDecoderLayer(8, 2, 16, batch_first=True),
    nn.LSTMCell(8, 5),
    nn.GRUCell(8, 5),
    nn.RNNCell(8, 5),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers(layer: nn.Module) -> None:
    _right(With(_called(layer), layer), STEPS)


def _called(layer: nn.Module) -> Function:
    """Return how the layer is given the input: to attend to itself, to be gone through cell by cell."""
    if isinstance(layer, nn.MultiheadAttention):
        mask = nn.Transformer.generate_square_subsequent_mask(6)
        return lambda x, own: own(x, x, x, need_weights=False, is_causal=True, attn_mask=mask)[0]
    if isinstance(layer, nn.TransformerDecoderLayer):
        return lambda x, own: own(x, x.relu())
    return _cells if isinstance(layer, nn.RNNCellBase) else lambda x, own: own(x)


def test_response_norm() -> None:
    _right(nn.LocalResponseNorm(3), SIDES[2])


def _right(network: nn.Module, shape: Shape) -> None:
    graph = folded_graph(network.eval(), shape)
    in_the_files(graph, network, shape)
    in_int8_files(graph, shape)
