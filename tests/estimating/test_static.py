"""The cost model: what it finds in made-up counts, and how far off it is for networks that it never saw."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.estimating.features import Tile
from pipeline.estimating.fit import EVENTS
from pipeline.estimating.layers_table import LAYERS, NETWORKS, Counted, counted, networks
from pipeline.estimating.modelled import judged, modelled
from pipeline.estimating.static import INFERENCE, Costs, costs
from pipeline.estimating.static_fit import errors_of, fitted_costs
from pipeline.estimating.table import reference
from pipeline.estimating.work import Work

MEDIAN_MAX = 0.15
ROUNDED = 1e-3
WAYS = [(runtime, cpu) for runtime in ("onnxruntime", "litert") for cpu in ("cortex-a72", "cortex-a76")]
TILES = {False: Tile(rows=1, columns=1), True: Tile(rows=1, columns=1)}


def row(name: str, works: tuple[Work, ...], multiplications: float, loads: float) -> Counted:
    events = dict.fromkeys(EVENTS, 0.0) | {"multiply": multiplications, "load": loads}
    return Counted(
        network=name, precision="fp32", runtime="litert", cpu="cortex-a72",
        instructions=multiplications + loads, events=events, works=works,
    )  # fmt: skip


def dense(inputs: int, outputs: int) -> Work:
    return Work(kernel="Gemm", reads=inputs, makes=outputs, columns=outputs, depth=inputs)


def test_what_events_follow_from_is_found() -> None:
    """A quarter of a multiplication for each multiply-accumulate, three loads for each input, hundred for a layer."""
    drawn = [(dense(i, o), dense(o, 7)) for i, o in ((10, 20), (300, 5), (64, 64), (8, 512), (100, 33), (17, 90))]
    rows = [
        row(str(k), works, sum(w.macs for w in works) / 4, sum(3 * w.reads + 100 for w in works))
        for k, works in enumerate(drawn)
    ]
    found = fitted_costs(rows, {"cortex-a72": TILES})["cortex-a72"]
    unseen = (dense(40, 40), dense(40, 2))
    events = dict(zip(EVENTS, found.of((*unseen, INFERENCE)).sum(axis=0), strict=True))
    assert events["multiply"] == pytest.approx((1600 + 80) / 4, rel=0.02)
    assert events["load"] == pytest.approx(3 * 80 + 200, rel=0.1)
    assert events["store"] == events["L1 miss"] == 0


def test_kernels_that_were_not_counted_cost_what_others_like_them_do() -> None:
    made = {"Gelu": {"load": {"made": 2.0}}, "Elu": {"load": {"made": 1.0}}, "Product": {"load": {"macs": 1.0}}}
    model = Costs(tiles=TILES, events=made)
    load = list(EVENTS).index("load")
    of = {name: model.of([Work(kernel=name, integer=True, makes=10)])[0, load] for name in ("Mish", "Unheard")}
    assert of == {"Mish": 20.0, "Unheard": 10.0}


# ── what ships ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_networks_that_were_never_seen(runtime: str, cpu: str, precision: str) -> None:
    own = [
        each for each in judged() if (each.row.runtime, each.row.cpu, each.row.precision) == (runtime, cpu, precision)
    ]
    assert len(own) >= 10
    assert np.median(np.abs([each.instructions for each in own])) <= MEDIAN_MAX
    model = costs(runtime, cpu)
    assert model is not None
    found = errors_of(own)
    assert model.errors[precision].median == pytest.approx(found.median, rel=ROUNDED)
    assert model.errors[precision].bar == pytest.approx(found.bar, rel=ROUNDED)
    assert model.errors[precision].median <= MEDIAN_MAX


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_published_time_lies_inside_what_is_modelled(cpu: str, precision: str) -> None:
    """Of a network in LiteRT that neither the drawn nor the fitted rows hold."""
    (row,) = [each for each in reference() if (each.runtime, each.cpu, each.precision) == ("litert", cpu, precision)]
    (seen,) = [e for e in networks() if (e.network, e.cpu, e.precision) == (row.model, cpu, precision)]
    found = modelled([seen.works], runtime="litert", precision=precision, cpu=cpu, clock_mhz=row.clock_mhz)
    assert found is not None
    assert found.latency_ms is not None
    assert found.latency_ms.low < row.published_ms < found.latency_ms.high


def test_the_drawn_and_the_judging_networks_are_told_apart() -> None:
    assert {row.network for row in counted(LAYERS)}.isdisjoint({row.network for row in counted(NETWORKS)})


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
def test_more_work_takes_longer(runtime: str, cpu: str) -> None:
    model = costs(runtime, cpu)
    assert model is not None
    small, large = (
        Work(kernel="Pointwise", rows=64, columns=c, depth=c, reads=64 * c, makes=64 * c) for c in (16, 128)
    )
    assert (model.of([large]).sum(axis=1) > 8 * model.of([small]).sum(axis=1)).all()


def test_an_estimate_is_the_sum_of_its_layers_and_says_how_sure_it_is() -> None:
    layers = [[dense(256, 256)], [], [dense(256, 10)]]
    found = modelled(layers, runtime="litert", precision="fp32", cpu="cortex-a72", clock_mhz=1500)
    assert found is not None
    assert found.latency_ms is not None
    assert found.layers_ms[1] == 0
    assert found.rest_ms > 0
    assert sum(found.layers_ms) + found.rest_ms == pytest.approx(found.latency_ms.value)
    assert found.latency_ms.low < found.latency_ms.value / 1.1
    assert "% in the median" in found.basis


def test_without_published_times_there_are_instructions_alone() -> None:
    found = modelled([[dense(256, 256)]], runtime="litert", precision="int8", cpu="cortex-a53", clock_mhz=1000)
    assert found is not None
    assert found.instructions > 256 * 256 / 16
    assert found.latency_ms is None
    assert found.basis == "nobody published times of a cortex-a53 that an estimate could rest on"


def test_runtimes_that_nobody_counted_have_no_model() -> None:
    assert modelled([[dense(2, 2)]], runtime="tflite-runtime", precision="fp32", cpu="cortex-a72", clock_mhz=1) is None
