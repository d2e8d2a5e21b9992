"""Plans for every shipped network: they fit, bring the wanted cost, replay, and take away nothing that counts."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline import catalog
from pipeline.artifacts.training import Edit
from pipeline.declare.words import OptionValue
from pipeline.errors import ModelError
from pipeline.graph.costs import layer_costs, total_macs
from pipeline.networks.build import build_network
from pipeline.networks.edits import apply
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.pruning import chosen, plan, plan_for, prunable, sparsify
from tests import learnable
from tests.quant import networks as quant_networks

PICTURE = (3, 16, 16)
SHIPPED: dict[str, tuple[str, dict[str, OptionValue]]] = {
    "mlp": ("mlp", {"hidden": "32,16", "batch_norm": True}),
    "cnn": ("cnn", {"width": 16, "stages": 2, "convs_per_stage": 1}),
    "resnet": ("resnet", {"depth": 8, "width": 8}),
    "bottleneck": ("resnet", {"depth": 11, "width": 8, "bottleneck": True}),
    "ds_cnn": ("ds_cnn", {"width": 16, "blocks": 2, "kernel_height": 3, "kernel_width": 3, "stride": 1}),
    "mobilenet_v2": ("mobilenet_v2", {"width": 0.35}),
}
NAMES = tuple(SHIPPED)
# what pruning one channel of the most costly layer changes, as a share of all MACs, in networks this small
GRAIN = 0.06
SAME = 1e-5  # sums without the zero channels are taken in another order


def build(name: str, *, seed: int = 0) -> nn.Module:
    """Make a shipped network whose batch norms have seen data."""
    file, options = SHIPPED[name]
    ref = learnable.network_at(catalog.find("network", file), learnable.signature(PICTURE, 5), **options)
    network = build_network(ref, seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(16, *PICTURE))
    return network.eval()


def macs(network: nn.Module) -> float:
    return float(total_macs(folded_graph(network, PICTURE)))


def half(network: nn.Module, *, round_to: int = 1) -> tuple[Edit, ...]:
    return plan_for(network, PICTURE, share_left=0.5, round_to=round_to)


@pytest.fixture(scope="module")
def plans() -> dict[str, tuple[nn.Module, tuple[Edit, ...]]]:
    """Each shipped network and a plan that halves its MACs."""
    built = {name: build(name) for name in NAMES}
    return {name: (network, half(network)) for name, network in built.items()}


Plans = dict[str, tuple[nn.Module, tuple[Edit, ...]]]


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_macs_are_gone_and_the_network_still_answers(plans: Plans, name: str) -> None:
    network, edits = plans[name]
    pruned = apply(copy.deepcopy(network), edits)
    assert 0.5 - GRAIN < macs(pruned) / macs(network) <= 0.5
    assert pruned(torch.randn(2, *PICTURE)).shape == (2, 5)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_leaves_the_given_network_alone(plans: Plans, name: str) -> None:
    network, _ = plans[name]
    fresh = build(name).state_dict()
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_layers_stay_consistent(plans: Plans, name: str) -> None:
    """Sizes that the modules name are those of their weights, depthwise layers stay depthwise."""
    network, edits = plans[name]
    pruned = apply(copy.deepcopy(network), edits)
    before = dict(network.named_modules())
    for key, layer in pruned.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
            was = before[key]
            assert isinstance(was, nn.Conv2d)
            if was.groups > 1:
                assert layer.groups == layer.in_channels == layer.out_channels
        elif isinstance(layer, nn.Linear):
            assert layer.weight.shape == (layer.out_features, layer.in_features)
        elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            assert layer.running_mean is not None
            assert layer.weight.shape == layer.running_mean.shape == (layer.num_features,)
    for module in pruned.modules():
        if type(module).__name__ in ("BasicBlock", "Bottleneck"):
            convs = [layer for layer in module.children() if isinstance(layer, nn.Conv2d)]
            shortcut = module.get_submodule("shortcut")
            sizes = [layer.out_channels for layer in shortcut.modules() if isinstance(layer, nn.Conv2d)]
            assert convs[-1].out_channels == (sizes[0] if sizes else convs[0].in_channels)


@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_plan_and_the_weights_give_the_same_outputs(plans: Plans, name: str) -> None:
    network, edits = plans[name]
    pruned = apply(copy.deepcopy(network), edits)
    replayed = apply(build(name, seed=7), edits)
    shapes = {key: tensor.shape for key, tensor in replayed.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in pruned.state_dict().items()}
    replayed.load_state_dict(pruned.state_dict())
    x = torch.randn(4, *PICTURE)
    assert torch.equal(replayed.eval()(x), pruned(x))


def zero_channels(network: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Make the outputs of all channels that will go zero: their weights, biases and batch norms, layer by layer.

    Edits of one layer follow each other; their indices are those that are left after the ones before.
    """
    left = {name: list(range(len(layer.weight))) for name, layer in network.named_modules() if hasattr(layer, "weight")}
    with torch.no_grad():
        for edit in edits:
            if edit.side != "out":
                continue
            gone = [left[edit.layer][index] for index in edit.indices]
            left[edit.layer] = [index for index in left[edit.layer] if index not in gone]
            layer = network.get_submodule(edit.layer)
            for name in ("weight", "bias", "running_mean"):
                tensor = getattr(layer, name, None)
                if isinstance(tensor, Tensor):
                    tensor[gone] = 0
    return network


