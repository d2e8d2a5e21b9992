"""What was measured on a board and brought in a file, as numbers of a run that really happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.artifacts.evidence import Measurement, Observed, Place
from pipeline.artifacts.files import Variant, Way
from pipeline.artifacts.measured import Measurements
from pipeline.catalog import load_target
from pipeline.errors import ConfigError
from pipeline.instruments import brought
from pipeline.report.document import document
from pipeline.report.sentences import beside_estimates
from pipeline.report.table import print_outcome
from tests.report.recorded import Recorded, recorded
from tests.report.variations import PI, judged_anew
from tests.runs.test_measurements import benched, measurements

TARGET = load_target(PI)
INT8 = Way(variant=Variant(format="onnx", precision="int8", weight_bits=8), program="onnxruntime")
FLOAT = Way(variant=Variant(format="onnx", precision="fp32"), program="onnxruntime")
INT8_MS, FLOAT_MS = 2.0, 3.0


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return recorded("digits", tmp_path_factory.mktemp("digits"))


def sha256_of(run: Recorded, way: Way) -> str:
    return next(each.file for each in run.outcome.files if each.variant == way.variant)


def measured(run: Recorded) -> Measurements:
    """Return times of both ONNX files of a run, as a Raspberry Pi would have measured them."""
    return measurements(benched(sha256_of(run, INT8), p50_ms=INT8_MS), benched(sha256_of(run, FLOAT), p50_ms=FLOAT_MS))


def estimated(run: Recorded, ms: float) -> Observed:
    place = Place(how="estimated", name="the basis of the instructions of a cortex-a72 at 1500 MHz", profile=PI)
    number = Measurement(
        quantity="latency_p50_ms", way=INT8, threads=1, place=place, value=ms, low=ms / 1.25, high=ms * 1.25
    )
    return replace(
        observed(run), place=place, timings=(), measurements=(number, replace(number, quantity="latency_p95_ms"))
    )


def observed(run: Recorded, found: Measurements | None = None) -> Observed:
    return brought.observed(found or measured(run), run.outcome.files, run.outcome.metric, TARGET, run.store)


def test_every_number_is_the_targets_own(digits: Recorded) -> None:
    found = observed(digits)
    assert found.place == Place(how="measured", name="Raspberry Pi 4 Model B, Cortex-A72, 4 cores, aarch64", profile=PI)
    numbers = {(each.way, each.quantity): each for each in found.measurements}
    assert numbers[INT8, "latency_p50_ms"].value == INT8_MS
    assert numbers[INT8, "latency_p95_ms"].low == pytest.approx(0.9 * 1.2 * INT8_MS)
    assert numbers[INT8, "peak_memory_bytes"].value == 2**20
    assert numbers[FLOAT, "cold_start_ms"].value == 20.0
    assert numbers[INT8, "latency_p50_ms"].basis == "12 sessions in 1.32.0, 48 °C"
    assert {each.place for each in found.measurements} == {found.place}
    [timing] = [each for each in found.timings if each.way == INT8]
    assert digits.store.get_array(timing.samples_ms).shape == (12, 1)


def test_what_spoiled_it_is_said_with_the_number(digits: Recorded) -> None:
    found = observed(digits, replace(measured(digits), troubles=("it was throttled while it ran (83 °C)",)))
    assert found.measurements[0].basis.endswith("48 °C; it was throttled while it ran (83 °C)")


def test_a_measurement_replaces_an_estimate_and_both_stay_visible(digits: Recorded) -> None:
    here = replace(digits.outcome.observed[0])
    run = judged_anew(digits, here, estimated(digits, ms=1.6), observed(digits))
    [target] = run.outcome.targets
    standing = {(each.way, each.quantity): each for each in target.measurements}
    assert standing[INT8, "latency_p95_ms"].place.how == "measured"
    assert standing[INT8, "latency_p95_ms"].value == pytest.approx(1.2 * INT8_MS)
    assert standing[INT8, "peak_memory_bytes"].place.how == "measured"
    said = "ONNX int8 in onnxruntime takes 1.25 times its estimate of 1.60 (1.28–2.00) ms"
    assert beside_estimates(run.outcome, target) == (said,)
    console = Console(width=100, highlight=False, color_system=None)
    with console.capture() as captured:
        print_outcome(run.outcome, Path("runs/digits"), console)
    assert said in " ".join(captured.get().split())
    assert said in " ".join(run.page().replace("&#8211;", "–").split())
    [part] = document(run.outcome, Path("runs/digits")).targets
    both = {
        each.how: each.value
        for each in part.measurements
        if (each.what, each.artifact) == ("latency_p50", "onnx-int8") and each.where != here.place.name
    }
    assert both == {"measured": INT8_MS, "estimated": 1.6}


def test_files_timed_in_turn_on_the_target_decide_what_ships(digits: Recorded) -> None:
    slow = measurements(benched(sha256_of(digits, INT8), p50_ms=6.0), benched(sha256_of(digits, FLOAT), p50_ms=3.0))
    run = judged_anew(
        digits,
        digits.outcome.observed[0],
        observed(digits, slow),
        profile=TARGET.model_copy(update={"runtime": "onnxruntime"}),
    )
    [target] = run.outcome.targets
    assert target.verdict.ship == FLOAT
    assert "2.00 times as long as float" in target.verdict.why


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_of_another_run_are_refused(digits: Recorded) -> None:
    with pytest.raises(ConfigError) as refused:
        brought.of_files(measurements(benched("b" * 64)), digits.outcome.files)
    assert "and no file of this run: net.int8.onnx (bbbbbbbbbbbb)" in str(refused.value)
    assert "measure the files of this run" in refused.value.remedy


def test_files_beside_those_of_the_run_are_left_out_and_named(digits: Recorded) -> None:
    both = measurements(benched(sha256_of(digits, INT8)), benched("b" * 64))
    own, said = brought.of_files(both, digits.outcome.files)
    assert [file.variant for _, file in own] == [INT8.variant]
    assert said.endswith("no file of this run: net.int8.onnx (bbbbbbbbbbbb)")
    assert len(observed(digits, both).timings) == 1


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("raspberry-pi-5", "is the target raspberry-pi-5, and not raspberry-pi-4b"),
        (None, "is the target none that is known, and not raspberry-pi-4b"),
    ],
)
def test_another_machine_is_refused(profile: str | None, said: str) -> None:
    brought.check_of(measurements(), [TARGET])
    with pytest.raises(ConfigError) as refused:
        brought.check_of(measurements(profile=profile), [TARGET])
    assert said in str(refused.value)
