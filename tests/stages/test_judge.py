"""judge: which numbers a target is judged by, from what was observed; no file is opened."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from pipeline.artifacts.evidence import (
    Agreement,
    Answered,
    Beside,
    CannotRun,
    Measurement,
    Observed,
    Place,
    Predicted,
    Quantity,
    Saturation,
    SaturationRow,
    Timing,
)
from pipeline.artifacts.files import ExportSet, Program, Variant, Way
from pipeline.artifacts.outcome import Judged
from pipeline.declare.recipe import RecipeLimits
from pipeline.declare.target import TargetProfile
from pipeline.runs.run import Work
from pipeline.stages.judge import judge
from tests.judging.cases import (
    ACCURACY,
    BOARD,
    FLOAT_ONNX,
    HERE,
    INT8_ONNX,
    REFERENCE,
    SEVEN_ONNX,
    TORCH,
    answered,
    compared,
    comparison,
    exported,
    measured,
    target,
)

LATENCIES: tuple[Quantity, ...] = ("latency_p50_ms", "latency_p95_ms")
NO_WORK = cast("Work", None)  # judging uses neither store nor scratch
TFLITE, TFLITE_INT8 = Variant(format="tflite", precision="fp32"), dataclasses.replace(INT8_ONNX, format="tflite")
SIZES = {FLOAT_ONNX: 400_000, TFLITE: 410_000, INT8_ONNX: 100_000, TFLITE_INT8: 110_000, SEVEN_ONNX: 99_000}
VALUES = {FLOAT_ONNX: 0.98, TFLITE: 0.98, INT8_ONNX: 0.979, TFLITE_INT8: 0.979, SEVEN_ONNX: 0.978}


def predicted() -> tuple[Predicted, ...]:
    torch = [(TORCH, 0.98)]
    torch += [(Variant(format="torch", precision="int8", weight_bits=bits), 0.979) for bits in (8, 7)]
    return tuple(
        Predicted(metric=ACCURACY, answered=answered(variant, "torch", value), chosen={}) for variant, value in torch
    )


def exports() -> tuple[ExportSet, ...]:
    sets: tuple[tuple[Any, int, tuple[Variant, ...]], ...] = (
        ("fp32", 32, (FLOAT_ONNX, TFLITE)),
        ("int8", 8, (INT8_ONNX, TFLITE_INT8)),
        ("int8", 7, (SEVEN_ONNX,)),
    )
    return tuple(
        ExportSet(precision=name, weight_bits=bits, files=tuple(exported(v, SIZES[v]) for v in files), layers=())
        for name, bits, files in sets
    )


def observed(
    place: Place = HERE,
    *,
    litert: float = 1.0,
    programs: Sequence[Program] = ("onnxruntime", "litert", "tflite-runtime"),
    measurements: Sequence[Measurement] = (),
    slower: bool = False,
) -> Observed:
    ways = [Way(variant=v, program=p) for v in SIZES for p in programs if (p == "onnxruntime") == (v.format == "onnx")]
    answers = tuple(answered(way.variant, way.program, VALUES[way.variant], place=place) for way in ways)
    return Observed(
        place=place,
        metric=ACCURACY,
        answers=answers,
        comparisons=tuple(
            dataclasses.replace(compared(ACCURACY, comparison(0.98, VALUES[way.variant] - 0.98)), second=way)
            for way in ways
        ),
        agreements=tuple(_agreement(each) for each in answers if each.way.variant.precision == "int8"),
        measurements=tuple(measurements),
        timings=tuple(_timing(way, slower=slower, litert=litert) for way in ways),
        executed=(),
        saturation=tuple(
            Saturation(
                variant=variant, rows=(SaturationRow(layer="conv", largest_pair=pair, can_saturate=pair > 32_767),)
            )
            for variant, pair in ((INT8_ONNX, 52_000), (SEVEN_ONNX, 26_000))
        ),
        not_usable={} if "litert" in programs else {"litert": "not installed"},
    )


def _agreement(each: Answered) -> Agreement:
    trained = Variant(format="torch", precision="int8", weight_bits=each.way.variant.weight_bits)
    same = 0.999 if trained.weight_bits == 8 else 0.998
    return Agreement(first=Way(variant=trained, program="torch"), second=each.way, same=same, max_steps=1, mean_steps=0)


def _timing(way: Way, *, slower: bool, litert: float = 1.0) -> Timing:
    base = 1.0 if way.variant.precision == "fp32" else 1.5 if slower else 0.5
    base *= litert if way.program == "litert" else 1.0
    medians = tuple(base * (1 + number / 1000) for number in range(10))
    return Timing(way=way, version="1", threads=1, session_medians_ms=medians, samples_ms="")


def judged(profile: TargetProfile, *seen: Observed, limits: RecipeLimits | None = None) -> Judged:
    return judge(
        NO_WORK,
        target=profile,
        limits=limits or RecipeLimits(accuracy_min=0.97, accuracy_drop_pp=1),
        exports=exports(),
        predicted=predicted(),
        observed=seen,
    )


def test_a_target_gets_the_files_of_its_weight_bits() -> None:
    eight, seven = judged(target(), observed()), judged(target(weight_bits=7), observed())
    assert eight.verdict.ship == Way(variant=INT8_ONNX, program="onnxruntime")
    assert seven.verdict.ship == Way(variant=SEVEN_ONNX, program="onnxruntime")
    assert seven.compared == (REFERENCE, seven.verdict.ship)
    drops = [check.got for each in (eight, seven) for check in each.verdict.checks if check.quantity == "accuracy drop"]
    assert drops == pytest.approx([0.1, 0.2])
    same = [check.got for check in seven.verdict.checks if check.quantity == "same decision as trained"]
    assert same == [0.998]


def test_seven_bit_weights_save_a_target_that_saturates() -> None:
    eight, seven = (judged(target(weight_bits=bits, isa=("avx2",)), observed()) for bits in (8, 7))
    assert eight.verdict.ship == Way(variant=FLOAT_ONNX, program="onnxruntime")
    assert "layers that can overflow 16 bits (1, at most 0 allowed)" in eight.verdict.why
    assert seven.verdict.ship == Way(variant=SEVEN_ONNX, program="onnxruntime")


def test_the_targets_runtime_or_the_other_one_of_its_format() -> None:
    profile = target(runtime="litert")
    assert judged(profile, observed()).verdict.ship == Way(variant=TFLITE_INT8, program="litert")
    without = judged(profile, observed(programs=("onnxruntime", "tflite-runtime")))
    assert without.verdict.ship == Way(variant=TFLITE_INT8, program="tflite-runtime")
    nothing = judged(profile, observed(programs=("onnxruntime",)))
    assert nothing.verdict.ship is None
    assert nothing.verdict.why == "not fit: litert cannot be used here (not installed)"


def failed(*programs: Program) -> tuple[CannotRun, ...]:
    """Return what a target says of all files in some runtimes."""
    ways = [each.way for each in observed().answers if each.way.program in programs]
    return tuple(CannotRun(way=way, said=f"{way.program} 1.0 was ended by SIGILL") for way in ways)


def there(place: Place, *programs: Program) -> Observed:
    """Return what an instrument observed that had no answers from some runtimes."""
    without = observed(place, programs=[each for each in PROGRAMS if each not in programs])
    return dataclasses.replace(without, cannot_run=failed(*programs), not_usable={}, timings=(), measurements=())


PROGRAMS: tuple[Program, ...] = ("onnxruntime", "litert", "tflite-runtime")
EMULATED = Place(how="emulated", name="cortex-a53 (QEMU 7.2)", profile="board")


def test_a_file_that_dies_on_the_target_does_not_ship_and_another_does() -> None:
    found = judged(target(runtime="auto"), observed(), there(EMULATED, "onnxruntime"))
    assert found.verdict.ship == LITERT_INT8
    assert "; not onnx-int8: onnxruntime 1.0 was ended by SIGILL" in found.verdict.why
    assert found.verdict.state == "met"


def test_a_target_on_which_everything_dies_gets_nothing_and_is_told_why() -> None:
    found = judged(target(), observed(), there(EMULATED, "onnxruntime"))
    assert found.verdict.ship is None
    assert found.verdict.state == "missed"
    assert found.verdict.why.startswith("not fit: onnx-fp32: onnxruntime 1.0 was ended by SIGILL; onnx-int8: onnx")
    [check] = found.verdict.checks
    assert (check.name, check.got, check.limit) == ("failures there (int8)", 1, 0)


def test_the_other_precision_is_a_way_out_and_the_failure_a_missed_limit() -> None:
    both = there(EMULATED, "onnxruntime")
    int8 = tuple(each for each in both.cannot_run if each.way.variant == INT8_ONNX)
    found = judged(target(), observed(), dataclasses.replace(both, cannot_run=int8))
    assert found.verdict.ship == Way(variant=FLOAT_ONNX, program="onnxruntime")
    assert found.verdict.why.startswith("not onnx-int8: onnxruntime 1.0 was ended by SIGILL; fp32 in onnxruntime")
    assert found.verdict.state == "missed"


def test_what_dies_elsewhere_or_while_it_is_counted_ships() -> None:
    for place in (dataclasses.replace(EMULATED, profile="another"), dataclasses.replace(EMULATED, how="estimated")):
        found = judged(target(), observed(), there(place, "onnxruntime"))
        assert found.verdict.ship == ONNXRUNTIME_INT8
        assert "SIGILL" not in found.verdict.why


def test_only_runtimes_that_exist_for_the_target_compete() -> None:
    cpu = target().cpu.model_copy(update={"architecture": "armv7l"})
    profile = target(runtime="auto").model_copy(update={"cpu": cpu})
    for seen in (observed(), observed(litert=0.1)):
        assert judged(profile, seen).verdict.ship == Way(variant=TFLITE_INT8, program="tflite-runtime")
    without = judged(profile, observed(programs=("onnxruntime", "litert")))
    assert without.verdict.ship is None


LITERT_INT8 = Way(variant=TFLITE_INT8, program="litert")
ONNXRUNTIME_INT8 = Way(variant=INT8_ONNX, program="onnxruntime")


def test_without_a_runtime_of_the_target_the_faster_one_ships() -> None:
    fast = judged(target(runtime="auto"), observed(litert=0.6))
    assert fast.verdict.ship == LITERT_INT8
    assert fast.candidates[-1] == LITERT_INT8
    assert "; litert takes 0.60 times as long as onnxruntime (measured on Other, 2 cores, x86_64)" in fast.verdict.why
    for litert in (1.0, 1.4):
        assert judged(target(runtime="auto"), observed(litert=litert)).verdict.ship == ONNXRUNTIME_INT8
    without = observed(litert=0.6, programs=("onnxruntime",))
    assert judged(target(runtime="auto"), without).verdict.ship == ONNXRUNTIME_INT8


@pytest.mark.parametrize(("litert_ms", "ships"), [(6.0, LITERT_INT8), (9.0, ONNXRUNTIME_INT8)])
def test_the_runtime_is_chosen_by_what_is_estimated_for_the_target(litert_ms: float, ships: Way) -> None:
    """Whatever this machine's clock says, and though the ranges overlap: the better guess is the better choice."""
    found = [
        measured(quantity, way, ms, how="estimated", error=0.5)
        for quantity in LATENCIES
        for way, ms in ((ONNXRUNTIME_INT8, 8.0), (LITERT_INT8, litert_ms))
    ]
    there = dataclasses.replace(observed(found[0].place, measurements=found), answers=(), timings=())
    chosen = judged(target(runtime="auto"), observed(litert=1.4 if litert_ms < 8 else 0.6), there)
    assert chosen.verdict.ship == ships
    assert "estimated on board" in chosen.verdict.why
    assert ("litert takes 0.75 times as long as onnxruntime (estimated" in chosen.verdict.why) == (litert_ms < 8)