@pytest.mark.parametrize("name", NAMES)
def test_channels_that_are_zero_can_go_without_a_trace(plans: Plans, name: str) -> None:
    network, edits = plans[name]
    zeroed = zero_channels(copy.deepcopy(network), edits)
    x = torch.randn(8, *PICTURE)
    with torch.no_grad():
        wanted, got = zeroed(x), apply(copy.deepcopy(zeroed), edits)(x)
    assert float(wanted.std()) > 0  # something is left to compare
    assert float((got - wanted).abs().max()) <= SAME * max(1.0, float(wanted.abs().max()))


def test_zero_channels_are_what_goes_first() -> None:
    network = build("resnet")
    wanted = (1, 4, 6)
    inner = network.get_submodule("blocks.0")
    with torch.no_grad():  # channels inside a block, tied to nothing but their batch norm and the next convolution
        inner.get_parameter("conv1.weight")[list(wanted)] = 0
        for name in ("bn1.weight", "bn1.bias"):
            inner.get_parameter(name)[list(wanted)] = 0
        inner.get_parameter("conv2.weight")[:, list(wanted)] = 0
    channels = 8 * 2 + 16 * 2 + 32 * 2  # each block's inside, and what runs between the blocks
    edits = plan(network, PICTURE, channel_share=3 / channels, round_to=1)
    out = {edit.layer: edit.indices for edit in edits if edit.side == "out"}
    assert out == {"blocks.0.conv1": wanted, "blocks.0.bn1": wanted}
    x = torch.randn(3, *PICTURE)
    with torch.no_grad():
        torch.testing.assert_close(apply(copy.deepcopy(network), edits)(x), network(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "share_left"),
    [("cnn", 0.8), ("cnn", 0.5), ("ds_cnn", 0.8), ("ds_cnn", 0.5), ("bottleneck", 0.5), ("mobilenet_v2", 0.6)],
)
def test_channel_counts_stay_multiples(name: str, share_left: float) -> None:
    network = build(name)
    edits = plan_for(network, PICTURE, share_left=share_left, round_to=8)
    pruned = apply(copy.deepcopy(network), edits)
    assert edits
    assert macs(pruned) <= share_left * macs(network)
    counts = [layer.out_channels for layer in pruned.modules() if isinstance(layer, nn.Conv2d)]
    assert all(count % 8 == 0 for count in counts)


