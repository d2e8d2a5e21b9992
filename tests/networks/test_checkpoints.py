"""What went into the store comes back: float, pruned, fake-quantized, with learned step sizes; or is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, fx, nn

from pipeline.artifacts.evidence import Metric
from pipeline.artifacts.networks import NetworkRef
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import ModelError
from pipeline.networks.build import build_network
from pipeline.networks.checkpoints import (
    learn_step_sizes,
    put_weights,
    restore_float,
    restore_prepared,
    restore_quantized,
    save,
    save_weights,
)
from pipeline.networks.edits import apply
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.pruning import plan
from pipeline.quant.calibrate import calibrate
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.prepare import prepare
from pipeline.runs.store import Store
from tests import learnable

METRIC = Metric(name="accuracy", unit="share", higher_is_better=True)
OF_A_STEP = 1e-3  # fake-quantization divides where the integers multiply: the last bits of a float32


def x(count: int = 16) -> Tensor:
    return torch.randn(count, *learnable.SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def ref(tmp_path: Path) -> NetworkRef:
    return learnable.network(tmp_path)


def seen(ref: NetworkRef) -> nn.Module:
    """Build a network whose batch norms have seen data."""
    network = build_network(ref, seed=3)
    with torch.no_grad():
        for _ in range(5):
            network(x())
    return network.eval()


def quantized(
    store: Store, ref: NetworkRef, *, bits: int = 8, float_layers: tuple[str, ...] = (), learned: bool = False
) -> tuple[fx.GraphModule, Quantized]:
    prepared = prepare(folded_graph(seen(ref), ref.input_shape), weight_bits=bits, float_layers=float_layers)
    calibrate(prepared, x(64), QuantizeSpec(calibration="min-max"))
    if learned:
        learn_step_sizes(prepared)
        with torch.no_grad():
            for name, parameter in prepared.named_parameters():
                if name.endswith(("log_scale", "log_weight_scale")):
                    parameter.add_(0.01)  # as if trained
    prepared.eval()
    checkpoint = save(prepared, store, ref=ref, metric=METRIC, val_metric=0.5)
    return prepared, Quantized(
        checkpoint=checkpoint,
        method="qat",
        weight_bits=bits,
        ptq_val_metric=0.5,
        layers=(),
        float_layers=float_layers,
    )


def test_a_float_network_comes_back(store: Store, ref: NetworkRef) -> None:
    network = seen(ref)
    checkpoint = save(network, store, ref=ref, metric=METRIC, val_metric=0.75)
    restored = restore_float(checkpoint, store)
    assert not restored.training
    assert learnable.equal(restored.state_dict(), network.state_dict())
    assert torch.equal(restored(x()), network(x()))
    assert (checkpoint.val_metric, checkpoint.edits, checkpoint.history) == (0.75, (), ())


def test_a_pruned_network_comes_back(store: Store, ref: NetworkRef) -> None:
    network = seen(ref)
    edits = plan(network, ref.input_shape, channel_share=0.5, round_to=1)
    pruned = apply(network, edits)
    checkpoint = save(pruned, store, ref=ref, edits=edits, metric=METRIC, val_metric=0.5)
    restored = restore_float(checkpoint, store)
    assert sum(p.numel() for p in restored.parameters()) < sum(
        p.numel() for p in build_network(ref, seed=0).parameters()
    )
    assert torch.equal(restored(x()), pruned(x()))


@pytest.mark.parametrize("learned", [False, True], ids=["ema", "lsq"])
@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("float_layers", [(), ("body.3",)], ids=["all int8", "one float"])
def test_a_fake_quantized_network_comes_back(
    store: Store, ref: NetworkRef, bits: int, learned: bool, float_layers: tuple[str, ...]
) -> None:
    prepared, description = quantized(store, ref, bits=bits, float_layers=float_layers, learned=learned)
    restored = restore_prepared(description, store)
    assert learnable.equal(restored.state_dict(), prepared.state_dict())
    assert torch.equal(restored(x()), prepared(x()))
    names = set(restored.state_dict())
    assert any(name.endswith("log_weight_scale") for name in names) is learned
    assert ("body.3.log_weight_scale" in names) is (learned and not float_layers)


def test_a_pruned_network_is_quantized_and_comes_back(store: Store, ref: NetworkRef) -> None:
    network = seen(ref)
    edits = plan(network, ref.input_shape, channel_share=0.5, round_to=1)
    prepared = prepare(folded_graph(apply(network, edits), ref.input_shape), weight_bits=8)
    calibrate(prepared, x(64), QuantizeSpec())
    _, description = quantized(store, ref)
    checkpoint = save(prepared, store, ref=ref, edits=edits, metric=METRIC, val_metric=0.5)
    restored = restore_prepared(replace(description, checkpoint=checkpoint), store)
    assert torch.equal(restored(x()), prepared.eval()(x()))


@pytest.mark.parametrize("learned", [False, True], ids=["ema", "lsq"])
@pytest.mark.parametrize("bits", [7, 8])
def test_the_integers_compute_what_fake_quantization_computes(
    store: Store, ref: NetworkRef, bits: int, learned: bool
) -> None:
    prepared, description = quantized(store, ref, bits=bits, learned=learned)
    last = [module for module in prepared.modules() if isinstance(module, ActivationQuantizer)][-1]
    with torch.no_grad():
        step = float(last.scale_and_zero_point()[0])
        difference = (restore_quantized(description, store)(x(200)) - prepared(x(200))).abs() / step
    assert float(difference.max()) <= 1 + OF_A_STEP
    # the integers' biases are rounded, too: about one value in a hundred falls on the other side of a half step
    assert float((difference < OF_A_STEP).float().mean()) > 0.95


def test_the_same_weights_always_give_the_same_file(store: Store, ref: NetworkRef) -> None:
    network = seen(ref)
    first = save_weights(network, store)
    assert save_weights(network.to(memory_format=torch.channels_last), store) == first  # type: ignore[call-overload]
    backwards = dict(reversed(list(network.state_dict().items())))
    assert put_weights(backwards, store) == first
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-6
    assert save_weights(network, store) != first


def test_layers_that_share_a_tensor_are_saved_each(store: Store) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    tensors = safetensors.torch.load(store.get(save_weights(network, store)))
    assert tensors.keys() == network.state_dict().keys()
    assert torch.equal(tensors["0.weight"], tensors["1.weight"])


Change = Callable[[Checkpoint, Store], Checkpoint]


def other_width(checkpoint: Checkpoint, _: Store) -> Checkpoint:
    return replace(checkpoint, network=replace(checkpoint.network, options={"width": 16}))


def without_edits_applied(checkpoint: Checkpoint, _: Store) -> Checkpoint:
    edits = plan(restore_float(checkpoint, _), learnable.SHAPE, channel_share=0.5, round_to=1)
    return replace(checkpoint, edits=edits)


def without_a_tensor(checkpoint: Checkpoint, store: Store) -> Checkpoint:
    tensors = safetensors.torch.load(store.get(checkpoint.weights))
    del tensors["fc.bias"]
    return replace(checkpoint, weights=put_weights(tensors, store))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_width, r"'body\.0\.weight': expected \(16, 3, 3, 3\), found \(8, 3, 3, 3\)"),
        (without_edits_applied, r"'body\.0\.weight': expected \(\d, 3, 3, 3\), found \(8, 3, 3, 3\)"),
        (without_a_tensor, r"'fc\.bias': missing"),
    ],
)
def test_weights_of_another_network_are_named(store: Store, ref: NetworkRef, change: Change, named: str) -> None:
    checkpoint = save(seen(ref), store, ref=ref, metric=METRIC, val_metric=0.5)
    with pytest.raises(ModelError, match=named):
        restore_float(change(checkpoint, store), store)


def test_an_int8_checkpoint_of_other_float_layers_is_refused(store: Store, ref: NetworkRef) -> None:
    _, description = quantized(store, ref, float_layers=("body.0",), learned=True)
    with pytest.raises(ModelError, match=r"int8 checkpoint: .*another network") as caught:
        restore_prepared(replace(description, float_layers=()), store)
    assert "quantizers.x.low" in caught.value.remedy
