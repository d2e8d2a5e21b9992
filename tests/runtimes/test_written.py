"""Files against the network: sound ones pass, whatever their depth, size and outputs; wrong ones do not."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import numpy_helper
from torch import Tensor, fx, nn

from pipeline.artifacts.files import FileFormat
from pipeline.declare.recipe import QuantizeSpec
from pipeline.declare.words import RuntimeName
from pipeline.errors import ModelError
from pipeline.networks.build import build_network
from pipeline.networks.from_onnx import network_from
from pipeline.networks.from_torch import folded_graph
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import freeze, prepare
from pipeline.runtimes import open_session, unavailable
from pipeline.runtimes.written import Written, check_file, limits_of, write
from pipeline.tflite import write_tflite
from tests import learnable
from tests.networks.onnx.written import two_ends
from tests.networks.onnx.written import write as write_file
from tests.quant import networks

NETWORKS = Path(__file__).parents[2] / "models" / "networks"
SAMPLES = 4
ONNX: FileFormat = "onnx"
TFLITE: FileFormat = "tflite"


def signature(shape: tuple[int, ...], output: tuple[int, ...]) -> Signature:
    return Signature(
        inputs=(TensorSpec("input", "float32", shape, "CHW" if len(shape) == 3 else "F"),),
        outputs=(TensorSpec("output", "float32", output, "KHW" if len(output) == 3 else "K"),),
    )


def samples(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(3))


def content(name: str, shape: tuple[int, ...], classes: int, **options: bool | float | str) -> nn.Module:
    outputs = (classes, *shape[1:]) if name == "unet" else (classes,)
    return build_network(learnable.network_at(NETWORKS / f"{name}.py", signature(shape, outputs), **options), seed=0)


def trained(network: nn.Module, shape: tuple[int, ...], steps: int) -> nn.Module:
    """Take a few large steps, after which rounding grows through the network as it does at no other time."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        loss = F.cross_entropy(network(torch.randn(8, *shape)), torch.randint(0, 10, (8,)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def both(network: nn.Module, shape: tuple[int, ...]) -> list[tuple[fx.GraphModule, nn.Module]]:
    """Return (graph, reference) of the float files and of the int8 ones."""
    folded = folded_graph(network.eval(), shape)
    prepared = prepare(folded, weight_bits=8)
    calibrate(prepared, samples(shape), QuantizeSpec(calibration="min-max"))
    prepared.eval()
    return [(folded, folded), (prepared, freeze(prepared))]


def check(
    written: Written, shape: tuple[int, ...], folder: Path, formats: tuple[FileFormat, ...] = (ONNX, TFLITE)
) -> None:
    inputs = samples(shape)
    with torch.no_grad():
        outputs = tuple(written.reference(inputs).shape[1:])
    limits = limits_of(written, inputs)
    for file_format in formats:
        path = folder / f"file.{file_format}"
        path.write_bytes(written.contents[file_format])
        check_file(written, file_format, path, inputs, limits, signature=signature(shape, outputs))


SOUND: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{name: (functools.partial(networks.build, name), networks.SAMPLE_SHAPE) for name in networks.ALL},
    "mobilenet, untrained": (lambda: content("mobilenet_v2", (3, 64, 64), 10, width=0.25), (3, 64, 64)),
    "mobilenet, 5 steps": (
        lambda: trained(content("mobilenet_v2", (3, 64, 64), 10, width=0.25), (3, 64, 64), 5),
        (3, 64, 64),
    ),
    "unet, nearest": (lambda: content("unet", (1, 16, 16), 3, width=4), (1, 16, 16)),
    "unet, bilinear": (lambda: content("unet", (1, 16, 16), 3, width=4, upsample="bilinear"), (1, 16, 16)),
    "regression": (lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)), (8,)),
}


def test_means_that_lie_on_ties_everywhere_pass(tmp_path: Path) -> None:
    """ONNX Runtime rounds 1.5 to 2, LiteRT to 1; the layer behind makes much of it, in all pixels at once."""
    shape = (1, 8, 8)
    inputs = torch.tensor([1.0, 2.0]).repeat(SAMPLES, 1, 8, 4)
    inputs[-1, 0, 0, 0] = 255.0  # one step is 1
    last = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        last.weight.fill_(4.0)
        last.bias.fill_(-4.0)  # type: ignore[union-attr]
    prepared = prepare(folded_graph(nn.Sequential(nn.AvgPool2d(2, 1), last, nn.ReLU6()).eval(), shape), weight_bits=8)
    calibrate(prepared, inputs, QuantizeSpec(calibration="min-max"))
    written = write(prepared.eval(), freeze(prepared), name="ties", signature=signature(shape, (1, 7, 7)))
    limits = limits_of(written, inputs)
    for file_format in (ONNX, TFLITE):
        path = tmp_path / f"file.{file_format}"
        path.write_bytes(written.contents[file_format])
        check_file(written, file_format, path, inputs, limits, signature=signature(shape, (1, 7, 7)))


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_pass_in_every_runtime(name: str, tmp_path: Path) -> None:
    make, shape = SOUND[name]
    for graph, reference in both(make(), shape):
        with torch.no_grad():
            outputs = tuple(reference(samples(shape)).shape[1:])
        check(write(graph, reference, name="sound", signature=signature(shape, outputs)), shape, tmp_path)


