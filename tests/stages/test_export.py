"""export: two files of one set of weights that run with any batch, the same bytes every time; stale recall is found."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import catalog, tasks
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, ExportSet, Variant
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkRef
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.data.load import load
from pipeline.declare.recipe import NetworkSpec, QuantizeSpec
from pipeline.declare.words import OptionValue, RuntimeName
from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.networks.build import build_network
from pipeline.networks.checkpoints import learn_step_sizes, restore_float, restore_quantized, save
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runs.keys import ingredients
from pipeline.runs.run import Work
from pipeline.runtimes import open_session, unavailable, written
from pipeline.stages.export import export
from pipeline.tflite import write_tflite
from pipeline.training.batches import hold
from pipeline.training.loop import evaluate
from tests import learnable

FLOAT_TOLERANCE = 1e-5  # of outputs around 1; kernels sum in other orders
MOST_STEPS = {"onnx": 1.001, "tflite": 2.001}
WRITING_LIMIT_S = 2.0  # asked: both TFLite files of a network
RUNTIMES = {"onnxruntime": "1", "litert": "2", "tflite-runtime": "3"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A network that has seen data, and its fake-quantized twin."""

    work: Work
    data: DataRef
    facts: DataFacts
    checkpoint: Checkpoint
    quantized: Quantized

    def exported(self, weights: Checkpoint | Quantized, name: str = "small") -> ExportSet:
        return export(self.work, name=name, data=self.data, facts=self.facts, weights=weights, runtimes=RUNTIMES)

    def all(self) -> list[Exported]:
        return [*self.exported(self.checkpoint).files, *self.exported(self.quantized).files]

    def content(self, file: Exported) -> bytes:
        return self.work.store.get(file.file)


def make(
    folder: Path,
    code: str = learnable.CONVOLUTIONAL,
    *,
    bits: int = 8,
    learned: bool = False,
    float_layers: tuple[str, ...] = (),
    data: DataRef | None = None,
) -> Made:
    work, data = learnable.work(folder), data or learnable.dataset(folder)
    facts = learnable.facts(data)
    ref = learnable.network(folder, code, classes=facts.signature.output.shape[0])
    network, x = build_network(ref, seed=0), torch.from_numpy(inputs(32))
    with torch.no_grad():
        for _ in range(3):
            network(x)
    task, val = tasks.named(data.card.task), hold(load(data).val, facts.frontend, torch.device("cpu"))
    prepared = prepare(folded_graph(network.eval(), ref.input_shape), weight_bits=bits, float_layers=float_layers)
    calibrate(prepared, x, QuantizeSpec(calibration="min-max"))
    if learned:
        learn_step_sizes(prepared)

    def saved(weights: nn.Module, answering: nn.Module, ref: NetworkRef = ref) -> Checkpoint:
        value = evaluate(answering, val, task).value
        return save(weights, work.store, ref=ref, metric=task.METRIC, val_metric=value)

    quantized = Quantized(
        checkpoint=saved(prepared, freeze(prepared)),
        method="qat",
        weight_bits=bits,
        ptq_val_metric=0.5,
        layers=(),
        float_layers=float_layers,
    )
    return Made(work=work, data=data, facts=facts, checkpoint=saved(network, network), quantized=quantized)


def runtimes_of(file: Exported) -> tuple[RuntimeName, ...]:
    return next(runtimes for name, runtimes in RUNTIME_OF_FORMAT.items() if name == file.variant.format)


def inputs(count: int, shape: tuple[int, ...] = learnable.SHAPE) -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((count, *shape), np.float32)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path)