@pytest.mark.parametrize(
    ("same", "litert_same", "counts"), [(1.0, 1.0, "here"), (0.9, 1.0, "there"), (1.0, 0.9, "here")]
)
def test_a_few_emulated_answers_count_where_they_differ(same: float, litert_same: float, counts: str) -> None:
    """Of 100 inputs nobody knows the accuracy as well as of 1,000: they count as a check, until they show something.

    What they show of one way of running says nothing about another.
    """
    place = dataclasses.replace(BOARD, how="emulated")
    beside = tuple(
        Beside(way=way, other=HERE, samples=100, of=1000, same=each, identical=each, max_steps=0)
        for way, each in ((ONNXRUNTIME_INT8, same), (LITERT_INT8, litert_same))
    )
    drawn = tuple(
        dataclasses.replace(answered(v, "onnxruntime", 0.99, place=place), samples=100) for v in (FLOAT_ONNX, INT8_ONNX)
    )
    there = dataclasses.replace(observed(place), answers=drawn, beside=beside, timings=())
    check = next(each for each in judged(target(), observed(), there).verdict.checks if each.name == "accuracy (int8)")
    assert check.got == {"here": 0.979, "there": 0.99}[counts]


def test_the_slower_runtime_ships_where_the_faster_one_misses_a_limit() -> None:
    between = SIZES[INT8_ONNX] + 5_000
    found = judged(target({"size_bytes": between}, runtime="auto"), observed(litert=0.6))
    assert found.verdict.ship == ONNXRUNTIME_INT8
    assert "; not tflite-int8 in litert, which takes 0.60 times as long as that" in found.verdict.why
    assert "file size is" in found.verdict.why


