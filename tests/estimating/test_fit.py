"""Times from counts: fitted on published ones, and judged by networks that were left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from pipeline.estimating.fit import EVENTS, Fit, estimate, events, fitted
from pipeline.estimating.predicted import fit_of, held_out, predicted
from pipeline.estimating.table import Row, reference

BOARDS = {"cortex-a72": 1800, "cortex-a76": 2400}
MEDIAN_MAX, NINTH_OF_TEN_MAX, RANKS_MIN = 0.09, 0.25, 0.98
OTHER_RUNTIME_MEDIAN_MAX = 0.20


def counts(**some: float) -> dict[str, float]:
    return dict.fromkeys(reference()[0].counts, 0.0) | some


def row(model: str, ms: float, **some: float) -> Row:
    return Row(
        cpu="cortex-a72", clock_mhz=1000, board="board", runtime="ncnn", model=model, precision="fp32",
        published_ms=ms, counts=counts(**some),
    )  # fmt: skip


# ── the shipped table ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cpu", BOARDS)
def test_networks_left_out_are_estimated_as_promised(cpu: str) -> None:
    fit = fit_of(cpu)
    assert fit is not None
    assert fit.clock_mhz == BOARDS[cpu]
    assert len(fit.errors) == 34
    assert fit.median_error <= MEDIAN_MAX
    assert np.quantile(np.abs(list(fit.errors.values())), 0.9) <= NINTH_OF_TEN_MAX


@pytest.mark.parametrize("cpu", BOARDS)
def test_networks_left_out_keep_their_order(cpu: str) -> None:
    fit = fit_of(cpu)
    assert fit is not None
    published = {f"{each.model} {each.precision}": each.published_ms for each in reference() if each.cpu == cpu}
    estimated = {name: published[name] * (1 + error) for name, error in fit.errors.items()}
    pairs = [(published[name], estimated[name]) for name in fit.errors]
    assert spearmanr(pairs).statistic >= RANKS_MIN


@pytest.mark.parametrize("cpu", BOARDS)
def test_another_runtime_that_was_never_fitted(cpu: str) -> None:
    fit = fit_of(cpu)
    assert fit is not None
    errors = {each.precision: error for each, error in held_out(fit)}
    assert set(errors) == {"fp32", "int8"}
    assert np.median(np.abs(list(errors.values()))) <= OTHER_RUNTIME_MEDIAN_MAX


def test_every_row_says_what_it_is() -> None:
    assert {each.cpu: each.clock_mhz for each in reference()} == BOARDS
    for each in reference():
        kinds = [name for parts in EVENTS.values() for name, _ in parts]
        assert each.published_ms > 0
        assert sum(each.counts[name] for name in kinds if "miss" not in name) <= each.counts["total"]
        assert each.counts["l2_miss"] <= each.counts["l1d_miss"] <= each.counts["accesses"]


# ── the arithmetic ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_counts_are_summed_up_by_kind() -> None:
    found = events(counts(fmla_vec=3, dot=4, load=1, load_pair_q=2, store_q=5, branch=6, l2_miss=7))
    assert found == {
        "multiply": 7, "vector": 0, "load": 5, "store": 5, "integer": 6, "L1 miss": 0, "L2 miss": 7
    }  # fmt: skip


def test_what_times_are_made_of_is_found() -> None:
    """2 ns for a multiplication, 100 ns for a miss: exactly, from rows of both."""
    made = [(1e6, 1e4), (2e6, 1e4), (5e6, 3e5), (1e6, 2e5)]
    rows = [row(f"net{k}", (2 * m + 100 * miss) / 1e6, fmla_vec=m, l2_miss=miss) for k, (m, miss) in enumerate(made)]
    fit = fitted(rows)
    assert fit.ns["multiply"] == pytest.approx(2)
    assert fit.ns["L2 miss"] == pytest.approx(100)
    assert all(fit.ns[kind] == 0 for kind in ("vector", "load", "store", "integer", "L1 miss"))
    assert fit.median_error == pytest.approx(0, abs=1e-9)


def test_a_network_that_is_far_off_bends_little() -> None:
    rows = [row(f"net{k}", 2.0 * k, fmla_vec=1e6 * k) for k in range(1, 9)]
    rows.append(row("odd", 100.0, fmla_vec=1e6))
    assert fitted(rows).ns["multiply"] == pytest.approx(2, rel=0.05)


def test_both_precisions_of_a_network_are_left_out_together() -> None:
    rows = [row(f"net{k}", 2.0 * k, fmla_vec=1e6 * k) for k in range(1, 5)]
    odd = row("odd", 6.0, fmla_vec=1e6)
    both = [odd, replace(odd, precision="int8")]
    errors = fitted([*rows, *both]).errors
    assert errors["odd fp32"] == errors["odd int8"] == pytest.approx(2 / 6 - 1)


def test_processors_are_not_mixed() -> None:
    rows = [row("a", 1.0, fmla_vec=1e6), replace(row("b", 1.0, fmla_vec=1e6), cpu="cortex-a76")]
    with pytest.raises(ValueError, match="one processor"):
        fitted(rows)


def test_a_slower_clock_slows_all_but_the_memory() -> None:
    fit = Fit(cpu="cortex-a72", clock_mhz=1800, ns=dict.fromkeys(EVENTS, 1.0), errors={})
    some = counts(fmla_vec=1e6, l2_miss=1e6)
    assert estimate(fit, some, clock_mhz=1800, error_bar=1.0).value == pytest.approx(2.0)
    assert estimate(fit, some, clock_mhz=900, error_bar=1.0).value == pytest.approx(3.0)


def test_the_error_bar_goes_to_both_sides() -> None:
    fit = Fit(cpu="cortex-a72", clock_mhz=1000, ns=dict.fromkeys(EVENTS, 1.0), errors={"a": 0.25, "b": -0.2})
    assert fit.error_bar == pytest.approx(1.25)
    found = estimate(fit, counts(load=8e6), clock_mhz=1000, error_bar=fit.error_bar)
    assert (found.low, found.value, found.high) == pytest.approx((6.4, 8.0, 10.0))


# ── for a target ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_runtime_of_which_nothing_is_known_has_the_widest_bar() -> None:
    known = predicted(counts(fmla_vec=1e9, total=1e9), cpu="cortex-a72", clock_mhz=1500, runtime="litert")
    unknown = predicted(counts(fmla_vec=1e9, total=1e9), cpu="cortex-a72", clock_mhz=1500, runtime="onnxruntime")
    assert known is not None
    assert unknown is not None
    assert known[0].value == unknown[0].value
    assert unknown[0].high >= known[0].high > known[0].value
    assert "litert within a factor of" in known[1]
    assert unknown[1].endswith("no time of it was published")


def test_without_published_times_there_is_no_estimate() -> None:
    assert predicted(counts(), cpu="cortex-a53", clock_mhz=1000, runtime="litert") is None
