"""What holds of every estimate: more costs no less, parts add up, and nothing that a network does is free."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.estimating.features import MISSES, Footprint, Tile, instructions_from, kernel_of, misses_from
from pipeline.estimating.fit import EVENTS
from pipeline.estimating.layers_table import LAYERS, NETWORKS, Counted, counted, networks
from pipeline.estimating.modelled import is_known, modelled
from pipeline.estimating.static import INFERENCE, Costs, costs
from pipeline.estimating.work import PRODUCTS, RECURRENT, WEIGHTED, Work

WAYS = [(runtime, cpu) for runtime in ("onnxruntime", "litert") for cpu in ("cortex-a72", "cortex-a76")]
ROUNDED = 1e-9  # sums of floats in another order
KERNELS = sorted({work.kernel for row in counted(LAYERS) for work in row.works})
UNKNOWN = ("Fourier", "Erf", "ReduceMax", "Cumsum", "my own op", "Operator 250")
# what the fit gives no instructions: other kernels of the same networks were found to take them
TOO_FEW_TO_TELL = {("litert", "Dequantize", True), ("onnxruntime", "Relu", True)}
SIDES = st.integers(1, 64)
FEW = settings(max_examples=40, deadline=None)  # of each runtime on each processor


def model_of(runtime: str, cpu: str) -> Costs:
    found = costs(runtime, cpu)
    assert found is not None
    return found


def convolution(inputs: int, outputs: int, side: int, *, window: int, integer: bool) -> Work:
    pixels = side * side
    return Work(
        kernel="Pointwise" if window == 1 else "Conv", integer=integer, reads=inputs * pixels, makes=outputs * pixels,
        rows=pixels, columns=outputs, depth=inputs * window, window=window, lines=side,
    )  # fmt: skip


def depthwise(channels: int, side: int, *, integer: bool) -> Work:
    values = channels * side * side
    return Work(
        kernel="Depthwise", integer=integer, reads=values, makes=values, rows=side * side, depth=9, groups=channels,
        window=9, lines=side,
    )  # fmt: skip


def tokens(rows: int, inputs: int, outputs: int, *, integer: bool) -> Work:
    kernel = "Gemm" if rows == 1 else "Projection"
    return Work(
        kernel=kernel, integer=integer, reads=rows * inputs, makes=rows * outputs, rows=rows, columns=outputs,
        depth=inputs,
    )  # fmt: skip


def assert_no_less(model: Costs, small: Work, large: Work) -> None:
    """No kind of event becomes rarer."""
    of_small, of_large = (model.of([each]).sum(axis=0) for each in (small, large))
    assert (of_large >= of_small * (1 - ROUNDED)).all()
    assert of_small.sum() > 0


# ── more costs no less ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
@FEW
@given(sizes=st.tuples(SIDES, SIDES, SIDES), window=st.sampled_from([1, 9, 25]), integer=st.booleans())
def test_channels_and_pixels_of_convolutions(
    runtime: str, cpu: str, sizes: tuple[int, int, int], window: int, *, integer: bool
) -> None:
    inputs, outputs, side = sizes
    small = convolution(inputs, outputs, side, window=window, integer=integer)
    for larger in ((inputs + 1, outputs, side), (inputs, outputs + 1, side), (inputs, outputs, side + 1)):
        assert_no_less(model_of(runtime, cpu), small, convolution(*larger, window=window, integer=integer))


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
@FEW
@given(channels=SIDES, side=SIDES, integer=st.booleans())
def test_channels_and_pixels_of_depthwise_convolutions(
    runtime: str, cpu: str, channels: int, side: int, *, integer: bool
) -> None:
    small = depthwise(channels, side, integer=integer)
    for large in (depthwise(channels + 1, side, integer=integer), depthwise(channels, side + 1, integer=integer)):
        assert_no_less(model_of(runtime, cpu), small, large)


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
@FEW
@given(rows=st.integers(2, 64), inputs=SIDES, outputs=SIDES, integer=st.booleans())
def test_tokens_and_features_of_linear_layers(
    runtime: str, cpu: str, rows: int, inputs: int, outputs: int, *, integer: bool
) -> None:
    model, small = model_of(runtime, cpu), tokens(rows, inputs, outputs, integer=integer)
    assert_no_less(model, small, tokens(rows + 1, inputs, outputs, integer=integer))
    assert_no_less(model, small, tokens(rows, inputs + 1, outputs, integer=integer))
    assert_no_less(model, small, tokens(rows, inputs, outputs + 1, integer=integer))
    assert_no_less(model, tokens(1, inputs, outputs, integer=integer), tokens(1, inputs + 1, outputs, integer=integer))


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
@pytest.mark.parametrize("integer", [False, True])
def test_elements_of_whatever_was_counted(runtime: str, cpu: str, *, integer: bool) -> None:
    model = model_of(runtime, cpu)
    for kernel in KERNELS:
        work = Work(kernel=kernel, integer=integer)
        several = [replace(work, reads=number, makes=number) for number in (1, 100, 200, 10_000)]
        found = [model.of([each]).sum() for each in several]
        assert found == sorted(found)
        assert found[0] > 0 or (runtime, kernel, integer) in TOO_FEW_TO_TELL


# ── parts add up ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("row", counted(NETWORKS)[::40], ids=lambda row: f"{row.network} {row.precision} {row.runtime}")
def test_a_network_takes_what_its_layers_do_however_they_are_cut(row: Counted) -> None:
    whole, layers = (
        modelled(parts, runtime=row.runtime, precision=row.precision, cpu=row.cpu, clock_mhz=1500)
        for parts in ([row.works], [[work] for work in row.works])
    )
    assert whole is not None
    assert layers is not None
    assert whole.latency_ms is not None
    assert sum(layers.layers_ms) == pytest.approx(whole.layers_ms[0], rel=ROUNDED)
    assert layers.instructions == pytest.approx(whole.instructions, rel=ROUNDED)
    assert sum(layers.layers_ms) + layers.rest_ms == pytest.approx(whole.latency_ms.value, rel=ROUNDED)
    assert min(layers.layers_ms) >= 0


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
def test_instructions_of_two_networks_one_after_the_other(runtime: str, cpu: str) -> None:
    """But not their misses: what does not fit into a cache together may fit one by one."""
    model = model_of(runtime, cpu)
    first, second = ([convolution(64, 64, side, window=9, integer=False)] for side in (16, 40))
    apart, together = model.of(first).sum(axis=0) + model.of(second).sum(axis=0), model.of(first + second).sum(axis=0)
    of_memory = np.array([kind in MISSES for kind in EVENTS])
    assert together[~of_memory] == pytest.approx(apart[~of_memory], rel=ROUNDED)
    assert (together[of_memory] >= apart[of_memory] * (1 - ROUNDED)).all()


def test_a_processor_without_dot_products_runs_the_kernels_of_another() -> None:
    works = [[convolution(16, 16, 16, window=9, integer=True)]]
    a53, a72 = (
        modelled(works, runtime="litert", precision="int8", cpu=cpu, clock_mhz=1000)
        for cpu in ("cortex-a53", "cortex-a72")
    )
    assert a53 is not None
    assert a72 is not None
    assert a53.instructions == a72.instructions
    assert is_known("litert", cpu="cortex-a53")
    assert not is_known("litert", cpu="cortex-m4")
    assert not is_known("ncnn", cpu="cortex-a72")


def test_a_slower_clock_takes_longer_but_memory_does_not_wait_for_it() -> None:
    works = [[convolution(64, 64, 64, window=9, integer=False)]]
    fast, slow = (
        modelled(works, runtime="litert", precision="fp32", cpu="cortex-a72", clock_mhz=mhz) for mhz in (2000, 1000)
    )
    assert fast is not None
    assert slow is not None
    assert fast.latency_ms is not None
    assert slow.latency_ms is not None
    assert fast.instructions == slow.instructions
    assert fast.latency_ms.value < slow.latency_ms.value <= 2 * fast.latency_ms.value * (1 + ROUNDED)


# ── nothing is free ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
@pytest.mark.parametrize("kernel", [*UNKNOWN, "Conv", "Depthwise", "GRU", "RNN", "MatMul", "PRelu", "Gather"])
@pytest.mark.parametrize("integer", [False, True])
def test_kernels_that_nobody_counted_cost_something(runtime: str, cpu: str, kernel: str, *, integer: bool) -> None:
    one, thousand = (Work(kernel=kernel, integer=integer, reads=n, makes=n, rows=n, depth=9) for n in (1, 1000))
    model = model_of(runtime, cpu)
    small, large = model.of([one, thousand]).sum(axis=1)
    assert 0 < small < large


@pytest.mark.parametrize(("runtime", "cpu"), WAYS)
def test_an_inference_of_nothing_takes_something(runtime: str, cpu: str) -> None:
    assert model_of(runtime, cpu).of([INFERENCE]).sum() > 0
    assert model_of(runtime, cpu).of([]).shape == (0, len(EVENTS))


@given(
    kernel=st.sampled_from([*KERNELS, "DequantizeEnd", "ReduceMax"]),
    integer=st.booleans(),
    activated=st.booleans(),
    numbers=st.lists(st.integers(0, 10**9), min_size=8, max_size=8),
)
def test_what_is_written_is_read_again(kernel: str, numbers: list[int], *, integer: bool, activated: bool) -> None:
    names = ("reads", "makes", "rows", "columns", "depth", "groups", "window", "lines")
    work = Work(kernel=kernel, integer=integer, activated=activated, **dict(zip(names, numbers, strict=True)))
    assert Work.parse(work.text) == work


def test_multiplications_and_weights_by_hand() -> None:
    grouped = Work(kernel="Conv", rows=36, columns=4, depth=27, groups=2, window=9, lines=6)
    assert (grouped.macs, grouped.weights) == (2 * 36 * 4 * 27, 2 * 4 * 27)
    assert Work(kernel="MatMul", rows=7, columns=7, depth=8, groups=2).weights == 0
    assert Work(kernel="LSTM", rows=7, columns=20, depth=21).weights == 20 * 21
    assert "MatMul" in PRODUCTS - WEIGHTED
    assert RECURRENT < WEIGHTED


@pytest.mark.parametrize(
    ("work", "kernel"),
    [
        (Work(kernel="Pointwise"), "Product"),
        (Work(kernel="Projection"), "Product"),
        (Work(kernel="Gemm"), "Gemm"),
        (Work(kernel="Depthwise", window=9, reads=100, makes=100), "Depthwise"),
        (Work(kernel="Depthwise", window=9, reads=400, makes=100), "DepthwiseOther"),  # it skips pixels
        (Work(kernel="Depthwise", window=25, reads=100, makes=100), "DepthwiseOther"),
    ],
)
def test_operations_that_share_a_kernel(work: Work, kernel: str) -> None:
    assert kernel_of(work) == kernel


def test_bytes_that_conversions_touch() -> None:
    """Four of a float and one of an integer, whichever way."""
    for kernel in ("Quantize", "QuantizeEnd", "Dequantize", "DequantizeEnd"):
        work = Work(kernel=kernel, integer=True, reads=100, makes=100)
        assert Footprint.of([work]) == Footprint(weight_bytes=0, total_bytes=500)
    assert Footprint.of([]) == Footprint(weight_bytes=0, total_bytes=0)


def test_steps_read_their_weights_again_where_these_do_not_stay() -> None:
    tile, none = Tile(rows=1, columns=1), Footprint(weight_bytes=0, total_bytes=0)
    small, large = (Work(kernel="LSTM", rows=10, columns=4 * n, depth=2 * n) for n in (16, 128))
    assert misses_from(small, tile, none)["weights again"] == 0
    assert misses_from(large, tile, none)["weights again"] == 9 * 8 * 128 * 128 * 4 / 64
    assert instructions_from(large, tile)["gates"] == 10 * 4 * 128


# ── the tables ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_floats_of_one_runtime_are_counted_once_for_both_processors() -> None:
    rows = networks()
    floats = [row for row in rows if (row.runtime, row.precision) == ("onnxruntime", "fp32")]
    by_cpu = {cpu: {row.network: row for row in floats if row.cpu == cpu} for cpu in ("cortex-a72", "cortex-a76")}
    assert by_cpu["cortex-a72"].keys() == by_cpu["cortex-a76"].keys()
    assert all(by_cpu["cortex-a76"][name].events == row.events for name, row in by_cpu["cortex-a72"].items())
    assert len({(row.network, row.precision, row.runtime, row.cpu) for row in rows}) == len(rows)


@pytest.mark.parametrize("path", [LAYERS, NETWORKS], ids=lambda path: path.stem)
def test_every_counted_row_makes_sense(path: Path) -> None:
    for row in counted(path):
        assert row.works
        assert row.instructions > 0
        assert row.events["L2 miss"] <= row.events["L1 miss"]
        assert all(math.isfinite(number) and number >= 0 for number in row.events.values())
        assert row.precision == "int8" or not any(work.integer for work in row.works)
