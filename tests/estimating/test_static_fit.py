"""The fit of the cost model on made-up counts: what was put in comes out, and how far off it says that it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from pipeline.estimating.features import Footprint, Tile, follows, instructions_from, misses_from
from pipeline.estimating.fit import EVENTS, Fit
from pipeline.estimating.layers_table import Counted
from pipeline.estimating.predicted import error_bar, fit_of, predicted
from pipeline.estimating.static import INFERENCE, Costs
from pipeline.estimating.static_fit import Off, best_tiles, errors_of, fitted_costs, off
from pipeline.estimating.table import reference
from pipeline.estimating.work import Work

CPU = "cortex-a72"
ONE = Tile(rows=1, columns=1)
NS = Fit(cpu=CPU, clock_mhz=1000, ns=dict.fromkeys(EVENTS, 1.0), errors={})
FITTED = 0.03  # of what was put in: the fit weighs relative errors, and stops after a few rounds


def pointwise(rows: int, columns: int, depth: int, *, integer: bool = False) -> Work:
    return Work(
        kernel="Pointwise", integer=integer, reads=rows * depth, makes=rows * columns, rows=rows, columns=columns,
        depth=depth,
    )  # fmt: skip


def drawn(count: int, *, integer: bool = False) -> list[tuple[Work, ...]]:
    rng = np.random.default_rng(0)
    return [
        tuple(pointwise(*map(int, rng.integers(1, 90, 3)), integer=integer) for _ in range(rng.integers(1, 4)))
        for _ in range(count)
    ]


def row(works: tuple[Work, ...], precision: str = "fp32", **events: float) -> Counted:
    found = dict.fromkeys(EVENTS, 0.0) | events
    return Counted(
        network="x", precision=precision, runtime="litert", cpu=CPU, instructions=sum(found.values()), events=found,
        works=works,
    )  # fmt: skip


def counted_in(tiles: Mapping[bool, Tile], works: tuple[Work, ...]) -> Counted:
    """Return a network whose kernels multiply whole tiles, and load one value for each."""
    padded = sum(instructions_from(work, tiles[work.integer])["padded macs"] for work in works)
    made = float(sum(work.makes for work in works))
    return row(works, "int8" if works[0].integer else "fp32", multiply=padded / 4, load=padded / 8, store=made)


def test_tiles_are_those_that_explain_the_counts() -> None:
    tiles = {False: Tile(rows=6, columns=8), True: Tile(rows=4, columns=16, depth=4)}
    rows = [counted_in(tiles, works) for integer in (False, True) for works in drawn(40, integer=integer)]
    found = best_tiles(rows)[CPU]
    for integer in (False, True):
        own = [work for each in rows for work in each.works if work.integer is integer]
        assert [instructions_from(work, found[integer])["padded macs"] for work in own] == [
            instructions_from(work, tiles[integer])["padded macs"] for work in own
        ]


def test_what_a_network_takes_beside_its_kernels_is_told_apart() -> None:
    rows = [
        row(works, load=5000.0 + 2 * sum(work.reads for work in works), integer=70.0 * len(works))
        for works in (
            (dense(i, o),) * k for i, o, k in ((10, 10, 1), (400, 20, 2), (50, 90, 4), (900, 3, 3), (1, 1, 6))
        )
    ]
    model = fitted_costs(rows, {CPU: {False: ONE, True: ONE}})[CPU]
    alone = dict(zip(EVENTS, model.of([INFERENCE])[0], strict=True))
    assert alone["load"] == pytest.approx(5000, rel=FITTED)
    of_one = dict(zip(EVENTS, model.of([dense(100, 7)])[0], strict=True))
    assert of_one["load"] == pytest.approx(200, rel=FITTED)
    assert of_one["integer"] == pytest.approx(70, rel=FITTED)


def dense(inputs: int, outputs: int) -> Work:
    return Work(kernel="Gemm", reads=inputs, makes=outputs, columns=outputs, depth=inputs)


def test_a_line_is_missed_at_most_once_for_each_time_that_it_is_read() -> None:
    works = drawn(30)
    rows = []
    for each in works:
        footprint = Footprint.of(each)
        lines = sum(misses_from(work, ONE, footprint)["values"] for work in each)
        rows.append(
            replace(row(each, load=1e6), events=dict.fromkeys(EVENTS, 0.0) | {"load": 1e6, "L1 miss": 50 * lines})
        )
    model = fitted_costs(rows, {CPU: {False: ONE, True: ONE}})[CPU]
    numbers = model.events["Product"]["L1 miss"]
    assert max(number for name, number in numbers.items() if name not in ("one", "tiles")) <= 1


@pytest.mark.parametrize(
    ("kind", "kernel", "name", "possible"),
    [
        ("store", "Product8", "macs", False),  # sums stay in registers
        ("store", "Product8", "made", True),
        ("multiply", "Gemm", "padded macs", True),
        ("multiply", "Gemm", "read", False),
        ("load", "Product", "macs", True),
        ("store", "Softmax", "read", True),
    ],
)
def test_what_can_follow_from_what(kind: str, kernel: str, name: str, *, possible: bool) -> None:
    assert follows(kind, kernel, name) is possible


# ── how far off ─────────────────────────────────────────────────────────────────────────────────────────────────────


def of_loads(number: float) -> Mapping[tuple[str, str], Costs]:
    made = {"Gemm": {"load": {"macs": number}}}
    return {("litert", CPU): Costs(tiles={False: ONE, True: ONE}, events=made)}


@pytest.mark.parametrize(("number", "error"), [(1.0, 0.0), (1.5, 0.5), (0.5, -0.5)])
def test_errors_are_relative_to_what_was_counted(number: float, error: float) -> None:
    (found,) = off([row((dense(10, 10),), load=100.0)], {CPU: NS}, of_loads(number))
    assert (found.instructions, found.time) == pytest.approx((error, error))


def test_misses_are_time_and_no_instructions() -> None:
    (found,) = off([row((dense(10, 10),), load=100.0)], {CPU: NS}, of_loads(1.0))
    (missed,) = off([replace(found.row, events={**found.row.events, "L1 miss": 100.0})], {CPU: NS}, of_loads(1.0))
    assert missed.instructions == pytest.approx(0)
    assert missed.time == pytest.approx(-0.5)


def test_rows_of_other_runtimes_are_passed_over() -> None:
    assert off([replace(row((dense(2, 2),), load=1.0), runtime="ncnn")], {CPU: NS}, of_loads(1.0)) == ()


def test_the_bar_reaches_to_both_sides_alike() -> None:
    """Half as long and twice as long are equally far off."""

    def bar(change: Callable[[float], float]) -> float:
        like = row((dense(1, 1),), load=1.0)
        found = [Off(row=like, instructions=0.0, time=change(factor) - 1) for factor in np.linspace(1, 2, 11)]
        return errors_of(found).bar

    assert bar(lambda factor: factor) == pytest.approx(bar(lambda factor: 1 / factor)) == pytest.approx(1.9)


# ── predicted times ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_processor_without_published_times_has_no_estimate() -> None:
    some = reference()[0].counts
    assert predicted(some, cpu="cortex-m4", clock_mhz=100, runtime="litert") is None
    assert fit_of("cortex-m4") is None


@pytest.mark.parametrize("runtime", sorted({row.runtime for row in reference()}))
def test_a_runtime_that_was_not_fitted_is_surer_than_its_fit_nowhere(runtime: str) -> None:
    fit = fit_of(CPU)
    assert fit is not None
    bar, why = error_bar(fit, runtime)
    assert bar >= fit.error_bar > 1
    assert f"{runtime} within a factor of {bar:.2f}" in why


def test_an_estimate_is_as_far_from_one_end_as_from_the_other() -> None:
    some = next(each for each in reference() if each.cpu == CPU)
    found = predicted(some.counts, cpu=CPU, clock_mhz=some.clock_mhz, runtime="litert")
    assert found is not None
    interval, _ = found
    assert math.log(interval.high / interval.value) == pytest.approx(math.log(interval.value / interval.low))