def test_two_files_of_each_set_of_weights_with_names_and_sizes(made: Made) -> None:
    floats, integers = made.exported(made.checkpoint), made.exported(made.quantized)
    assert [(each.precision, each.weight_bits) for each in (floats, integers)] == [("fp32", 32), ("int8", 8)]
    assert [file.filename for file in made.all()] == [
        "small.fp32.onnx",
        "small.fp32.tflite",
        "small.int8.onnx",
        "small.int8.tflite",
    ]
    assert [file.variant.key for file in made.all()] == ["onnx-fp32", "tflite-fp32", "onnx-int8", "tflite-int8"]
    for file in made.all():
        assert file.size_bytes == len(made.content(file))
        assert file.opset == (13 if file.variant.format == "onnx" else None)
        assert file.float_ops == ()
        assert file.signature == made.checkpoint.network.signature
        assert file.steps.keys() == ({"output"} if file.variant.precision == "int8" else set())
        runtimes = runtimes_of(file)
        assert file.checked_in == next((each for each in runtimes if not unavailable(each)), None)
    ops = ["Conv", "Relu", "Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]
    assert [row.op for row in floats.layers] == ops
    assert integers.layers == floats.layers


def test_onnx_files_are_for_old_runtimes_and_pass_the_checker(made: Made) -> None:
    for file in made.all():
        if file.variant.format == "onnx":
            model = onnx.load_from_string(made.content(file))
            assert (model.ir_version, model.opset_import[0].version) == (7, 13)
            onnx.checker.check_model(model, full_check=True)
            assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("learned", [False, True], ids=["ema", "lsq"])
def test_every_file_computes_what_torch_computes_for_any_batch(tmp_path: Path, learned: bool) -> None:
    made = make(tmp_path, learned=learned)
    store = made.work.store
    references = {"fp32": restore_float(made.checkpoint, store), "int8": restore_quantized(made.quantized, store)}
    for file in made.all():
        for runtime in runtimes_of(file):
            if unavailable(runtime):
                continue
            session = open_session(store.path(file.file), runtime, signature=file.signature, exact=True)
            for batch in (1, 2, 7):
                x = inputs(batch)
                with torch.no_grad():
                    wanted = references[file.variant.precision](torch.from_numpy(x)).numpy()
                difference = np.abs(session.run({"input": x})["output"] - wanted).max()
                step = session.steps.get("output")
                assert (step is None) is (file.variant.precision == "fp32")
                most = MOST_STEPS[file.variant.format] * step if step else FLOAT_TOLERANCE
                assert difference <= most, (file.variant.key, runtime)


def test_a_network_that_gives_numbers_is_exported_too(tmp_path: Path) -> None:
    made = make(tmp_path, data=learnable.numbers(tmp_path))
    assert [file.signature.output.shape for file in made.all()] == [(1,)] * 4


def test_repeated_it_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    first = made.all()
    (tmp_path / "second").mkdir()
    again = make(tmp_path / "second").all()
    assert [file.file for file in again] == [file.file for file in first]
    assert made.all() == first


def test_the_recipes_name_is_in_the_files(made: Made) -> None:
    other = made.exported(made.checkpoint, "other")
    assert other.files[0].filename == "other.fp32.onnx"
    assert onnx.load_from_string(made.content(other.files[0])).graph.name == "other"


def test_seven_bits_show_in_the_name_of_the_int8_files(tmp_path: Path) -> None:
    made = make(tmp_path, bits=7)
    result = made.exported(made.quantized)
    assert result.weight_bits == 7
    assert [file.filename for file in result.files] == ["small.int8-w7.onnx", "small.int8-w7.tflite"]
    assert result.files[0].variant == Variant(format="onnx", precision="int8", weight_bits=7)
    weights = onnx.load_from_string(made.content(result.files[0])).graph.initializer
    integers = [onnx.numpy_helper.to_array(each) for each in weights if each.data_type == onnx.TensorProto.INT8]
    assert max(np.abs(values.astype(int)).max() for values in integers) == 63


def test_layers_that_stay_float_are_named(tmp_path: Path) -> None:
    made = make(tmp_path, float_layers=("fc",))
    for file in made.exported(made.quantized).files:
        assert file.float_ops == ("fc (Gemm): left float to keep the margin",)
        assert file.steps == {}


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
    ref = catalog.network_ref(NetworkSpec(file=name, options=options), signature=learnable.signature(shape, 10))
    folded = folded_graph(build_network(ref, seed=0), shape)
    prepared = prepare(folded, weight_bits=8)
    calibrate(prepared, torch.from_numpy(inputs(4, shape)), QuantizeSpec(calibration="min-max"))
    models = [write_onnx(graph, name=name) for graph in (folded, prepared.eval())]
    started = time.process_time()
    sizes = [len(write_tflite(model)) for model in models]
    assert time.process_time() - started < WRITING_LIMIT_S
    assert sizes[1] < 0.4 * sizes[0]


# ── what was trained is what is restored ────────────────────────────────────────────────────────────────────────────

READS_A_FILE = """
from pathlib import Path
import torch
from torch import nn

class Signed(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(192, classes)
        self.sign = float(Path("SIGN").read_text())

    def forward(self, x):
        return self.fc(torch.relu(x.flatten(1) * self.sign - 0.5))

def build(input_shape, classes):
    return Signed(classes)
"""


def test_a_network_that_computes_something_else_than_when_it_was_trained_is_refused(tmp_path: Path) -> None:
    sign = tmp_path / "sign.txt"
    sign.write_text("1")
    made = make(tmp_path, READS_A_FILE.replace("SIGN", str(sign)))
    assert made.exported(made.checkpoint).files
    before = [made.content(file) for file in made.exported(made.quantized).files]
    sign.write_text("-1")
    with pytest.raises(
        ModelError, match="computes something else than when it was trained: validation accuracy"
    ) as caught:
        made.exported(made.checkpoint)
    assert caught.value.where == str(made.checkpoint.network.path)
    assert "--fresh" in caught.value.remedy
    # what is quantized has its constants in its own checkpoint
    assert [made.content(file) for file in made.exported(made.quantized).files] == before


def test_half_a_point_and_a_sample_are_no_other_network(made: Made) -> None:
    checkpoint = made.checkpoint
    samples = made.facts.samples["val"]
    near = replace(checkpoint, val_metric=checkpoint.val_metric + 0.0049 + 1 / samples)
    far = replace(checkpoint, val_metric=checkpoint.val_metric + 0.0051 + 1 / samples)
    assert made.exported(near).files
    with pytest.raises(ModelError, match="computes something else than when it was trained"):
        made.exported(far)


# ── what could not be checked ───────────────────────────────────────────────────────────────────────────────────────


def test_a_file_without_its_runtime_is_not_called_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path)
    said = learnable.Listening()
    monkeypatch.setattr(written, "unavailable", lambda runtime: None if runtime == "onnxruntime" else "not installed")
    files = replace(made, work=replace(made.work, progress=said)).exported(made.checkpoint).files
    assert [file.checked_in for file in files] == ["onnxruntime", None]
    assert said.lines == ["small.fp32.tflite could not be checked: none of its runtimes is usable here"]