def test_several_inputs_and_outputs_stand_apart_in_the_files(tmp_path: Path) -> None:
    network = network_from(write_file(two_ends(), tmp_path))
    ends = Signature(network.inputs, network.outputs)
    inputs = samples(network.sample_shape)
    for graph, reference in both(network, network.sample_shape):
        written = write(graph, reference, name="ends", signature=ends)
        limits = limits_of(written, inputs)
        assert set(limits) == {"scores", "map"}
        for file_format in (ONNX, TFLITE):
            path = tmp_path / f"file.{file_format}"
            path.write_bytes(written.contents[file_format])
            assert check_file(written, file_format, path, inputs, limits, signature=ends)
            runtime: RuntimeName = "onnxruntime" if file_format == ONNX else "litert"
            assert [each.name for each in open_session(path, runtime).signature.outputs] == ["scores", "map"]
        steps = written.steps
    assert set(steps) == {"scores", "map"}  # each on a grid of its own
    assert steps["scores"] != steps["map"]
    swapped = Signature(network.inputs, tuple(reversed(network.outputs)))
    with pytest.raises(ModelError):
        check_file(written, ONNX, tmp_path / "file.onnx", inputs, limits, signature=swapped)


def test_a_float_head_on_integers_is_held_to_the_tolerance_of_integers(tmp_path: Path) -> None:
    shape = (3, 16, 16)
    folded = folded_graph(content("resnet", shape, 10, depth=20).eval(), shape)
    prepared = prepare(folded, weight_bits=8, float_layers=("fc",))
    calibrate(prepared, samples(shape), QuantizeSpec(calibration="min-max"))
    written = write(prepared.eval(), freeze(prepared), name="x", signature=signature(shape, (10,)))
    assert written.steps == {}
    assert limits_of(written, samples(shape))["output"].word == "output steps"
    check(written, shape, tmp_path)


def test_the_limits_of_a_deep_network_are_wider(tmp_path: Path) -> None:
    found = []
    for depth in (8, 32):
        shape = (3, 16, 16)
        graph, reference = both(content("resnet", shape, 10, depth=depth), shape)[1]
        written = write(graph, reference, name="x", signature=signature(shape, (10,)))
        limits = limits_of(written, samples(shape))["output"]
        found.append(limits.mean / limits.unit)
    assert found[0] < found[1]
    assert not list(tmp_path.iterdir())


# ── wrong files ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Strided(nn.Module):
    """A stride of two: with the pad on the other side it reads other pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.next = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.pad(x, (1, 0, 1, 0))))
        x = F.relu(self.next(x))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def made(int8: bool) -> tuple[Written, tuple[int, ...]]:
    torch.manual_seed(1)
    shape = (3, 8, 8)
    graph, reference = both(Strided(), shape)[int8]
    return write(graph, reference, name="x", signature=signature(shape, (4,))), shape


def altered(written: Written, change: Callable[[onnx.ModelProto], None]) -> Written:
    model = onnx.load_from_string(written.contents["onnx"])
    change(model)
    onnx.checker.check_model(model)
    return replace(written, contents={"onnx": model.SerializeToString(), "tflite": write_tflite(model)})


def pad_swapped(model: onnx.ModelProto) -> None:
    tensor = next(each for each in model.graph.initializer if each.name.endswith(".pads"))
    before, after = np.split(numpy_helper.to_array(tensor), 2)
    tensor.CopyFrom(numpy_helper.from_array(np.concatenate([after, before]), tensor.name))


def weight_changed(model: onnx.ModelProto) -> None:
    tensor = next(each for each in model.graph.initializer if each.name in ("conv.w", "conv.w:q"))
    values = numpy_helper.to_array(tensor).copy()
    values[0] = -values[0]  # one filter of six
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def bias_lost(model: onnx.ModelProto) -> None:
    tensor = next(each for each in model.graph.initializer if each.name in ("fc.b", "fc.b:q"))
    tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), tensor.name))


def nothing(model: onnx.ModelProto) -> None:
    del model


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("file_format", [ONNX, TFLITE])
def test_the_unaltered_file_passes(int8: bool, file_format: FileFormat, tmp_path: Path) -> None:
    written, shape = made(int8)
    check(altered(written, nothing), shape, tmp_path, (file_format,))


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("file_format", [ONNX, TFLITE])
@pytest.mark.parametrize("change", [pad_swapped, weight_changed, bias_lost])
def test_a_wrong_file_is_refused(
    change: Callable[[onnx.ModelProto], None], file_format: FileFormat, int8: bool, tmp_path: Path
) -> None:
    if file_format == TFLITE and unavailable("litert"):
        pytest.skip("LiteRT is not usable here")
    written, shape = made(int8)
    with pytest.raises(ModelError, match="computes something else than the network") as caught:
        check(altered(written, change), shape, tmp_path, (file_format,))
    assert "bug in karui" in caught.value.remedy


def test_a_file_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    def overflow(model: onnx.ModelProto) -> None:
        tensor = next(each for each in model.graph.initializer if each.name == "fc.b")
        tensor.CopyFrom(numpy_helper.from_array(np.full(4, math.nan, np.float32), tensor.name))

    written, shape = made(False)
    with pytest.raises(ModelError, match="computes something else"):
        check(altered(written, overflow), shape, tmp_path, (ONNX,))
