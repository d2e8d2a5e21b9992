"""The user's own times: kept in a table, read behind the published ones, and what they teach of a runtime."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.estimating.corrected import correction
from pipeline.estimating.predicted import corrections, fit_of, predicted
from pipeline.estimating.table import Row, add, own, own_file, own_version, published, reference
from pipeline.report.estimates import lines_of

CPU, MHZ = "cortex-a72", 1800


@pytest.fixture(autouse=True)
def nothing_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def timed(model: str, times: float, runtime: str = "onnxruntime") -> Row:
    """Return a row of a network that takes so many times what is estimated for it."""
    like = next(row for row in published() if row.cpu == CPU and row.precision == "fp32")
    fit = fit_of(CPU)
    assert fit is not None
    counts = {name: float(round(value)) for name, value in like.counts.items()}
    alone = predicted(counts, cpu=CPU, clock_mhz=MHZ, runtime="none")
    assert alone is not None
    return replace(like, board="Mine", runtime=runtime, model=model, published_ms=times * alone[0].value, counts=counts)


def test_rows_of_ones_own_come_behind_the_published_ones() -> None:
    assert reference() == published()
    assert own_version() == ""
    first, second = timed("a", 1.0), timed("b", 1.2)
    add([first])
    add([second])
    assert own() == (first, second)
    assert reference() == (*published(), first, second)


def test_what_is_measured_again_replaces_what_was() -> None:
    add([timed("a", 1.0), timed("b", 1.0)])
    before = own_version()
    add([timed("a", 2.0)])
    assert [row.model for row in own()] == ["a", "b"]
    assert own()[0] == timed("a", 2.0)
    assert own_version() != before


@pytest.mark.parametrize("text", ["nonsense", "cpu,clock_mhz\na,b\n", "\xff"])
def test_a_table_that_was_damaged_is_named(text: str) -> None:
    add([timed("a", 1.0)])
    own_file().write_bytes(text.encode("latin-1") + b"\nx,y\n")
    with pytest.raises(ConfigError, match="is no table of latencies") as refused:
        reference()
    assert refused.value.where == str(own_file())


def test_a_time_that_cannot_be_is_refused() -> None:
    add([replace(timed("a", 1.0), published_ms=math.inf)])
    with pytest.raises(ConfigError, match="has a number that cannot be"):
        own()


def test_a_runtime_that_always_takes_longer_is_estimated_with_that() -> None:
    before = predicted(timed("a", 1.0).counts, cpu=CPU, clock_mhz=MHZ, runtime="onnxruntime")
    add([timed(name, times) for name, times in (("a", 1.3), ("b", 1.25), ("c", 1.35), ("d", 1.3))])
    after = predicted(timed("a", 1.0).counts, cpu=CPU, clock_mhz=MHZ, runtime="onnxruntime")
    assert before is not None
    assert after is not None
    assert after[0].value == pytest.approx(1.3 * before[0].value)
    assert after[0].high / after[0].value < before[0].high / before[0].value
    assert after[1].endswith("as its known times lay × 1.30, which 4 networks gave")
    other = predicted(timed("a", 1.0).counts, cpu=CPU, clock_mhz=MHZ, runtime="tflite-runtime")
    assert other is not None
    assert other[0].value == before[0].value  # what is learnt of one runtime says nothing of another


def test_refitting_says_what_is_ones_own() -> None:
    fit = fit_of(CPU)
    assert fit is not None
    assert not any("your own" in line for line in lines_of(fit))
    add([timed(name, 1.3) for name in "abc"])
    text = "\n".join(lines_of(fit))
    assert "  your own: 3 of all times of a cortex-a72" in text
    assert "  onnxruntime takes 1.30 times what is estimated, which 3 networks gave" in text


def test_own_times_do_not_change_the_fit() -> None:
    before = fit_of(CPU)
    add([timed("squeezenet", 3.0)])  # called like a published one, in another runtime
    assert fit_of(CPU) == before


# ── the factor ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_factor_is_learnt_where_networks_left_out_are_better_with_it() -> None:
    found = correction([("a", 2.0), ("b", 2.2), ("c", 1.8)])
    assert found.factor == pytest.approx(2.0)
    assert math.exp(found.furthest) == pytest.approx(2.1 / 1.8, rel=0.02)


def test_times_that_lie_on_both_sides_teach_no_factor() -> None:
    found = correction([("a", 1.5), ("b", 1 / 1.5), ("c", 1.1), ("d", 1 / 1.1)])
    assert found.factor == 1.0
    assert math.exp(found.furthest) == pytest.approx(1.5)


@pytest.mark.parametrize("ratios", [[("a", 2.0)], [("a", 2.0), ("a", 2.0), ("a", 2.0)], [("a", 2.0), ("b", 2.0)]])
def test_too_few_networks_teach_none(ratios: list[tuple[str, float]]) -> None:
    assert correction(ratios).factor == 1.0
    assert math.exp(correction(ratios).furthest) == pytest.approx(2.0)


def test_without_times_there_is_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="no times"):
        correction([])
    fit = fit_of(CPU)
    assert fit is not None
    assert corrections(fit)["litert"].factor == 1.0  # one network was published
