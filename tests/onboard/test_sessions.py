"""Sessions take and give named arrays in the trained network's layout: several, of any rank and type, for any n."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.onboard.arrays import Arrays, Signature, TensorSpec
from pipeline.onboard.faults import FileRefused, InputRefused, RuntimeMissing
from pipeline.onboard.session import MODULES, Session, module_of, open_session
from pipeline.onboard.tflite_session import TfliteSession
from tests.onboard import odd_models
from tests.onboard.small_models import MAPS_SHAPE, SAMPLE_SHAPE, Flat, inputs, onnx_bytes, small_net, tflite_bytes

NET = small_net()
HERE = ("onnxruntime", "litert")  # tflite-runtime lives elsewhere: tests/runtimes
FLOAT_TOLERANCE = 5e-6  # float32 sums of 18 and 8 products of size 1
RNG = np.random.default_rng(3)


def spec(name: str, *shape: int, axes: str = "", dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape, axes or "?" * len(shape))


def opened(folder: Path, runtime: str, data: bytes, **given: Any) -> Session:
    if runtime == "litert":
        pytest.importorskip("ai_edge_litert")
    path = folder / ("model.onnx" if runtime == "onnxruntime" else "model.tflite")
    path.write_bytes(data)
    return open_session(path, runtime, **given)


def small(folder: Path, runtime: str, *, int8: bool = False, maps: bool = False, **given: Any) -> Session:
    write = onnx_bytes if runtime == "onnxruntime" else tflite_bytes
    return opened(folder, runtime, write(NET, int8=int8, maps=maps), **given)


# ── layout ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", HERE)
@pytest.mark.parametrize("count", [0, 1, 2, 256, 300])  # none, one, few, a whole batch, a batch and a part
def test_maps_come_back_as_the_trained_network_has_them(tmp_path: Path, runtime: str, count: int) -> None:
    x = inputs(count)
    session = small(tmp_path, runtime, maps=True)
    (y,) = session.run({"x": x}).values()
    assert (y.shape, y.dtype.name) == ((count, *MAPS_SHAPE), "float32")
    np.testing.assert_allclose(y, NET.maps(x), atol=FLOAT_TOLERANCE)
    assert session.signature.input == spec("x", *SAMPLE_SHAPE, axes="CHW")
    assert session.signature.output.shape == MAPS_SHAPE
    assert session.signature.output.axes == "KHW"


def test_int8_maps_are_the_same_in_both_runtimes(tmp_path: Path) -> None:
    x = inputs(300)
    onnx, tflite = (small(tmp_path, runtime, int8=True, maps=True, signature=MAPS) for runtime in HERE)
    first, second = (session.run({"picture": x})["map"] for session in (onnx, tflite))
    step = tflite.steps["map"]
    assert step == pytest.approx(NET.ranges["conv"][0], rel=1e-6)
    # one step: TFLite rounds its fixed-point multiplier, ONNX Runtime multiplies in float32
    assert np.abs(first - second).max() <= 1.01 * step
    assert (first == second).mean() > 0.99


MAPS = Signature(
    (spec("picture", *SAMPLE_SHAPE, axes="CHW"),), (spec("map", *MAPS_SHAPE, axes="KHW"),), carried={"map": "picture"}
)


@pytest.mark.parametrize("runtime", HERE)
def test_the_names_of_a_signature_take_the_place_of_the_files(tmp_path: Path, runtime: str) -> None:
    session = small(tmp_path, runtime, maps=True, signature=MAPS)
    assert session.signature == MAPS
    assert list(session.run({"picture": inputs(3)})) == ["map"]
    with pytest.raises(InputRefused, match=r"inputs \['x'\] were given, \['picture'\] are wanted"):
        session.run({"x": inputs(3)})


@pytest.mark.parametrize("runtime", HERE)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Signature((spec("p", 6, 6, 2),), MAPS.outputs), r"'p' has the shape \(2, 6, 6\) in the file and \(6, 6, 2\)"),
        (Signature(MAPS.inputs, (spec("m", 4, 4, 8),)), r"'m' has the shape \(8, 4, 4\) in the file and \(4, 4, 8\)"),
        (Signature(MAPS.inputs, (spec("m", 128),)), r"in the file and \(128,\)"),
        (Signature(MAPS.inputs * 2, MAPS.outputs), r"1 tensor \(x\), its signature 2 tensors \(picture, picture\)"),
        (Signature(MAPS.inputs, ()), r"its signature 0 tensors"),
    ],
)
def test_a_file_that_is_not_as_signed_is_refused(tmp_path: Path, runtime: str, wrong: Signature, words: str) -> None:
    with pytest.raises(FileRefused, match=words):
        small(tmp_path, runtime, maps=True, signature=wrong)


# ── several inputs and outputs ──────────────────────────────────────────────────────────────────────────────────────

TWO = Signature(
    (spec("picture", 3, 4, 5, axes="CHW"), spec("offset", 3, 1, 1)), (spec("shifted", 3, 4, 5), spec("mean", 3))
)


def two_by_two(folder: Path, runtime: str) -> Session:
    data = odd_models.two_by_two_onnx() if runtime == "onnxruntime" else odd_models.two_by_two_tflite()
    return opened(folder, runtime, data, signature=TWO)


@pytest.mark.parametrize("runtime", HERE)
@pytest.mark.parametrize("count", [1, 5, 257])
def test_two_inputs_and_two_outputs(tmp_path: Path, runtime: str, count: int) -> None:
    picture, offset = (RNG.normal(size=(count, *shape)).astype(np.float32) for shape in ((3, 4, 5), (3, 1, 1)))
    y = two_by_two(tmp_path, runtime).run({"offset": offset, "picture": picture})
    np.testing.assert_array_equal(y["shifted"], picture + offset)
    np.testing.assert_allclose(y["mean"], (picture + offset).mean((2, 3)), atol=FLOAT_TOLERANCE)


def test_names_that_the_file_has_decide_and_not_the_order(tmp_path: Path) -> None:
    turned = Signature(TWO.inputs[::-1], TWO.outputs[::-1])
    session = opened(tmp_path, "onnxruntime", odd_models.two_by_two_onnx(), signature=turned)
    y = session.run({"picture": np.ones((2, 3, 4, 5), np.float32), "offset": np.ones((2, 3, 1, 1), np.float32)})
    assert {name: array.shape for name, array in y.items()} == {"shifted": (2, 3, 4, 5), "mean": (2, 3)}


@pytest.mark.parametrize("runtime", HERE)
@pytest.mark.parametrize(
    ("picture", "offset", "words"),
    [
        ((4, 3, 4, 5), (3, 3, 1, 1), r"input 'offset' has the shape \(3, 3, 1, 1\), \(4, 3, 1, 1\) is wanted"),
        ((4, 4, 5, 3), (4, 3, 1, 1), r"input 'picture' has the shape \(4, 4, 5, 3\), \(4, 3, 4, 5\) is wanted"),
        ((4, 60), (4, 3, 1, 1), r"input 'picture' has the shape \(4, 60\)"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    tmp_path: Path, runtime: str, picture: tuple[int, ...], offset: tuple[int, ...], words: str
) -> None:
    session = two_by_two(tmp_path, runtime)
    given = {"picture": np.zeros(picture, np.float32), "offset": np.zeros(offset, np.float32)}
    for use in (session.run, session.timer):
        with pytest.raises(InputRefused, match=words):
            use(given)
    with pytest.raises(InputRefused, match=r"inputs \['picture'\] were given, \['offset', 'picture'\] are wanted"):
        session.run({"picture": given["picture"]})


# ── types ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", HERE)
def test_integers_go_in_as_the_file_wants_them(tmp_path: Path, runtime: str) -> None:
    data = odd_models.words_onnx() if runtime == "onnxruntime" else odd_models.words_tflite()
    session = opened(tmp_path, runtime, data)
    words = np.array([[3, 0], [1, 1], [2, 3]], np.int16)
    y = session.run({"words": words})
    np.testing.assert_array_equal(y["numbers"], odd_models.TABLE[words])
    np.testing.assert_array_equal(session.run({"words": words.astype(np.float32)})["numbers"], y["numbers"])
    assert session.signature.input.dtype == ("int64" if runtime == "onnxruntime" else "int32")
    if runtime == "onnxruntime":
        assert y["again"].dtype == np.int64  # integers are no quantized floats: they stay


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        (np.uint8, [-3.4, 3.6, 300], [0, 4, 255]),
        (np.int8, [-300, 2.5, 126.6], [-128, 2, 127]),
        (np.int32, [-1e12, 0, 1e12], [-(2.0**31), 0, 2.0**31]),  # float32 has no 2**31 - 1
    ],
)
def test_floats_for_an_integer_input_are_rounded_and_saturate(
    tmp_path: Path, kind: type[np.generic], given: list[float], wanted: list[float]
) -> None:
    session = opened(tmp_path, "litert", odd_models.cast_tflite(kind))
    assert session.run({"x": np.array([given], np.float32)})["y"].tolist() == [wanted]


def test_steps_are_those_of_the_file_or_those_given(tmp_path: Path) -> None:
    assert small(tmp_path, "litert", int8=True).steps == {"y": pytest.approx(NET.ranges["y"][0], rel=1e-6)}
    assert small(tmp_path, "litert", int8=False).steps == {}
    assert small(tmp_path, "onnxruntime", int8=True).steps == {}  # a device has no onnx package to read the file with
    assert small(tmp_path, "onnxruntime", int8=True, steps={"y": 0.5, "other": 1.0}).steps == {"y": 0.5}


def test_an_exact_session_does_not_overflow_on_any_processor(tmp_path: Path) -> None:
    """Fast kernels of x86 without VNNI add pairs of 8-bit products in 16 bits: 2 · 255 · 127 does not fit."""
    session = opened(tmp_path, "onnxruntime", odd_models.overflowing_onnx(), exact=True)
    total = 127 * 255 * 64
    for count in (1, 9):  # one row and many have kernels of their own
        y = session.run({"x": np.full((count, 64), 255, np.float32)})["y"]
        np.testing.assert_allclose(y, [[total, 2 * total]] * count, rtol=1e-6)


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_an_onnx_file_with_a_fixed_batch_takes_any_number_of_samples(tmp_path: Path, batch: int, count: int) -> None:
    session = opened(tmp_path, "onnxruntime", odd_models.two_by_two_onnx(batch))
    picture, offset = (RNG.normal(size=(count, *shape)).astype(np.float32) for shape in ((3, 4, 5), (3, 1, 1)))
    y = session.run({"picture": picture, "offset": offset})
    np.testing.assert_array_equal(y["shifted"], picture + offset)


@pytest.mark.parametrize(
    ("data", "factor"),
    [
        pytest.param(odd_models.mixing_tflite(), 2, id="a resized batch mixes the samples up"),
        pytest.param(odd_models.rigid_tflite(), 2, id="the graph cannot be resized"),
    ],
)
def test_a_batch_is_trusted_only_where_it_gives_what_single_runs_give(
    tmp_path: Path, data: bytes, factor: float
) -> None:
    session = opened(tmp_path, "litert", data)
    x = RNG.normal(size=(9, 4)).astype(np.float32)
    for _ in range(2):  # what was found out is kept
        np.testing.assert_allclose(session.run({"x": x})["y"].reshape(9, 4), factor * x, atol=FLOAT_TOLERANCE)


def test_batches_are_used_where_they_can_be(tmp_path: Path) -> None:
    """The other half of the test above: single runs alone would pass it."""
    session = small(tmp_path, "litert")
    assert isinstance(session, TfliteSession)
    calls: list[int] = []
    single = session._run_single

    def counted(inputs: Arrays) -> dict[str, np.ndarray]:
        calls.append(1)
        return single(inputs)

    session._run_single = counted  # type: ignore[method-assign]
    session.run({"x": inputs(300)})
    session.run({"x": inputs(300)})
    assert len(calls) == 4  # the samples that were compared, once


@pytest.mark.parametrize("runtime", HERE)
def test_samples_do_not_influence_each_other(tmp_path: Path, runtime: str) -> None:
    session = small(tmp_path, runtime, int8=True)
    x = inputs(20)
    whole = session.run({"x": x})["y"]
    for number in (0, 7, 19):
        np.testing.assert_array_equal(session.run({"x": x[number : number + 1]})["y"], whole[number : number + 1])


def test_an_output_that_is_not_one_per_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="'y' has no axis for samples"):
        opened(tmp_path, "onnxruntime", odd_models.whole_onnx())


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", HERE)
def test_the_timer_times_single_inferences_and_leaves_the_session_alone(tmp_path: Path, runtime: str) -> None:
    session = small(tmp_path, runtime, int8=True)
    x = inputs(40)
    before = session.run({"x": x})["y"]
    timer = session.timer({"x": x[:1]})
    times = timer(7)
    assert len(times) == 7
    assert all(0 < each < 1000 for each in times)
    assert timer(0) == []
    assert len(timer(2)) == 2  # again and again
    np.testing.assert_array_equal(session.run({"x": x})["y"], before)
    del session
    assert len(timer(1)) == 1  # it holds what it needs


def test_the_collector_rests_while_the_clock_runs(tmp_path: Path) -> None:
    from pipeline.onboard.feed import timer_of  # noqa: PLC0415  # of this test alone

    seen: list[tuple[str, bool]] = []
    timer = timer_of(lambda: seen.append(("call", gc.isenabled())), before=lambda: seen.append(("before", False)))
    assert len(timer(2)) == 2
    assert seen == [("before", False), ("call", False)] * 3  # one of them untimed
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        timer_of(lambda: 1 / 0)(1)
    assert gc.isenabled()


# ── what cannot be opened ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", HERE)
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, runtime: str, damage: str) -> None:
    whole = (onnx_bytes if runtime == "onnxruntime" else tflite_bytes)(NET, int8=True)
    path = tmp_path / "damaged"
    path.write_bytes({"empty": b"", "noise": b"\xff" * 500, "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(FileRefused, match=r"damaged: .*cannot load this file"):
        open_session(path, runtime)


def test_an_input_of_an_absurd_size_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    flat = Flat()
    x, y = (flat.tensor(name, (1 << 25, 4), np.float32) for name in ("x", "y"))
    flat.op("RELU", 1, [x], y)
    with pytest.raises(FileRefused, match=r"its input 'x' has the shape \[33554432, 4\], too large to mean"):
        opened(tmp_path, "litert", flat.dump([x], [y]))


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileRefused, match=r"nothing\.onnx: no such model file"):
        open_session(tmp_path / "nothing.onnx", "onnxruntime")
    with pytest.raises(RuntimeMissing, match="there is no runtime 'tensorrt'") as found:
        module_of("tensorrt")
    assert found.value.remedy == "known: onnxruntime, litert, tflite-runtime"
    monkeypatch.delitem(sys.modules, MODULES["onnxruntime"], raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # import raises ImportError
    with pytest.raises(RuntimeMissing, match="onnxruntime is not installed here"):
        module_of("onnxruntime")


@pytest.mark.parametrize("runtime", HERE)
def test_every_module_tries_its_runtime_out(runtime: str) -> None:
    if runtime == "litert":
        pytest.importorskip("ai_edge_litert")
    assert module_of(runtime).why_not(runtime) is None
    assert module_of(runtime).version(runtime)[0].isdigit()


def test_a_closed_session_lets_go_of_its_file(tmp_path: Path) -> None:
    for runtime in HERE:
        session = small(tmp_path, runtime)
        session.close()
        with pytest.raises(AttributeError):
            session.run({"x": inputs(1)})
