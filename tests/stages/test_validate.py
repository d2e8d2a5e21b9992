"""One small trained network through validation: on this machine, for another one, without int8, with limits missed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import records
from pipeline.artifacts import Checkpoint, DataRef, ExportSet, NetworkRef, Quantized, Validated
from pipeline.checkpoints import save
from pipeline.data.load import reference
from pipeline.host import host_profile, machine_name
from pipeline.network import build_network
from pipeline.progress import Silent
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import fold, prepare
from pipeline.run import Work
from pipeline.runtimes import unavailable
from pipeline.spec import DatasetCard, QuantizeSpec, RecipeLimits, TargetLimits, TargetProfile
from pipeline.stages.export import export
from pipeline.stages.validate import validate
from pipeline.store import Store

CLASSES, TEST_SAMPLES = 3, 240
NETWORK = """
from torch import nn

def build(input_shape, classes):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )
"""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the stages before validation hand on."""

    work: Work
    data: DataRef
    checkpoint: Checkpoint
    quantized: Quantized
    exports: ExportSet


def samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, 2, 6, 6) of three patterns under noise that leaves some of them undecidable."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(0, 1, (CLASSES, 2, 6, 6))
    labels = np.arange(count) % CLASSES
    return (patterns[labels] + rng.normal(0, 1.5, (count, 2, 6, 6))).astype(np.float32), labels.astype(np.int64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("validate")
    (folder / "small.py").write_text(NETWORK)
    ref = NetworkRef(
        sha256=hashlib.sha256(NETWORK.encode()).hexdigest(),
        options={},
        input_shape=(2, 6, 6),
        classes=CLASSES,
        path=folder / "small.py",
    )
    work = Work(store=Store(folder / "store"), scratch=folder, progress=Silent(), device="cpu")
    network = build_network(ref, seed=0)
    x, labels = (torch.from_numpy(each) for each in samples(600, 0))
    weights = list(network.parameters())
    for _ in range(150):  # plain gradient descent: torch.optim takes seconds to import
        loss = torch.nn.functional.cross_entropy(network(x), labels)
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.data -= 0.3 * gradient
    checkpoint = save(network.eval(), work.store, ref=ref, val_accuracy=0.9)
    prepared = prepare(fold(network, ref.input_shape), weight_bits=8)
    calibrate(prepared, x[:256], QuantizeSpec.model_validate({"method": "ptq", "calibration": "min-max"}))
    quantized = Quantized(
        checkpoint=save(prepared, work.store, ref=ref, val_accuracy=0.9),
        method="ptq",
        weight_bits=8,
        ptq_val_accuracy=0.9,
        layers=(),
        float_layers=(),
    )
    exports = export(work, name="small", checkpoint=checkpoint, quantized=quantized)
    return Made(work=work, data=dataset(folder), checkpoint=checkpoint, quantized=quantized, exports=exports)


def dataset(folder: Path) -> DataRef:
    for split, count, seed in (("train", 60, 1), ("test", TEST_SAMPLES, 2)):
        x, y = samples(count, seed)
        np.savez(folder / f"{split}.npz", x=x, y=y)
    card = DatasetCard.model_validate(
        {
            "name": "patterns",
            "title": "Three patterns",
            "kind": "npz",
            "classes": ["left", "middle", "right"],
            "input": {"shape": [2, 6, 6]},
            "files": {split: {"path": f"{split}.npz"} for split in ("train", "test")},
        }
    )
    return reference(card, folder)


def board(limits: dict[str, float] | None = None) -> TargetProfile:
    """Describe a board that no machine running this test is."""
    host = host_profile()
    cpu = host.cpu.model_copy(update={"model": "BCM0000", "architecture": "armv7l", "isa": ("neon",)})
    update = {"name": "board", "title": "Board", "cpu": cpu, "limits": TargetLimits.model_validate(limits or {})}
    return host.model_copy(update=update)


def validated(made: Made, target: TargetProfile, limits: dict[str, float] | None = None) -> Validated:
    return validate(
        made.work,
        target=target,
        data=made.data,
        exports=made.exports,
        float_checkpoint=made.checkpoint,
        quantized=made.quantized,
        limits=RecipeLimits.model_validate(limits or {}),
        machine=machine_name(),
    )


@pytest.fixture(scope="module")
def on_host(made: Made) -> Validated:
    return validated(made, host_profile(), {"accuracy_min": 0.5, "accuracy_drop_pp": 5})


@pytest.fixture(scope="module")
def for_board(made: Made) -> Validated:
    return validated(made, board({"latency_p95_ms": 1.0}), {"accuracy_min": 0.5, "accuracy_drop_pp": 5})


def test_every_way_is_a_column(made: Made, on_host: Validated) -> None:
    artifacts = [each.artifact for each in on_host.columns]
    assert artifacts[:2] == ["torch-fp32", "torch-fake-quant"]
    usable = [name for name in ("litert", "tflite-runtime") if not unavailable(name)]
    assert sorted(artifacts[2:]) == sorted(["onnx-fp32", "onnx-int8", *["tflite-fp32", "tflite-int8"] * len(usable)])
    assert [name for name, _ in on_host.skipped_runtimes] == [
        n for n in ("litert", "tflite-runtime") if n not in usable
    ]
    for each in on_host.columns:
        outputs = made.work.store.get_array(each.outputs)
        assert outputs.shape == (TEST_SAMPLES, CLASSES)
        right = outputs.argmax(1) == samples(TEST_SAMPLES, 2)[1]
        assert each.accuracy == pytest.approx(right.mean())
        assert each.low < each.accuracy < each.high  # trained, and not perfect
        assert (each.output_scale is None) is ("fp32" in each.artifact)


def test_what_was_trained_is_what_runs(on_host: Validated) -> None:
    first = [each for each in on_host.agreements if each.first == "torch-fake-quant"]
    assert len(first) >= 2
    for each in first:
        # a tie of two classes may break the other way; LiteRT rounds its fixed-point multiplier once more
        assert each.same_class >= 0.99
        assert each.max_steps <= (1 if "onnxruntime" in each.second else 2)
    others = [each for each in on_host.agreements if each not in first]
    assert all("onnxruntime" in each.first and "tflite" in each.second for each in others)


def test_comparison_is_paired_over_the_whole_split(made: Made, on_host: Validated) -> None:
    got = on_host.comparison
    assert got is not None
    columns = {each.artifact: made.work.store.get_array(each.outputs).argmax(1) for each in on_host.columns}
    labels = samples(TEST_SAMPLES, 2)[1]
    float_right, int8_right = columns["torch-fp32"] == labels, columns["onnx-int8"] == labels
    assert got.samples == TEST_SAMPLES
    assert got.difference_pp == pytest.approx(100 * (int8_right.mean() - float_right.mean()))
    assert got.low_pp <= got.difference_pp <= got.high_pp
    assert got.agreement == pytest.approx((columns["torch-fp32"] == columns["onnx-int8"]).mean())
    assert [row[:2] for row in on_host.per_class] == [("left", 80), ("middle", 80), ("right", 80)]
    assert sum(row[1] * row[2] for row in on_host.per_class) == pytest.approx(float_right.sum())


def test_the_executed_graph_is_read_off_the_runtimes(on_host: Validated) -> None:
    assert set(on_host.executed) == {"onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"}
    assert [node for node in on_host.executed["onnx-int8"] if not node.integer] == []
    assert not any(node.integer for node in on_host.executed["onnx-fp32"])
    assert len(on_host.saturation) == 3


def test_on_the_target_itself_latency_is_measured(made: Made, on_host: Validated) -> None:
    assert on_host.machine_is_target
    rows = [each for each in on_host.measurements if each.what == "latency_p95"]
    assert {each.artifact for each in rows} == set(on_host.executed)
    for each in rows:
        assert each.how == "measured"
        assert each.where == machine_name()
        assert each.value is not None
        assert each.low is not None
        assert 0 < each.low <= each.value
    for latency in on_host.latencies:
        assert len(made.work.store.get_array(latency.samples_ms)) >= 100
        assert latency.threads == 1
    sizes = [each for each in on_host.measurements if each.what == "file_size"]
    assert sorted(each.artifact for each in sizes) == sorted(on_host.executed)


def test_another_machines_latency_is_not_the_targets(for_board: Validated) -> None:
    assert not for_board.machine_is_target
    rows = [each for each in for_board.measurements if each.where == "board"]
    assert {(each.what, each.artifact) for each in rows} == {
        (what, key) for what in ("latency_p50", "latency_p95") for key in ("onnx-fp32", "onnx-int8")
    }
    assert all(each.value is None and each.how == "not measured" for each in rows)
    hints = [each for each in for_board.measurements if each.what == "latency_p95" and each.how == "measured"]
    assert hints
    assert all(each.where == machine_name() for each in hints)
    verdict = for_board.verdict
    assert verdict.ship == "onnx-int8"  # whatever the times here
    assert {check.name: check.passed for check in verdict.checks}["latency p95 (int8)"] is None
    assert "its latency on Board was not measured (a hint: on " in verdict.why


def test_the_verdict_on_the_target_follows_its_latency(on_host: Validated) -> None:
    verdict = on_host.verdict
    assert verdict.passed
    assert verdict.ship in ("onnx-int8", "onnx-fp32")  # a network this small may well be slower in int8
    assert ("slower here" in verdict.why) is (verdict.ship == "onnx-fp32")


def test_a_missed_limit_is_a_result(made: Made) -> None:
    verdict = validated(made, board({"size_bytes": 100}), {"accuracy_min": 0.999}).verdict
    assert not verdict.passed
    assert verdict.ship is None
    assert verdict.why.startswith("not fit: int8 misses ")


def test_a_litert_target_gets_the_tflite_file(made: Made) -> None:
    if unavailable("litert"):
        pytest.skip(f"LiteRT: {unavailable('litert')}")
    got = validated(made, board().model_copy(update={"runtime": "litert"}))
    assert got.verdict.ship == "tflite-int8"
    assert "litert" in got.verdict.why


def test_without_int8(made: Made) -> None:
    floats = replace(made.exports, files=tuple(file for file in made.exports.files if file.precision == "fp32"))
    none = replace(made.quantized, method="none", checkpoint=made.checkpoint)
    got = validated(replace(made, exports=floats, quantized=none), board())
    assert (got.comparison, got.agreements, got.saturation) == (None, (), ())
    assert {each.artifact for each in got.columns} == {"torch-fp32", "onnx-fp32", "tflite-fp32"}
    assert got.verdict.ship == "onnx-fp32"
    assert got.verdict.why.startswith("there is no int8 file; ")
    assert all(row[3] is None for row in got.per_class)


def test_it_survives_the_record(on_host: Validated) -> None:
    assert records.from_json(Validated, records.to_json(on_host)) == on_host
