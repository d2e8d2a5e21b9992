"""export: four files that run with any batch, the same bytes every time; what cannot be written is named."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pipeline import catalog
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, ExportSet, TensorSpec
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.artifacts.networks import NetworkRef
from pipeline.networks.checkpoints import learn_step_sizes, restore_float, restore_quantized, save
from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.networks.build import build_network
from pipeline.quant.calibrate import calibrate
from pipeline.graph.fold import fold
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runs.run import Work
from pipeline.runtimes import open_session, unavailable
from pipeline.declare.recipe import NetworkSpec, QuantizeSpec
from pipeline.declare.words import OptionValue
from pipeline.stages import export as stage
from pipeline.stages.export import export
from pipeline.tflite import write_tflite
from tests import learnable

KEYS = ["onnx-fp32", "tflite-fp32", "onnx-int8", "tflite-int8"]
FLOAT_TOLERANCE = 1e-5  # of logits around 1; kernels sum in other orders
MOST_STEPS = {"onnx": 1.001, "tflite": 2.001}
WRITING_LIMIT_S = 2.0  # asked: both TFLite files of a network


@dataclass(frozen=True, kw_only=True)
class Made:
    """A network that has seen data, and its fake-quantized twin."""

    work: Work
    checkpoint: Checkpoint
    quantized: Quantized

    def exported(self, name: str = "small") -> ExportSet:
        return export(self.work, name=name, checkpoint=self.checkpoint, quantized=self.quantized)

    def content(self, file: Exported) -> bytes:
        return self.work.store.get(file.file)


def make(
    work: Work, ref: NetworkRef, *, bits: int = 8, learned: bool = False, float_layers: tuple[str, ...] = ()
) -> Made:
    network = build_network(ref, seed=0)
    x = torch.from_numpy(inputs(32, ref.input_shape))
    with torch.no_grad():
        for _ in range(3):
            network(x)
    checkpoint = save(network.eval(), work.store, ref=ref, val_accuracy=0.5)
    prepared = prepare(fold(network, ref.input_shape), weight_bits=bits, float_layers=float_layers)
    calibrate(prepared, x, QuantizeSpec(calibration="min-max"))
    if learned:
        learn_step_sizes(prepared)
    quantized = Quantized(
        checkpoint=save(prepared, work.store, ref=ref, val_accuracy=0.5),
        method="qat",
        weight_bits=bits,
        ptq_val_accuracy=0.5,
        layers=(),
        float_layers=float_layers,
    )
    return Made(work=work, checkpoint=checkpoint, quantized=quantized)


def inputs(count: int, shape: tuple[int, ...] = learnable.SHAPE) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, *shape), np.float32)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(learnable.work(tmp_path), learnable.network(tmp_path))


def test_four_files_with_names_sizes_and_ends(made: Made) -> None:
    result = made.exported()
    assert [file.key for file in result.files] == KEYS
    assert [file.filename for file in result.files] == [
        "small.fp32.onnx",
        "small.fp32.tflite",
        "small.int8.onnx",
        "small.int8.tflite",
    ]
    for file in result.files:
        assert file.size_bytes == len(made.content(file))
        assert file.opset == (13 if file.format == "onnx" else None)
        assert file.float_ops == ()
        nhwc, dtype = file.format == "tflite", "int8" if file.key == "tflite-int8" else "float32"
        shape = (None, 8, 8, 3) if nhwc else (None, 3, 8, 8)
        assert file.input == TensorSpec(name="input", dtype=dtype, shape=shape)
        assert (file.output.dtype, file.output.shape) == (dtype, (None, 4))
    assert [row.op for row in result.layers] == ["Conv", "Relu", "Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]


def test_onnx_files_are_for_old_runtimes_and_pass_the_checker(made: Made) -> None:
    for file in made.exported().files:
        if file.format == "onnx":
            model = onnx.load_from_string(made.content(file))
            assert (model.ir_version, model.opset_import[0].version) == (7, 13)
            onnx.checker.check_model(model, full_check=True)
            assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("learned", [False, True], ids=["ema", "lsq"])
def test_every_file_computes_what_torch_computes_for_any_batch(tmp_path: Path, learned: bool) -> None:
    made = make(learnable.work(tmp_path), learnable.network(tmp_path), learned=learned)
    store = made.work.store
    references = {"fp32": restore_float(made.checkpoint, store), "int8": restore_quantized(made.quantized, store)}
    for file in made.exported().files:
        for runtime in RUNTIME_OF_FORMAT[file.format]:
            if unavailable(runtime):
                continue
            session = open_session(store.path(file.file), runtime, threads=1)
            for batch in (1, 2, 7):
                x = inputs(batch)
                with torch.no_grad():
                    wanted = references[file.precision](torch.from_numpy(x)).numpy()
                difference = np.abs(session.run(x) - wanted).max()
                step = session.output_scale
                assert (step is None) is (file.precision == "fp32")
                assert difference <= (MOST_STEPS[file.format] * step if step else FLOAT_TOLERANCE), (file.key, runtime)


def test_repeated_it_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    first = made.exported()
    (tmp_path / "second").mkdir()
    again = make(learnable.work(tmp_path / "second"), learnable.network(tmp_path / "second"))
    assert again.exported() == first
    assert made.exported() == first


def test_the_recipes_name_is_in_the_files(made: Made) -> None:
    other = made.exported("other")
    assert other.files[0].filename == "other.fp32.onnx"
    assert onnx.load_from_string(made.content(other.files[0])).graph.name == "other"


def test_seven_bits_show_in_the_name_of_the_int8_files(tmp_path: Path) -> None:
    made = make(learnable.work(tmp_path), learnable.network(tmp_path), bits=7)
    result = made.exported()
    assert result.weight_bits == 7
    assert [file.filename for file in result.files][1:3] == ["small.fp32.tflite", "small.int8-w7.onnx"]
    weights = onnx.load_from_string(made.content(result.files[2])).graph.initializer
    integers = [onnx.numpy_helper.to_array(each) for each in weights if each.data_type == onnx.TensorProto.INT8]
    assert max(np.abs(values.astype(int)).max() for values in integers) == 63


def test_a_float_head_on_integers_is_checked_with_the_tolerance_of_integers(tmp_path: Path) -> None:
    shape = (3, 16, 16)
    spec = NetworkSpec(file="resnet", options={"depth": 56})  # deep enough for one value to be rounded the other way
    ref = catalog.network_ref(spec, input_shape=shape, classes=10)
    made = make(learnable.work(tmp_path), ref, float_layers=("fc",))
    file = made.exported().files[3]
    session = open_session(made.work.store.path(file.file), "litert", threads=1)
    assert session.output_scale is None
    x = np.random.default_rng(3).standard_normal((3, *shape), np.float32)  # as the check itself draws
    with torch.no_grad():
        wanted = restore_quantized(made.quantized, made.work.store)(torch.from_numpy(x)).numpy()
    difference = np.abs(session.run(x) - wanted).max()
    assert difference < np.ptp(wanted) / 10
    if difference <= 1e-4 * np.abs(wanted).max():
        pytest.skip("this LiteRT rounds as torch does: the tolerance of float files would have done")


def test_without_int8_there_are_two_files(made: Made) -> None:
    floats = replace(made, quantized=replace(made.quantized, method="none", checkpoint=made.checkpoint))
    assert [file.key for file in floats.exported().files] == ["onnx-fp32", "tflite-fp32"]


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("resnet", {"depth": 8}, (1, 28, 28)),
        ("mobilenet_v2", {"width": 1.0}, (3, 32, 32)),
    ],
)
def test_both_tflite_files_are_written_in_two_seconds(
    name: str, options: dict[str, OptionValue], shape: tuple[int, ...]
) -> None:
    ref = catalog.network_ref(NetworkSpec(file=name, options=options), input_shape=shape, classes=10)
    folded = fold(build_network(ref, seed=0), shape)
    prepared = prepare(folded, weight_bits=8)
    calibrate(prepared, torch.from_numpy(inputs(4, shape)), QuantizeSpec(calibration="min-max"))
    models = [write_onnx(graph, name=name) for graph in (folded, prepared.eval())]
    started = time.process_time()
    sizes = [len(write_tflite(model)) for model in models]
    assert time.process_time() - started < WRITING_LIMIT_S
    assert sizes[1] < 0.4 * sizes[0]


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN = """
from torch import nn