@settings(max_examples=15, deadline=None)  # each example makes a dozen plans
@given(st.floats(0.05, 0.95), st.sampled_from([1, 3, 8]))
def test_a_plan_never_costs_more_than_wanted(share_left: float, round_to: int) -> None:
    network = build("mlp")
    edits = plan_for(network, PICTURE, share_left=share_left, round_to=round_to)
    assert not edits or macs(apply(copy.deepcopy(network), edits)) <= share_left * macs(network)


def test_more_channels_gone_never_costs_more() -> None:
    """What the search relies on: with coarse multiples, too."""
    network = build("resnet")
    found = prunable(network, PICTURE)
    plans = [chosen(found, channel_share=share / 10, round_to=8) for share in range(10)]
    costs = [macs(apply(copy.deepcopy(network), edits)) for edits in plans]
    assert costs[0] == macs(network)
    assert costs == sorted(costs, reverse=True)


def test_there_is_no_plan_where_the_multiples_are_larger_than_the_layers() -> None:
    assert half(build("cnn"), round_to=64) == ()


def test_no_layer_loses_more_than_nine_tenths() -> None:
    pruned = apply(build("mlp"), plan(build("mlp"), PICTURE, channel_share=0.99, round_to=1))
    assert [layer.out_features for layer in pruned.modules() if isinstance(layer, nn.Linear)] == [4, 2, 5]


# ── networks of users ───────────────────────────────────────────────────────────────────────────────────────────────


