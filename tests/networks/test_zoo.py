"""Networks of timm and torchvision by name; the tests that make some need these packages (the extra ``zoo``)."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from pipeline import catalog
from pipeline.artifacts.networks import NetworkRef
from pipeline.declare.recipe import NetworkSpec
from pipeline.declare.words import OptionValue
from pipeline.errors import ModelError
from pipeline.networks.build import build_network, check_training_step, head_name
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.weights import fit_start, load_state
from pipeline.onboard.arrays import Signature, TensorSpec
from tests import learnable


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install -c constraints.txt -e '.[zoo]'")


def named(name: str, shape: tuple[int, ...] = (3, 32, 32), classes: int = 4, **options: OptionValue) -> NetworkRef:
    needs(name.partition(":")[0])
    return catalog.network_ref(NetworkSpec(file=name, options=options), signature=learnable.signature(shape, classes))


def refusal(ref: NetworkRef) -> ModelError:
    with pytest.raises(ModelError) as caught:
        build_network(ref, seed=0)
    return caught.value


def test_timm_takes_channels_classes_and_options() -> None:
    ref = named("timm:resnet18", (1, 32, 32), 7, drop_rate=0.5)
    network = build_network(ref, seed=0)
    assert network.get_parameter("conv1.weight").shape[1] == 1
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert (str(ref.path), ref.name) == ("timm:resnet18", "timm:resnet18")
    again, other = (build_network(ref, seed=seed).get_parameter("conv1.weight") for seed in (0, 1))
    assert torch.equal(again, network.get_parameter("conv1.weight"))
    assert not torch.equal(other, again)


def test_networks_of_timm_for_one_size_are_made_for_the_datas() -> None:
    assert build_network(named("timm:vit_tiny_patch16_224"), seed=0)(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_torchvision_makes_networks_for_classes_and_masks() -> None:
    assert build_network(named("torchvision:resnet18"), seed=0)(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    masks = Signature(
        inputs=(TensorSpec("input", "float32", (3, 32, 32), "CHW"),),
        outputs=(TensorSpec("output", "float32", (5, 32, 32), "KHW"),),
    )
    spec = NetworkSpec(file="torchvision:lraspp_mobilenet_v3_large")
    ref = catalog.network_ref(spec, signature=masks)
    network = build_network(ref, seed=0)
    check_training_step(network, ref)
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5, 32, 32)


def test_auxiliary_heads_of_torchvision() -> None:
    ref = named("torchvision:googlenet", (3, 64, 64))
    network = build_network(ref, seed=0)
    check_training_step(network, ref)
    folded = folded_graph(network, (3, 64, 64))
    assert folded(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


def test_a_network_that_knows_older_versions_of_itself_takes_its_weights_back() -> None:
    ref = named("torchvision:mnasnet0_5")
    network, other = build_network(ref, seed=0), build_network(ref, seed=1)
    load_state(other, dict(network.state_dict()), where="checkpoint")
    assert torch.equal(other.get_parameter("layers.0.weight"), network.get_parameter("layers.0.weight"))


@pytest.mark.parametrize(
    ("name", "shape", "options", "what", "remedy"),
    [
        ("timm:resnet19", (3, 32, 32), {}, "timm has no network 'resnet19'; did you mean 'resnet18'?", ""),
        ("timm:hf-hub:some/network", (3, 32, 32), {}, "timm has no network 'hf-hub:some/network'", ""),
        ("torchvision:resnet19", (3, 32, 32), {}, "torchvision has no network 'resnet19'; did you mean", ""),
        ("torchvision:resnet18", (1, 32, 32), {}, "takes pictures of 3 channels, and the data's have 1", "colour"),
        ("timm:resnet18", (16,), {}, "takes pictures (channels, height, width), and the data's samples are (16,)", ""),
        ("timm:resnet18", (3, 32, 32), {"pretrained": True}, "the option 'pretrained' is not taken", "weights:FILE"),
        ("torchvision:resnet18", (3, 32, 32), {"weights": "DEFAULT"}, "the option 'weights' is not taken", "weights:F"),
        ("timm:resnet18", (3, 32, 32), {"num_classes": 3}, "the option 'num_classes' is not taken", "the data says it"),
        ("timm:resnet18", (3, 32, 32), {"widht": 3}, "timm raised TypeError", "[network.options]"),
    ],
)
def test_what_a_package_does_not_make(
    name: str, shape: tuple[int, ...], options: dict[str, OptionValue], what: str, remedy: str
) -> None:
    error = refusal(named(name, shape, 4, **options))
    assert error.what.startswith(what)
    assert remedy in error.remedy
    assert error.where == name


def test_weights_for_other_classes_bring_all_but_the_heads() -> None:
    needs("torchvision")
    start = build_network(named("torchvision:googlenet", (3, 64, 64), 9), seed=0)
    own = build_network(named("torchvision:googlenet", (3, 64, 64), 4), seed=1)
    new = fit_start(own.state_dict(), start.state_dict(), head_name(own, (3, 64, 64)), "start")
    assert {name.rpartition(".")[0] for name in new} == {"fc", "aux1.fc2", "aux2.fc2"}