def test_another_machines_numbers_are_not_the_targets() -> None:
    way = Way(variant=INT8_ONNX, program="onnxruntime")
    fast = measured("latency_p95_ms", way, 0.1, profile=None)
    found = judged(target({"latency_p95_ms": 5}), observed(measurements=[fast]))
    assert [each for each in found.measurements if each.quantity == "latency_p95_ms"] == []
    check = next(each for each in found.verdict.checks if each.quantity == "latency p95")
    assert (check.got, check.state) == (None, "open")
    assert "(a hint: on Other, 2 cores, x86_64 int8 takes 0.50 times as long as float" in found.verdict.why


def test_what_was_measured_on_the_target_counts_before_what_was_measured_elsewhere() -> None:
    way = Way(variant=INT8_ONNX, program="onnxruntime")
    here = observed(measurements=[measured("latency_p95_ms", way, 0.1, profile=None)])
    there = observed(BOARD, measurements=[measured("latency_p95_ms", way, 7.0)], slower=True)
    found = judged(target({"latency_p95_ms": 5}), here, there)
    assert [(each.value, each.place.profile) for each in found.measurements] == [(7.0, "board")]
    assert found.verdict.ship == Way(variant=FLOAT_ONNX, program="onnxruntime")
    assert "misses latency p95 (7 ms, at most 5 ms allowed)" in found.verdict.why
    generous = judged(target({"latency_p95_ms": 50}), here, there)
    assert "not int8, which is slower there (int8 takes 1.50 times as long as float" in generous.verdict.why