class HeadFirst(nn.Module):
    """Makes the head before the body."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 5)
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.relu(self.conv(x)).mean((2, 3)))
        return logits


class Grouped(nn.Module):
    """A convolution in two groups, and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(F.relu(self.grouped(F.relu(self.first(x))))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Sequence1d(nn.Module):
    """Convolutions over time, the second one depthwise; flattened before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 8, 3, padding=1)
        self.depthwise = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.fc = nn.Linear(8 * 10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise(F.relu(self.first(x))))
        logits: Tensor = self.fc(x.flatten(1))
        return logits


class DepthwiseFirst(nn.Module):
    """Filters each channel of the picture by itself: these three channels are given."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(3, 3, 3, groups=3)
        self.pointwise = nn.Conv2d(3, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.relu(self.pointwise(self.depthwise(x))).mean((2, 3)))
        return logits


class Joined(nn.Module):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.after(F.relu(torch.cat([self.left(x), self.right(x)], 1))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


USERS: dict[type[nn.Module], tuple[int, ...]] = {
    HeadFirst: PICTURE,
    Grouped: PICTURE,
    Sequence1d: (4, 10),
    DepthwiseFirst: PICTURE,
    Joined: PICTURE,
}


@pytest.mark.parametrize("kind", USERS, ids=lambda kind: kind.__name__)
def test_networks_of_users_are_pruned_and_replayed(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network, shape = kind().eval(), USERS[kind]
    edits = plan(network, shape, channel_share=0.5, round_to=1)
    assert "fc" not in {edit.layer for edit in edits if edit.side == "out"}
    pruned = apply(copy.deepcopy(network), edits)
    x = torch.randn(4, *shape)
    assert pruned(x).shape == (4, 5)
    assert total_macs(folded_graph(pruned, shape)) < 0.8 * total_macs(folded_graph(network, shape))
    if kind is not Grouped:  # its weights' input channels are counted within a group
        zeroed = zero_channels(copy.deepcopy(network), edits)
        with torch.no_grad():
            torch.testing.assert_close(apply(copy.deepcopy(zeroed), edits)(x), zeroed(x), rtol=1e-4, atol=1e-5)


def test_depthwise_filters_of_the_input_itself_stay() -> None:
    edits = plan(DepthwiseFirst(), PICTURE, channel_share=0.5, round_to=1)
    assert {edit.layer for edit in edits} == {"pointwise", "fc"}


def test_grouped_convolutions_lose_the_same_channels_of_every_group() -> None:
    torch.manual_seed(0)
    network = Grouped().eval()
    pruned = apply(copy.deepcopy(network), plan(network, PICTURE, channel_share=0.5, round_to=1))
    first, grouped = pruned.get_submodule("first"), pruned.get_submodule("grouped")
    assert isinstance(first, nn.Conv2d)
    assert isinstance(grouped, nn.Conv2d)
    assert first.out_channels == grouped.in_channels < 12
    assert (grouped.groups, grouped.in_channels % 2, grouped.out_channels % 2) == (2, 0, 0)


def test_a_network_whose_channels_are_given_cannot_be_pruned() -> None:
    class OwnInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.fc = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc((self.conv(x) + x).mean((2, 3)))
            return logits

    with pytest.raises(ModelError, match=r"no channels .* layer 'add' \(Add\) needs all of its channels") as caught:
        plan(OwnInput(), PICTURE, channel_share=0.5, round_to=1)
    assert caught.value.remedy == "set prune.amount = 0 in the recipe"


class Spelt(nn.Module):
    """Spells out one size in its code, and lets the others go."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * 16, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.second(F.relu(self.first(x)))), 4)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.view(-1, 8 * 16))))
        return logits


def test_a_size_that_the_code_spells_out_stays_and_others_go() -> None:
    found = prunable(Spelt(), PICTURE)
    assert {maker for coupled in found.coupled for maker in coupled.makers} == {"first", "fc1"}
    pruned = apply(Spelt(), plan(Spelt(), PICTURE, channel_share=0.5, round_to=1))
    assert pruned(torch.randn(2, *PICTURE)).shape == (2, 5)
    assert len(pruned.get_parameter("second.weight")) == 8


class Helped(nn.Module):
    """An auxiliary head reads the maps in the middle while the network trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc, self.aux = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.first(x))
        logits: Tensor = self.fc(F.relu(self.second(x)).mean((2, 3)))
        return (logits, self.aux(x.mean((2, 3)))) if self.training else logits


def test_what_an_auxiliary_head_reads_stays() -> None:
    network = Helped()
    pruned = apply(network, plan(network, PICTURE, channel_share=0.5, round_to=1)).train()
    assert [output.shape for output in pruned(torch.randn(2, *PICTURE))] == [(2, 5), (2, 5)]
    assert [len(pruned.get_parameter(f"{layer}.weight")) for layer in ("first", "second")] == [8, 4]


def test_a_network_whose_code_lets_nothing_go_says_so() -> None:
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.conv(x).mean((2, 3)).view(-1, 8))
            return logits

    with pytest.raises(ModelError, match="its own code counts on the number of channels"):
        plan(Checked(), PICTURE, channel_share=0.5, round_to=1)


@pytest.mark.parametrize("kind", [HeadFirst, Grouped, Joined, Spelt])
def test_macs_are_counted_without_following_the_code_again(kind: type[nn.Module]) -> None:
    network = kind().eval()
    found = prunable(network, PICTURE)
    pruned = apply(copy.deepcopy(network), plan(network, PICTURE, channel_share=0.4, round_to=1))
    for each in (network, pruned):
        assert found.macs(each) == macs(each)
    edits = plan_for(network, PICTURE, share_left=0.7, round_to=1)
    assert edits == plan_for(network, PICTURE, share_left=0.7, round_to=1, cost=macs)


# ── single weights ──────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.99))
def test_sparsify_sets_exactly_the_smallest_share_to_zero(share: float) -> None:
    network = quant_networks.build("residual")
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    before = torch.cat([layer.weight.detach().flatten() for layer in layers]).clone()
    sparsify(network, share)
    after = torch.cat([layer.weight.detach().flatten() for layer in layers])
    gone = after == 0
    assert int(gone.sum()) == round(share * len(before))
    assert torch.equal(after[~gone], before[~gone])
    if gone.any():
        assert float(before[gone].abs().max()) < float(before[~gone].abs().min())


def test_sparsity_changes_no_shape() -> None:
    network = quant_networks.build("residual")
    rows = layer_costs(folded_graph(sparsify(copy.deepcopy(network), 0.9), quant_networks.SAMPLE_SHAPE))
    assert rows == layer_costs(folded_graph(network, quant_networks.SAMPLE_SHAPE))
