"""One case for the verdict, to be varied with ``dataclasses.replace``: a board, a float and an int8 ONNX file."""

from __future__ import annotations

from typing import Any

from pipeline.artifacts.evidence import (
    Answered,
    Compared,
    Comparison,
    How,
    Interval,
    Measurement,
    Metric,
    Place,
    Quantity,
)
from pipeline.artifacts.files import Exported, Program, Variant, Way
from pipeline.declare.recipe import RecipeLimits
from pipeline.declare.target import CpuSpec, MemorySpec, TargetLimits, TargetProfile
from pipeline.judging.case import Candidate, Case
from pipeline.judging.speed import TimeRatio
from pipeline.onboard.arrays import Signature, TensorSpec

ACCURACY = Metric(name="accuracy", unit="share", higher_is_better=True)
RMSE = Metric(name="RMSE", unit="", higher_is_better=False)
PSNR = Metric(name="PSNR", unit="dB", higher_is_better=True)

HERE = Place(how="measured", name="Other, 2 cores, x86_64")
BOARD = Place(how="measured", name="Board 4 at the bench", profile="board")

TORCH = Variant(format="torch", precision="fp32")
FLOAT_ONNX = Variant(format="onnx", precision="fp32")
INT8_ONNX = Variant(format="onnx", precision="int8", weight_bits=8)
SEVEN_ONNX = Variant(format="onnx", precision="int8", weight_bits=7)
REFERENCE = Way(variant=TORCH, program="torch")
FASTER, SAME, SLOWER = (Interval(value=v, low=v - 0.05, high=v + 0.05) for v in (0.6, 1.0, 1.2))


def signature() -> Signature:
    return Signature(
        inputs=(TensorSpec("input", "float32", (1, 8, 8), "CHW"),),
        outputs=(TensorSpec("output", "float32", (10,), "K"),),
    )


def exported(variant: Variant, size_bytes: int) -> Exported:
    return Exported(
        variant=variant,
        file="0" * 64,
        filename=f"digits.{variant.format}",
        size_bytes=size_bytes,
        signature=signature(),
    )


def answered(
    variant: Variant,
    program: Program,
    value: float,
    *,
    spread: float = 0.004,
    place: Place = HERE,
    others: dict[str, float] | None = None,
) -> Answered:
    return Answered(
        way=Way(variant=variant, program=program),
        version="1.32.0",
        place=place,
        samples=1000,
        value=value,
        low=value - spread,
        high=value + spread,
        others=others or {},
        outputs={},
        decisions="",
        score="",
        steps={},
    )


def measured(
    quantity: Quantity,
    way: Way,
    value: float,
    *,
    how: How = "measured",
    profile: str | None = "board",
    threads: int = 1,
    error: float = 0.0,
) -> Measurement:
    place = Place(how=how, name=profile or "Other, 2 cores, x86_64", profile=profile)
    return Measurement(
        quantity=quantity,
        way=way,
        threads=threads,
        place=place,
        value=value,
        low=value * (1 - error),
        high=value * (1 + error),
    )


def target(
    limits: dict[str, float] | None = None, *, isa: tuple[str, ...] = ("avx512_vnni",), **fields: Any
) -> TargetProfile:
    cpu = CpuSpec(architecture="x86_64", model="M", isa=isa, cores=4, clock_mhz=1000)
    return TargetProfile(
        name="board",
        title="Board 4",
        cpu=cpu,
        memory=MemorySpec(size_bytes=1),
        os="Linux",
        python="3.11",
        limits=TargetLimits.model_validate(limits or {}),
        **{"runtime": "onnxruntime", **fields},
    )


def comparison(value_float: float, difference: float, *, reach: float = 0.004) -> Comparison:
    """Compare with a 95 % interval that reaches so far to either side; the one-sided bounds reach less."""
    return Comparison(
        samples=1000,
        value_float=value_float,
        value_int8=value_float + difference,
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        p=0.06,
        detectable=0.006,
        agreement=0.99,
        method="exact McNemar test, Tango 1998",
        one_sided_low=difference - 0.8 * reach,
        one_sided_high=difference + 0.8 * reach,
    )


def compared(metric: Metric, found: Comparison, variant: Variant = INT8_ONNX) -> Compared:
    second = Way(variant=variant, program="onnxruntime")
    return Compared(metric=metric.name, first=REFERENCE, second=second, comparison=found)


def candidate(variant: Variant, value: float, size_bytes: int, **others: float) -> Candidate:
    return Candidate(
        way=Way(variant=variant, program="onnxruntime"),
        file=exported(variant, size_bytes),
        answered=answered(variant, "onnxruntime", value, others=others),
        latency_p95_ms=None,
        peak_memory_bytes=None,
    )


def beside_float(time: Interval, place: Place = HERE) -> TimeRatio:
    ways = (Way(variant=variant, program="onnxruntime") for variant in (INT8_ONNX, FLOAT_ONNX))
    way, than = ways
    return TimeRatio(way=way, than=than, time=time, place=place)


FP32 = candidate(FLOAT_ONNX, 0.98, 400_000)
INT8 = candidate(INT8_ONNX, 0.975, 100_000)

CASE = Case(
    target=target(),
    limits=RecipeLimits(accuracy_min=0.97, accuracy_drop_pp=1.0),
    metric=ACCURACY,
    fp32=FP32,
    int8=INT8,
    compared=(compared(ACCURACY, comparison(0.98, -0.005)),),
    same=1.0,
    saturating_layers=0,
    int8_time=beside_float(FASTER),
)
