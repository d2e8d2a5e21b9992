"""Every way a verdict can go, and the words that go with it."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.artifacts import Comparison
from pipeline.spec import CpuSpec, MemorySpec, RecipeLimits, RuntimeName, TargetLimits, TargetProfile
from pipeline.stats import Interval
from pipeline.verdict import Candidate, Evidence, decide

FP32 = Candidate(
    key="onnx-fp32",
    precision="fp32",
    runtime="onnxruntime 1.32.0",
    accuracy=0.98,
    size_bytes=400_000,
    peak_memory_bytes=10_000_000,
    latency_p95_ms=None,
)
INT8 = dataclasses.replace(FP32, key="onnx-int8", precision="int8", accuracy=0.975, size_bytes=100_000)
FASTER, SAME, SLOWER = (Interval(value=v, low=v - 0.05, high=v + 0.05) for v in (0.6, 1.0, 1.2))


def target(limits: dict[str, float] | None = None, *, isa: tuple[str, ...] = ("avx512_vnni",)) -> TargetProfile:
    cpu = CpuSpec(architecture="x86_64", model="M", isa=isa, cores=4, clock_mhz=1000)
    return TargetProfile(
        name="board",
        title="Board 4",
        cpu=cpu,
        memory=MemorySpec(size_bytes=1),
        os="Linux",
        python="3.11",
        threads=1,
        limits=TargetLimits.model_validate(limits or {}),
    )


def comparison(difference_pp: float = -0.5) -> Comparison:
    return Comparison(
        samples=1000,
        accuracy_float=0.98,
        accuracy_int8=0.98 + difference_pp / 100,
        difference_pp=difference_pp,
        low_pp=difference_pp - 0.4,
        high_pp=difference_pp + 0.4,
        mcnemar_p=0.06,
        detectable_pp=0.6,
        agreement=0.99,
    )


EVIDENCE = Evidence(
    target=target(),
    limits=RecipeLimits(accuracy_min=0.97, accuracy_drop_pp=1.0),
    machine="Other, 2 cores, x86_64",
    machine_is_target=False,
    fp32=FP32,
    int8=INT8,
    comparison=comparison(),
    same_class=1.0,
    saturating_layers=0,
    int8_time=FASTER,
)
THERE = dataclasses.replace(EVIDENCE, machine_is_target=True)
replace = dataclasses.replace


def test_int8_ships_when_it_meets_the_limits() -> None:
    verdict = decide(EVIDENCE)
    assert (verdict.ship, verdict.passed, verdict.target) == ("onnx-int8", True, "board")
    assert [check.name for check in verdict.checks] == [
        "accuracy (fp32)",
        "accuracy (int8)",
        "accuracy drop (int8)",
        "same class as trained (int8)",
    ]
    assert verdict.why == (
        "int8 in onnxruntime 1.32.0 meets every limit: 97.50 % accuracy, -0.50 pp against float "
        "(95 % interval -0.90 … -0.10), 25 % of its bytes; its latency on Board 4 was not measured "
        "(a hint: on Other, 2 cores, x86_64 int8 takes 0.60 times as long as float, 0.55 … 0.65)"
    )


@pytest.mark.parametrize(("time", "ship"), [(FASTER, "onnx-int8"), (SAME, "onnx-int8"), (SLOWER, "onnx-fp32")])
def test_slower_int8_does_not_ship_where_it_was_measured_on_the_target(time: Interval, ship: str) -> None:
    verdict = decide(replace(THERE, int8_time=time))
    assert (verdict.ship, verdict.passed) == (ship, True)
    if ship == "onnx-fp32":
        assert verdict.why.startswith("not int8, which is slower here (int8 takes 1.20 times as long as float, ")


def test_another_machines_latency_decides_nothing() -> None:
    verdict = decide(replace(EVIDENCE, int8_time=SLOWER))
    assert verdict.ship == "onnx-int8"
    assert "a hint" in verdict.why


def test_slower_int8_still_ships_when_fp32_is_too_large() -> None:
    small = target({"size_bytes": 200_000})
    assert decide(replace(THERE, target=small, int8_time=SLOWER)).ship == "onnx-int8"


def test_the_stricter_drop_counts() -> None:
    strict = replace(EVIDENCE, target=target({"accuracy_drop_pp": 0.2}))
    verdict = decide(strict)
    assert (verdict.ship, verdict.passed) == ("onnx-fp32", False)  # a limit was missed, though there is a way out
    assert verdict.why == (
        "not int8, which misses accuracy drop (0.50 pp, at most 0.20 pp allowed); "
        "fp32 in onnxruntime 1.32.0 meets every limit: 98.00 % accuracy"
    )
    assert [(check.name, check.passed) for check in verdict.checks] == [
        ("accuracy (fp32)", True),
        ("accuracy (int8)", True),
        ("accuracy drop (int8)", False),
        ("same class as trained (int8)", True),
    ]
    assert decide(replace(EVIDENCE, target=target({"accuracy_drop_pp": 5}))).checks[2].limit == 1.0


def test_without_an_int8_file_fp32_ships() -> None:
    verdict = decide(replace(EVIDENCE, int8=None, comparison=None, same_class=None, int8_time=None))
    assert (verdict.ship, verdict.passed) == ("onnx-fp32", True)
    assert verdict.why.startswith("there is no int8 file; fp32 in onnxruntime 1.32.0 meets every limit")


def test_nothing_fits() -> None:
    tiny = target({"size_bytes": 1000})
    verdict = decide(replace(EVIDENCE, target=tiny))
    assert (verdict.ship, verdict.passed) == (None, False)
    assert verdict.why == (
        "not fit: int8 misses file size (97.7 KiB, at most 1.0 KiB allowed); "
        "fp32 misses file size (390.6 KiB, at most 1.0 KiB allowed)"
    )
    names = [check.name for check in verdict.checks]
    assert len(set(names)) == len(names)
    assert {"file size (int8)", "file size (fp32)"} <= set(names)


def test_a_poor_network_fits_nowhere() -> None:
    verdict = decide(replace(EVIDENCE, fp32=replace(FP32, accuracy=0.5), int8=replace(INT8, accuracy=0.5)))
    assert verdict.ship is None
    assert "accuracy (50.00 %, at least 97.00 % wanted)" in verdict.why


def test_a_latency_that_was_not_measured_is_neither_met_nor_missed() -> None:
    limited = target({"latency_p95_ms": 2.0})
    unknown = decide(replace(EVIDENCE, target=limited))
    assert unknown.checks[-1].passed is None
    assert unknown.checks[-1].got is None
    assert unknown.passed
    assert "meets every limit that could be measured" in unknown.why
    known = replace(THERE, target=limited, int8=replace(INT8, latency_p95_ms=1.5), fp32=replace(FP32, latency_p95_ms=3))
    assert decide(known).passed
    late = replace(known, int8=replace(INT8, latency_p95_ms=2.5))
    assert decide(late).why == (
        "not fit: int8 misses latency p95 (2.500 ms, at most 2.000 ms allowed); "
        "fp32 misses latency p95 (3.000 ms, at most 2.000 ms allowed)"
    )


@pytest.mark.parametrize(("runtime", "ship"), [("onnxruntime", "onnx-fp32"), ("litert", "onnx-int8")])
def test_saturation_counts_where_pairs_are_added_in_16_bits(runtime: RuntimeName, ship: str) -> None:
    avx2 = target(isa=("avx2",)).model_copy(update={"runtime": runtime})
    assert decide(replace(EVIDENCE, target=avx2, saturating_layers=3)).ship == ship
    assert decide(replace(EVIDENCE, target=avx2, saturating_layers=0)).ship == "onnx-int8"
    assert decide(replace(EVIDENCE, saturating_layers=3)).ship == "onnx-int8"  # VNNI


def test_a_file_that_computes_something_else_does_not_ship() -> None:
    assert decide(replace(EVIDENCE, same_class=0.99)).ship == "onnx-fp32"


def test_limits_are_met_exactly_in_spite_of_binary_fractions() -> None:
    exact = replace(EVIDENCE, comparison=comparison(100 * (0.96 - 0.97)), int8=replace(INT8, accuracy=0.97))
    assert decide(exact).ship == "onnx-int8"


def test_a_target_may_want_float() -> None:
    wants = EVIDENCE.target.model_copy(update={"precision": "fp32"})
    assert decide(replace(EVIDENCE, target=wants)).ship == "onnx-fp32"
    small = wants.model_copy(update={"limits": TargetLimits.model_validate({"size_bytes": 200_000})})
    verdict = decide(replace(EVIDENCE, target=small))
    assert (verdict.ship, verdict.passed) == ("onnx-int8", False)
    assert verdict.why.startswith("not fp32, which misses file size")


def test_no_runtime_for_the_targets_files() -> None:
    verdict = decide(replace(EVIDENCE, fp32=None, int8=None, cannot_run="litert is not installed"))
    assert (verdict.ship, verdict.why) == (None, "not fit: litert is not installed")
