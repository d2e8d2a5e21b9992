"""The shipped networks: what their docstrings claim is true, and they run, trace and learn at many sizes."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from pipeline import catalog
from pipeline.declare.recipe import NetworkSpec
from pipeline.declare.words import OptionValue
from pipeline.errors import ModelError
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.networks.build import build_network
from pipeline.networks.from_torch import flat_graph
from pipeline.onboard.arrays import Signature
from pipeline.tasks.protocol import input_spec, output_spec
from tests.tasks.answered import card

NAMES = ("cnn", "ds_cnn", "mlp", "mobilenet_v2", "resnet", "unet")
CLAIM = re.compile(r"``(build\(.*\))`` has ([\d,]+) parameters and ([\d,]+) MACs")
Options = dict[str, OptionValue]

CASES: list[tuple[str, tuple[int, ...], Options]] = [
    ("mlp", (5,), {"hidden": 8}),
    ("mlp", (5,), {"hidden": ""}),
    ("mlp", (1, 8, 8), {"activation": "tanh"}),
    ("mlp", (3, 16, 12), {"hidden": "16, 8", "batch_norm": True}),
    ("cnn", (1, 2, 2), {}),
    ("cnn", (1, 8, 8), {}),
    ("cnn", (3, 33, 20), {"width": 8, "stages": 4, "convs_per_stage": 1}),
    ("resnet", (1, 8, 8), {}),
    ("resnet", (3, 32, 32), {"depth": 14, "width": 8}),
    ("resnet", (3, 20, 13), {"depth": 11, "width": 8, "bottleneck": True}),
    ("resnet", (3, 32, 32), {"depth": 18, "layout": "imagenet", "width": 8}),
    ("resnet", (3, 64, 96), {"depth": 50, "layout": "imagenet", "width": 8}),
    ("ds_cnn", (1, 49, 10), {}),
    ("ds_cnn", (1, 8, 8), {"kernel_height": 3, "kernel_width": 3, "stride": 1}),
    ("ds_cnn", (1, 8, 8), {}),
    ("ds_cnn", (3, 40, 33), {"width": 16, "blocks": 2}),
    ("mobilenet_v2", (1, 8, 8), {"width": 0.35}),
    ("mobilenet_v2", (1, 28, 28), {"width": 0.35}),
    ("mobilenet_v2", (3, 96, 96), {"width": 0.35}),
    ("mobilenet_v2", (3, 32, 48), {"width": 0.5}),
    ("unet", (1, 48, 48), {"width": 8, "depth": 3}),
    ("unet", (3, 16, 24), {"width": 4, "depth": 1, "upsample": "bilinear"}),
    ("unet", (1, 8, 8), {"upsample": "nearest"}),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread: tiny layers on busy cores spend their time waiting for each other otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(name: str) -> ModuleType:
    path = catalog.find("network", name)
    spec = importlib.util.spec_from_file_location(f"shipped_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(name: str, shape: tuple[int, ...], options: Options, classes: int = 10) -> nn.Module:
    spec = NetworkSpec(file=name, options=options)
    return build_network(catalog.network_ref(spec, signature=asked_of(name, shape, classes)), seed=0)


def asked_of(name: str, shape: tuple[int, ...], classes: int) -> Signature:
    """Return what its task asks of a network: one output per class, and a map of it from a U-Net."""
    maps = (classes, *shape[1:]) if name == "unet" else (classes,)
    return Signature((input_spec(card(shape)),), (output_spec(maps, "KHW"[: len(maps)]),))


def layers(network: nn.Module, shape: tuple[int, ...]) -> list[tuple[nn.Module, Tensor]]:
    """Return the layers that multiply, in order, each with its output for one zero sample."""
    seen: list[tuple[nn.Module, Tensor]] = []
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [m.register_forward_hook(lambda module, _, output: seen.append((module, output))) for m in found]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return seen


def macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    total = 0
    for module, output in layers(network, shape):
        weight: Any = module.weight
        total += output[0].numel() * weight[0].numel()  # every output element: one product per weight of its filter
    return total


def claims() -> list[Any]:
    return [
        pytest.param(name, *claim, id=f"{name}: {claim[0]}")
        for name in NAMES
        for claim in CLAIM.findall(str(load(name).__doc__))
    ]


@pytest.mark.parametrize(("name", "call", "parameters", "multiplications"), claims())
def test_the_docstring_tells_the_truth(name: str, call: str, parameters: str, multiplications: str) -> None:
    expression = ast.parse(call, mode="eval").body
    assert isinstance(expression, ast.Call)
    shape, classes = (ast.literal_eval(argument) for argument in expression.args)
    options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in expression.keywords}
    with torch.device("meta"):  # no memory, no initialisation, no arithmetic: shapes alone count
        network = load(name).build(shape, classes, **options)
        found = macs(network, shape)
    assert sum(parameter.numel() for parameter in network.parameters()) == int(parameters.replace(",", ""))
    assert found == int(multiplications.replace(",", ""))


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_names_paper_and_numbers(name: str) -> None:
    docstring = str(load(name).__doc__)
    assert CLAIM.search(docstring)
    assert "et al." in docstring


def test_published_parameter_counts() -> None:
    """The same networks in torchvision have these, as its tables list them."""
    published = {"resnet": {25_557_032, 44_549_160, 60_192_808}, "mobilenet_v2": {3_504_872}}
    for name, counts in published.items():
        assert counts <= {int(claim[1].replace(",", "")) for claim in CLAIM.findall(str(load(name).__doc__))}


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_a_network_traces_and_computes_the_same(name: str, shape: tuple[int, ...], options: Options) -> None:
    network = build(name, shape, options).eval()
    traced = fx.symbolic_trace(network)
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = network(x)
        assert torch.equal(traced(x), outputs)
    assert outputs.shape == (3, *asked_of(name, shape, 10).output.shape)
    assert torch.isfinite(outputs).all()


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_every_parameter_gets_a_gradient_and_starts_sensibly(
    name: str, shape: tuple[int, ...], options: Options
) -> None:
    network = build(name, shape, options).train()
    generator = torch.Generator().manual_seed(0)
    maps = asked_of(name, shape, 10).output.shape[1:]
    x, labels = torch.randn(8, *shape, generator=generator), torch.randint(0, 10, (8, *maps), generator=generator)
    loss = nn.functional.cross_entropy(network(x), labels)
    assert loss.item() < 8  # ln 10 = 2.3 for pure chance; an exploding start gives far more
    loss.backward()  # type: ignore[no-untyped-call]
    assert not [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]


def test_the_default_network_of_digits_is_worth_pruning() -> None:
    recipe, _ = catalog.load_recipe("digits")
    with torch.device("meta"):
        found = macs(load(recipe.network.file).build((1, 8, 8), 10, **recipe.network.options), (1, 8, 8))
    assert 1_000_000 <= found <= 3_000_000  # below, a call's overhead hides what pruning saves


@pytest.mark.parametrize(
    ("depth", "options", "convolutions"),
    [
        (8, {}, 7),
        (110, {}, 109),
        (152, {}, 151),  # basic blocks, n = 25
        (155, {"bottleneck": True}, 154),
        (18, {"layout": "imagenet"}, 17),
        (34, {"layout": "imagenet"}, 33),
        (50, {"layout": "imagenet"}, 49),
        (101, {"layout": "imagenet"}, 100),
        (152, {"layout": "imagenet"}, 151),
    ],
)
def test_a_residual_network_is_as_deep_as_it_says(depth: int, options: Options, convolutions: int) -> None:
    with torch.device("meta"):
        network = load("resnet").build((3, 32, 32), 10, depth=depth, **options)
    counted = [
        name for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name
    ]  # the paper counts weighted layers without projections; the last one is the Linear
    assert len(counted) == convolutions


def test_depth_152_runs() -> None:
    network = build("resnet", (3, 16, 16), {"depth": 152, "layout": "imagenet", "width": 4})
    assert network.eval()(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "shape", "options", "text"),
    [
        ("resnet", (1, 8, 8), {"depth": 9}, "depth 9: depths of the CIFAR layout are 6n + 2 (8, 14, 20"),
        ("resnet", (1, 8, 8), {"depth": 2}, "depth 2: depths of the CIFAR layout are 6n + 2 (8, 14, 20"),
        ("resnet", (1, 8, 8), {"depth": 50, "bottleneck": True}, 'ResNet-50 of the paper is layout="imagenet"'),
        ("resnet", (1, 8, 8), {"depth": 20, "layout": "imagenet"}, "ImageNet layout are 18, 34, 50, 101, 152"),
        ("resnet", (1, 8, 8), {"layout": "imagnet"}, "layout 'imagnet': known are cifar, imagenet"),
        ("resnet", (1, 8, 8), {"width": 0}, "width 0: at least one channel is needed"),
        ("resnet", (64,), {}, "input (64,): a picture (C, H, W) is needed"),
        ("cnn", (64,), {}, "input (64,): a picture (C, H, W) is needed"),
        ("cnn", (1, 8, 8), {"stages": 0}, "stages 0"),
        ("ds_cnn", (64,), {}, "input (64,): a picture (C, H, W) is needed"),
        ("ds_cnn", (1, 8, 8), {"stride": 0}, "stride are at least 1"),
        ("mobilenet_v2", (64,), {}, "input (64,): a picture (C, H, W) is needed"),
        ("mobilenet_v2", (1, 8, 8), {"width": 0.0}, "width 0.0: the multiplier is above 0"),
        ("mlp", (64,), {"hidden": "64,-1"}, "hidden '64,-1': widths are positive whole numbers"),
        ("unet", (64,), {}, "input (64,): a picture (C, H, W) is needed"),
        ("unet", (1, 8, 12), {"depth": 3}, "height and width must be multiples of 8"),
        ("unet", (1, 8, 8), {"upsample": "cubic"}, "upsample 'cubic': known are nearest, bilinear"),
        ("unet", (1, 8, 8), {"width": 0}, "width 0, depth 2: each is at least 1"),
        ("mlp", (64,), {"activation": "gelu"}, "activation 'gelu': known are relu, tanh"),
    ],
)
def test_a_wrong_option_is_refused_in_words(name: str, shape: tuple[int, ...], options: Options, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(name, shape, options)
    assert text in caught.value.what
    assert Path(caught.value.where.rsplit(":", 1)[0]) == catalog.find("network", name)


@pytest.mark.parametrize(
    ("side_px", "last_px"), [(224, 7), (192, 6), (160, 5), (128, 4), (96, 3), (64, 4), (32, 4), (28, 4), (8, 4), (1, 1)]
)
def test_mobilenet_keeps_small_pictures_large_enough(side_px: int, last_px: int) -> None:
    with torch.device("meta"):
        network = load("mobilenet_v2").build((3, side_px, side_px), 10, width=0.35)
        convolutions = [output for module, output in layers(network, (3, side_px, side_px))[:-1]]
    assert convolutions[-1].shape[-2:] == (last_px, last_px)


def test_mobilenet_channels_are_multiples_of_8() -> None:
    with torch.device("meta"):
        network = load("mobilenet_v2").build((3, 32, 32), 10, width=0.35)
    assert all(m.out_channels % 8 == 0 for m in network.modules() if isinstance(m, nn.Conv2d))


def test_the_first_convolution_of_ds_cnn_gives_mlperfs_map() -> None:
    with torch.device("meta"):
        network = load("ds_cnn").build((1, 49, 10), 12)
        _, output = layers(network, (1, 49, 10))[0]
    assert output.shape == (1, 64, 25, 5)


def test_weights_of_the_cnn_fit_another_picture_size() -> None:
    small, large = build("cnn", (1, 8, 8), {}), build("cnn", (1, 28, 28), {})
    large.load_state_dict(small.state_dict())


def test_a_perceptron_gives_numbers_as_well_as_classes() -> None:
    assert build("mlp", (13,), {"hidden": 8}, classes=1).eval()(torch.zeros(2, 13)).shape == (2, 1)


def test_a_unet_sees_details_and_the_whole() -> None:
    """Each way across carries its size, and what lies at the bottom reaches all of the picture."""
    network = build("unet", (1, 32, 32), {"width": 4, "depth": 2}).eval()
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network(x)[0, 0, 16, 16].backward()
    assert x.grad is not None
    reached = x.grad[0, 0].nonzero()
    assert (reached.max(0).values - reached.min(0).values).min() >= 20  # 5x5 of the first two convolutions alone is 4


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_a_unet_is_made_of_known_operations(upsample: str) -> None:
    network = build("unet", (1, 16, 16), {"width": 4, "upsample": upsample})
    graph = flat_graph(network, (1, 16, 16))
    kinds = {kind_of(module_of(node)) for node in compute_nodes(graph)}
    resize = "ResizeNearest" if upsample == "nearest" else "ResizeLinear"
    assert kinds == {"Conv", "BatchNormalization", "Relu", "MaxPool", "Concat", resize}