def test_such_a_file_is_not_recalled_once_the_runtime_is_there(made: Made) -> None:
    def key(runtimes: dict[str, str]) -> str:
        inputs = {"data": made.data, "facts": made.facts, "weights": made.checkpoint, "runtimes": runtimes}
        return ingredients("pipeline.stages.export", "export", {"name": "small", **inputs}).key

    assert key({"litert": "absent"}) != key({"litert": "2.3.0"})
    assert key({"litert": "2.3.0"}) == key({"litert": "2.3.0"})


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN = """
from torch import nn

def build(input_shape, classes):
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.FractionalMaxPool2d(2, output_size=2))
    return nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
"""


def test_an_unknown_operation_is_named_with_its_layer(made: Made, tmp_path: Path) -> None:
    ref = learnable.network(tmp_path, UNKNOWN, name="unknown")
    network = build_network(ref, seed=0)
    checkpoint = save(network, made.work.store, ref=ref, metric=made.checkpoint.metric, val_metric=0.5)
    with pytest.raises(UnsupportedOpError, match=r"layer '0\.1': nn\.FractionalMaxPool2d is not supported") as caught:
        made.exported(checkpoint)
    assert caught.value.exit_code == 4
    assert "torch.nn" in caught.value.remedy


def with_one_weight_changed(
    model: onnx.ModelProto, metadata: Mapping[str, bytes] | None = None, **options: bool
) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weights = changed.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[0] += 100
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    return write_tflite(changed, metadata, **options)


def test_a_file_that_computes_something_else_is_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    if unavailable("litert"):
        pytest.skip("LiteRT is not usable here")
    monkeypatch.setattr(written, "write_tflite", with_one_weight_changed)
    with pytest.raises(ModelError, match=r"small\.fp32\.tflite: the written file computes something else") as caught:
        made.exported(made.checkpoint)
    assert "litert" in str(caught.value)
    assert "bug in karui" in caught.value.remedy


def test_wrong_integers_are_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load_from_string(made.content(made.exported(made.quantized).files[0]))
    zero_points = [each.name for each in model.graph.initializer if each.name.endswith(":z") and ".w" not in each.name]

    def damage(graph: onnx.ModelProto) -> bytes:
        for tensor in graph.graph.initializer:
            if tensor.name == zero_points[1]:  # of the first activation inside
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(60, np.uint8), tensor.name))
        return to_bytes(graph)

    monkeypatch.setattr(written, "to_bytes", damage)
    with pytest.raises(ModelError, match=r"small\.int8\.onnx: the written file computes something else"):
        made.exported(made.quantized)


def test_bytes_that_change_from_one_time_to_the_next_are_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100))
    monkeypatch.setattr(written, "to_bytes", lambda model: to_bytes(model) + bytes([next(times)]))
    with pytest.raises(ModelError, match="twice gave different bytes"):
        made.exported(made.checkpoint)


def test_a_layer_in_training_mode_is_not_exported_as_such(made: Made) -> None:
    """Dropout is gone, batch norm is folded."""
    graph = onnx.load_from_string(made.content(made.exported(made.checkpoint).files[0])).graph
    assert {node.op_type for node in graph.node} == {"Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"}
    assert isinstance(build_network(made.checkpoint.network, seed=0).get_submodule("body.8"), nn.Dropout)
