"""Raw bytes in: files that take what a camera gives decide as those that take prepared numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import fx, nn

from pipeline.artifacts.files import FileFormat
from pipeline.declare.recipe import QuantizeSpec
from pipeline.declare.words import RuntimeName
from pipeline.graph.params import QuantParams
from pipeline.networks.checkpoints import learn_step_sizes
from pipeline.networks.from_torch import folded_graph
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.frontend import StepCall, run_steps
from pipeline.quant.calibrate import calibrate
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.raw import grid_of_bytes, line_of, pin_input, takes_bytes, values_of_bytes
from pipeline.runtimes import open_session
from pipeline.runtimes.written import write

GREY = (StepCall("normalize", {"divide": 255.0, "mean": [0.286], "std": [0.353]}),)
COLOUR = (StepCall("normalize", {"divide": 255.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),)
SIXTEEN = (StepCall("normalize", {"divide": 16.0, "mean": [0.3], "std": [0.37]}),)
CLIPPED = (*GREY, StepCall("clip", {"limit": 1.0}))


def mean(value: float) -> Sequence[StepCall]:
    return (StepCall("normalize", {"mean": [value]}),)


def values(steps: Sequence[StepCall], channels: int = 1) -> NDArray[np.float32]:
    found = values_of_bytes(steps, channels, axes=2)
    assert found is not None
    return found


@pytest.mark.parametrize("steps", [(), GREY, SIXTEEN], ids=["as they are", "grey", "sixteen greys"])
def test_every_byte_is_its_own_quantized_value(steps: Sequence[StepCall]) -> None:
    grid = grid_of_bytes(values(steps))
    assert grid is not None
    assert [grid.quantize(float(value)) for value in values(steps)[:, 0]] == list(range(256))


@pytest.mark.parametrize(
    ("steps", "channels"),
    [(COLOUR, 3), (CLIPPED, 1), (mean(-9.0), 1), (mean(300.0), 1)],
    ids=["channels differ", "clipped", "all positive", "all negative"],
)
def test_there_is_no_grid_where_bytes_do_not_lie_on_one(steps: Sequence[StepCall], channels: int) -> None:
    assert grid_of_bytes(values(steps, channels)) is None


def test_what_looks_at_other_values_of_the_sample_is_not_taken_from_bytes() -> None:
    assert values_of_bytes((StepCall("fill", {"values": [0.0]}),), 1, axes=0) is None
    assert line_of(values(CLIPPED)) is None


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def network(channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    ).eval()


def quantized(steps: Sequence[StepCall], raw: NDArray[np.uint8]) -> fx.GraphModule:
    channels = raw.shape[1]
    prepared = prepare(folded_graph(network(channels), raw.shape[1:]), weight_bits=8)
    calibrate(prepared, torch.from_numpy(run_steps(raw, steps)), QuantizeSpec(calibration="mse"))
    grid = grid_of_bytes(values(steps, channels))
    if grid is not None:
        pin_input(prepared, grid)
    return prepared.eval()


def signature_of(x: NDArray[np.generic]) -> Signature:
    return Signature(
        (TensorSpec("input", "float32", x.shape[1:], "CHW"),), (TensorSpec("output", "float32", (5,), "K"),)
    )


def answers(
    folder: Path, file_format: FileFormat, runtime: RuntimeName, content: bytes, x: NDArray[np.generic]
) -> NDArray[np.float32]:
    path = folder / f"small.{file_format}"
    path.write_bytes(content)
    session = open_session(path, runtime, signature=signature_of(x), exact=True)
    result: NDArray[np.float32] = session.run({"input": x})["output"]
    session.close()
    return result


@pytest.mark.parametrize(("file_format", "runtime"), [("onnx", "onnxruntime"), ("tflite", "litert")])
@pytest.mark.parametrize(("steps", "channels"), [(GREY, 1), (COLOUR, 3)], ids=["grey", "colour"])
def test_a_file_of_bytes_answers_as_that_of_floats(
    tmp_path: Path, steps: Sequence[StepCall], channels: int, file_format: FileFormat, runtime: RuntimeName
) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (200, channels, 10, 10)).astype(np.uint8)
    prepared = quantized(steps, raw[:64])
    taking = takes_bytes(prepared, values(steps, channels))
    assert taking is not None
    signature = signature_of(raw)
    frozen = freeze(prepared)
    floats = write(prepared, frozen, name="small", signature=signature)
    bytes_ = write(taking, frozen, name="small", signature=signature, bytes_in=True)
    wanted = answers(tmp_path, file_format, runtime, floats.contents[file_format], run_steps(raw, steps))
    got = answers(tmp_path, file_format, runtime, bytes_.contents[file_format], raw)
    if channels == 1:
        assert np.array_equal(got, wanted)
    second, best = np.sort(wanted, axis=1)[:, -2:].T
    clear = best - second > 1.5 * floats.steps["output"]
    assert clear.sum() > 50
    assert np.array_equal(got[clear].argmax(1), wanted[clear].argmax(1))
    assert np.abs(got - wanted).mean() < 0.1 * floats.steps["output"]


def test_only_prepared_floats_go_into_an_input_that_no_integers_read() -> None:
    prepared = prepare(folded_graph(nn.Sequential(nn.Softplus(), nn.Conv2d(1, 2, 1)).eval(), (1, 4, 4)), weight_bits=8)
    assert takes_bytes(prepared, values(GREY)) is None


def test_training_leaves_a_pinned_grid_where_it_is() -> None:
    quantizer = ActivationQuantizer()
    grid = QuantParams.of(0.011, 73)
    quantizer.pin(grid)
    quantizer.train()(torch.randn(100) * 50)
    assert quantizer.params.scale == pytest.approx(grid.scale)
    assert quantizer.params.zero_point == grid.zero_point
    quantizer.learn_step_size()
    assert quantizer.log_scale is None


def test_weights_with_learned_steps_and_a_pinned_input_are_loaded_again() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (64, 1, 10, 10)).astype(np.uint8)
    trained = quantized(GREY, raw)
    learn_step_sizes(trained)
    again = prepare(folded_graph(network(1), (1, 10, 10)), weight_bits=8)
    learn_step_sizes(again, like=trained.state_dict())
    again.load_state_dict(trained.state_dict())
    x = torch.from_numpy(run_steps(raw, GREY))
    assert torch.equal(freeze(again)(x), freeze(trained)(x))