def build(input_shape, classes):
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU())
    return nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
"""


def test_an_unknown_operation_is_named_with_its_layer(tmp_path: Path) -> None:
    work, ref = learnable.work(tmp_path), learnable.network(tmp_path, UNKNOWN)
    checkpoint = save(build_network(ref, seed=0), work.store, ref=ref, val_accuracy=0.5)
    quantized = Quantized(
        checkpoint=checkpoint, method="none", weight_bits=8, ptq_val_accuracy=0, layers=(), float_layers=()
    )
    with pytest.raises(UnsupportedOpError, match=r"layer '0\.1': nn\.GELU is not supported") as caught:
        export(work, name="small", checkpoint=checkpoint, quantized=quantized)
    assert caught.value.exit_code == 4
    assert "torch.nn" in caught.value.remedy


def with_one_weight_changed(model: onnx.ModelProto) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weights = changed.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[0] += 100
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    return write_tflite(changed)


def test_a_file_that_computes_something_else_is_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "write_tflite", with_one_weight_changed)
    with pytest.raises(ModelError, match=r"small\.fp32\.tflite: the written file computes something else") as caught:
        made.exported()
    assert "litert" in str(caught.value)
    assert "bug in karui" in caught.value.remedy


def test_wrong_integers_are_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    result = made.exported()
    model = onnx.load_from_string(made.content(result.files[2]))
    zero_points = [each.name for each in model.graph.initializer if each.name.endswith(":z") and ".w" not in each.name]

    def damage(written: onnx.ModelProto) -> bytes:
        for tensor in written.graph.initializer:
            if tensor.name == zero_points[1]:  # of the first activation inside
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(60, np.uint8), tensor.name))
        return to_bytes(written)

    monkeypatch.setattr(stage, "to_bytes", damage)
    with pytest.raises(ModelError, match=r"small\.int8\.onnx: the written file computes something else"):
        made.exported()


def test_bytes_that_change_from_one_time_to_the_next_are_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100))
    monkeypatch.setattr(stage, "to_bytes", lambda model: to_bytes(model) + bytes([next(times)]))
    with pytest.raises(ModelError, match="twice gave different bytes"):
        made.exported()


def test_a_layer_in_training_mode_is_not_exported_as_such(made: Made) -> None:
    """Dropout is gone, batch norm is folded."""
    graph = onnx.load_from_string(made.content(made.exported().files[0])).graph
    assert {node.op_type for node in graph.node} == {"Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"}
    assert isinstance(build_network(made.checkpoint.network, seed=0).get_submodule("body.8"), nn.Dropout)
