"""A plausible run, made by arithmetic: real arrays in a real store, no training.

N test samples, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import (
    Agreement,
    Check,
    Column,
    DataRef,
    ExecutedOp,
    Exported,
    ExportSet,
    LatencySamples,
    LayerCost,
    Measurement,
    NetworkRef,
    Outcome,
    SaturationRow,
    StageNote,
    TensorSpec,
    Validated,
    Verdict,
)
from pipeline.report.evidence import Samples
from pipeline.spec import DatasetCard, InputSpec
from pipeline.stats import compare_paired, wilson_interval
from pipeline.store import Store
from tests.report.builder_training import SHA, checkpoint, finetuned, history, pruned, quantized

MACHINE = "Example CPU 3.0 GHz (4 cores)"
HOSTILE = "<script>alert(1)</script>"
DIGITS = tuple(str(digit) for digit in range(10))
_RUNTIMES = {
    "onnx-fp32": ("onnxruntime 1.32.0",),
    "onnx-int8": ("onnxruntime 1.32.0",),
    "tflite-fp32": ("litert 2.3.0", "tflite-runtime 2.14.0"),
    "tflite-int8": ("litert 2.3.0", "tflite-runtime 2.14.0"),
}
_SIZE_BYTES = {"onnx-fp32": 93_301, "onnx-int8": 30_120, "tflite-fp32": 94_512, "tflite-int8": 31_744}
_P50_MS = {"onnx-fp32": 0.0412, "onnx-int8": 0.0291, "tflite-fp32": 0.0533, "tflite-int8": 0.0377}
_LAYERS = (
    LayerCost(layer="stages.0.conv1", op="Conv2d", output_shape=(24, 8, 8), parameters=240, macs=13_824),
    LayerCost(layer="stages.0.relu1", op="ReLU", output_shape=(24, 8, 8), parameters=0, macs=0),
    LayerCost(layer="stages.0.conv2", op="Conv2d", output_shape=(24, 8, 8), parameters=5_208, macs=331_776),
    LayerCost(layer="stages.0.pool", op="MaxPool2d", output_shape=(24, 4, 4), parameters=0, macs=0),
    LayerCost(layer="stages.1.conv1", op="Conv2d", output_shape=(48, 4, 4), parameters=10_416, macs=165_888),
    LayerCost(layer="stages.1.pool", op="MaxPool2d", output_shape=(48, 2, 2), parameters=0, macs=0),
    LayerCost(layer="stages.2.conv1", op="Conv2d", output_shape=(64, 2, 2), parameters=27_712, macs=110_592),
    LayerCost(layer="flatten", op="Flatten", output_shape=(64,), parameters=0, macs=0),
    LayerCost(layer="head", op="Linear", output_shape=(10,), parameters=650, macs=640),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """A run and what is needed to report it."""

    outcome: Outcome
    store: Store
    samples: Samples


def make(
    folder: Path,
    *,
    class_names: Sequence[str] = DIGITS,
    samples: int = 360,
    sample_shape: tuple[int, ...] = (1, 8, 8),
    targets: Sequence[tuple[str, int]] = (("raspberry-pi-4b", 8),),
    int8: bool = True,
    timed: bool = True,
    layers: Sequence[LayerCost] = _LAYERS,
    run: str = "digits",
    separation: float = 2.4,
) -> Made:
    """Make a run with these classes and targets (name, weight bits); its store lies in ``folder``.

    ``separation``: by how much the right class stands out of the noise.
    """
    store = Store(folder / "store")
    rng = np.random.default_rng(7)
    labels = rng.integers(0, len(class_names), samples)
    labels[: len(class_names)] = np.arange(len(class_names))  # every class is there
    raw = _raw(rng, labels, sample_shape)
    logits = _logits(rng, labels, len(class_names), separation)  # (N, K)
    widths = sorted({bits for _, bits in targets}, reverse=True)
    network = NetworkRef(
        sha256=SHA, options={"width": 32}, input_shape=sample_shape, classes=len(class_names), path=Path("cnn.py")
    )
    trained = checkpoint(network, history("train", 30, 0.3, 0.976))
    found = tuple(
        _validated(
            store=store,
            target=name,
            bits=bits,
            labels=labels,
            logits=logits,
            class_names=class_names,
            int8=int8,
            timed=timed,
            layers=layers,
        )
        for name, bits in targets
    )
    outcome = Outcome(
        run=run,
        recipe="digits",
        summary="Handwritten digits, 8x8 pixels; starts from a network that knows printed digits",
        data=_data(sample_shape),
        network=network,
        trained=trained,
        finetuned=finetuned(network),
        pruned=pruned(network),
        quantized={bits: quantized(network, bits, layers, int8=int8) for bits in widths},
        exports={bits: _exports(bits, layers, int8=int8) for bits in widths},
        targets=found,
        target_bits=dict(targets),
        notes=(
            StageNote(stage="train", recalled=True, duration_s=12.3, summary="97.6 % validation accuracy"),
            StageNote(stage="finetune", recalled=False, duration_s=21.0, summary="98.6 % validation accuracy"),
            StageNote(stage="validate-raspberry-pi-4b", recalled=False, duration_s=125.0, summary="ship onnx-int8"),
        ),
        versions={"python": "3.11.2", "torch": "2.13.0", "onnxruntime": "1.32.0"},
    )
    given = Samples(labels=labels, class_names=tuple(class_names), read=lambda indices: raw[indices])
    return Made(outcome=outcome, store=store, samples=given)


# ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _raw(rng: np.random.Generator, labels: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    patterns = rng.integers(0, 17, (labels.max() + 1, *shape))
    return np.asarray(np.clip(patterns[labels] + rng.integers(-3, 4, (len(labels), *shape)), 0, 16), np.uint8)


def _logits(
    rng: np.random.Generator, labels: NDArray[np.int64], classes: int, separation: float
) -> NDArray[np.float32]:
    logits = rng.normal(0, 1, (len(labels), classes))
    logits[np.arange(len(labels)), labels] += separation + 0.55 * np.log(classes)
    return logits.astype(np.float32)


def _data(shape: tuple[int, ...]) -> DataRef:
    card = DatasetCard(
        name="digits",
        title="Optical recognition of handwritten digits",
        kind="npz",
        licence="CC BY 4.0",
        source="https://archive.ics.uci.edu/dataset/80",
        input=InputSpec(shape=shape),
    )
    return DataRef(card=card, digest=SHA, folder=Path("calibration_data"))


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _exports(bits: int, layers: Sequence[LayerCost], *, int8: bool) -> ExportSet:
    files = tuple(
        Exported(
            key=key,
            file=SHA,
            filename=f"digits-{key.split('-')[1]}{'' if bits == 8 else f'-w{bits}'}.{key.split('-')[0]}",
            format="onnx" if key.startswith("onnx") else "tflite",
            precision="int8" if key.endswith("int8") else "fp32",
            size_bytes=size_bytes,
            input=TensorSpec(name="input", dtype="float32", shape=(None, 1, 8, 8)),
            output=TensorSpec(name="logits", dtype="float32", shape=(None, 10)),
            opset=13 if key.startswith("onnx") else None,
        )
        for key, size_bytes in _SIZE_BYTES.items()
        if int8 or not key.endswith("int8")
    )
    return ExportSet(weight_bits=bits, files=files, layers=tuple(layers))


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _validated(
    *,
    store: Store,
    target: str,
    bits: int,
    labels: NDArray[np.int64],
    logits: NDArray[np.float32],
    class_names: Sequence[str],
    int8: bool,
    timed: bool,
    layers: Sequence[LayerCost],
) -> Validated:
    step = np.float32(np.ptp(logits) / (255 if bits == 8 else 31))
    coarse = np.rint(logits / step) * step + np.random.default_rng(bits).normal(0, 0.12, logits.shape)
    rounded = coarse.astype(np.float32)  # (N, K)
    keys = [key for key in _RUNTIMES if int8 or not key.endswith("int8")]
    ways = [("torch-fp32", "torch 2.13.0"), *([("torch-fake-quant", "torch 2.13.0")] if int8 else [])]
    ways += [(key, runtime) for key in keys for runtime in _RUNTIMES[key]]
    columns = tuple(
        _column(store, way, logits if way[0].endswith("fp32") else rounded, labels, float(step)) for way in ways
    )
    by_float, by_int8 = logits.argmax(1), rounded.argmax(1)
    comparison = compare_paired(by_float == labels, by_int8 == labels, same_class=by_float == by_int8) if int8 else None
    return Validated(
        target=target,
        machine=MACHINE,
        machine_is_target=target == "host",
        columns=columns,
        comparison=comparison,
        agreements=tuple(
            Agreement(first="torch-fake-quant", second=f"{key} in {runtime}", same_class=1.0, max_steps=number)
            for number, (key, runtime) in enumerate(ways[2:])
            if key.endswith("int8")
        ),
        per_class=tuple(
            (
                name,
                int((labels == index).sum()),
                float((by_float == labels)[labels == index].mean()),
                float((by_int8 == labels)[labels == index].mean()) if int8 else None,
            )
            for index, name in enumerate(class_names)
        ),
        measurements=tuple(_measurements(target, ways, timed=timed)),
        latencies=tuple(_latencies(store, ways)) if timed else (),
        executed={key: _executed(layers, integer=True) for key in keys if key.endswith("int8")},
        saturation=tuple(
            SaturationRow(layer=cost.layer, largest_pair=pair, can_saturate=pair > 32_767)
            for cost, pair in zip((cost for cost in layers if cost.macs), (30_100, 52_020, 31_000), strict=False)
        )
        if int8
        else (),
        skipped_runtimes=(),
        verdict=_verdict(target, comparison.difference_pp if comparison else None, timed=timed),
    )


def _column(
    store: Store, way: tuple[str, str], outputs: NDArray[np.float32], labels: NDArray[np.int64], step: float
) -> Column:
    artifact, runtime = way
    right = wilson_interval(int((outputs.argmax(1) == labels).sum()), len(labels))
    return Column(
        artifact=artifact,
        runtime=runtime,
        accuracy=right.value,
        low=right.low,
        high=right.high,
        outputs=store.put_array(outputs),
        output_scale=None if artifact.endswith("fp32") else step,
    )


def _measurements(target: str, ways: Sequence[tuple[str, str]], *, timed: bool) -> list[Measurement]:
    found = []
    for artifact, runtime in ways:
        if artifact.startswith("torch"):
            continue
        about = Measurement(
            what="", artifact=artifact, runtime=runtime, value=None, unit="ms", how="measured", where=MACHINE
        )
        time_ms = _P50_MS[artifact] * (1.7 if runtime.startswith("tflite-runtime") else 1)
        if timed:
            for what, factor in (("latency_p50", 1.0), ("latency_p95", 1.31)):
                value = time_ms * factor
                found.append(dataclasses.replace(about, what=what, value=value, low=0.98 * value, high=1.04 * value))
            found.append(dataclasses.replace(about, what="peak_memory", value=1_310_720.0, unit="bytes"))
        if artifact.endswith("int8"):
            found.append(dataclasses.replace(about, what="same_class", value=1.0, unit="share"))
        if target != "host" and artifact.startswith("onnx"):
            missing = dataclasses.replace(about, runtime="onnxruntime", how="not measured", where=target)
            found += [dataclasses.replace(missing, what=what) for what in ("latency_p50", "latency_p95")]
    return found


def _latencies(store: Store, ways: Sequence[tuple[str, str]]) -> list[LatencySamples]:
    rng = np.random.default_rng(3)
    return [
        LatencySamples(
            artifact=artifact,
            runtime=runtime,
            threads=1,
            samples_ms=store.put_array(
                _P50_MS[artifact]
                * (1.7 if runtime.startswith("tflite-runtime") else 1)
                * (1 + rng.gamma(1.5, 0.06, 2000))
            ),
        )
        for artifact, runtime in ways
        if not artifact.startswith("torch")
    ]


def _executed(layers: Sequence[LayerCost], *, integer: bool) -> tuple[ExecutedOp, ...]:
    kernels = {"Conv2d": "QLinearConv", "Linear": "QGemm", "MaxPool2d": "MaxPool", "Flatten": "Reshape"}
    nodes = [
        ExecutedOp(name=f"{cost.layer}_quant", op=kernels[cost.op], integer=integer)
        for cost in layers
        if cost.op in kernels
    ]
    return (ExecutedOp(name="input.q", op="QuantizeLinear", integer=True), *nodes)


def _verdict(target: str, difference_pp: float | None, *, timed: bool) -> Verdict:
    key = "onnx-int8" if difference_pp is not None else "onnx-fp32"
    name = key.split("-")[1]
    checks = [
        Check(name=f"accuracy ({name})", limit=97.0, got=97.5, unit="%", passed=True),
        Check(name=f"file size ({name})", limit=8 * 2**20, got=_SIZE_BYTES[key], unit="bytes", passed=True),
        Check(name=f"latency p95 ({name})", limit=5.0, got=None, unit="ms", passed=None),
    ]
    if difference_pp is not None:
        kept = -difference_pp <= 1.0
        checks.insert(1, Check(name="accuracy drop (int8)", limit=1.0, got=-difference_pp, unit="pp", passed=kept))
    if timed:
        checks.append(Check(name=f"peak memory ({name})", limit=2**28, got=1_310_720.0, unit="bytes", passed=True))
    why = (
        f"{name} in onnxruntime meets every limit that could be measured: 97.50 % accuracy; its latency on {target} "
        f"was not measured (a hint: on {MACHINE} int8 takes 0.71 times as long as float, 0.69 … 0.73)"
    )
    return Verdict(target=target, checks=tuple(checks), ship=key, why=why)