def test_memory_of_another_machine_is_an_estimate_and_says_so() -> None:
    way = Way(variant=INT8_ONNX, program="onnxruntime")
    seen = observed(measurements=[measured("peak_memory_bytes", way, 10_000_000.0, profile=None)])
    for limit, state in ((2**28, "met"), (15_000_000, "uncertain"), (1_000_000, "missed")):
        found = judged(target({"peak_memory_bytes": limit}), seen)
        check = next(each for each in found.verdict.checks if each.name == "peak memory (int8)")
        assert check.state == state
    assert [each.place.how for each in found.measurements] == ["estimated"]
    there = observed(BOARD, measurements=[measured("peak_memory_bytes", way, 11_000_000.0)])
    own = judged(target(), seen, there)
    assert [(each.place.how, each.value) for each in own.measurements] == [("measured", 11_000_000)]


def test_the_network_before_pruning_is_shown_with_its_numbers_and_never_ships() -> None:
    way = Way(variant=dataclasses.replace(FLOAT_ONNX, unpruned=True), program="onnxruntime")
    seen = observed(measurements=[measured("latency_p95_ms", way, 0.001)])
    better = answered(way.variant, way.program, 0.999, place=HERE)
    seen = dataclasses.replace(
        seen, answers=(better, *seen.answers), timings=(_timing(way, slower=False), *seen.timings)
    )
    found = judged(target(), seen)
    assert way not in found.candidates
    assert found.verdict == judged(target(), observed()).verdict
    assert [each.way for each in found.measurements] == [way]


def test_judging_takes_milliseconds_and_needs_predictions() -> None:
    seen = observed()
    start = time.perf_counter()
    judged(target(), seen)
    assert time.perf_counter() - start < 0.2
    with pytest.raises(ValueError, match="board: nothing was predicted"):
        judge(NO_WORK, target=target(), limits=RecipeLimits(), exports=(), predicted=(), observed=())


def test_without_int8_the_float_file_ships() -> None:
    floats = exports()[:1]
    seen = observed()
    found = judge(
        NO_WORK,
        target=target(),
        limits=RecipeLimits(),
        exports=floats,
        predicted=predicted()[:1],
        observed=(dataclasses.replace(seen, comparisons=(), agreements=(), saturation=()),),
    )
    assert found.verdict.ship == Way(variant=FLOAT_ONNX, program="onnxruntime")
    assert found.compared is None
    assert found.candidates == (found.verdict.ship,)
    assert found.summary == "ship onnx-fp32"
