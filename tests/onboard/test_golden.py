"""Recorded samples: what passes, what does not, and where the largest difference is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.onboard.faults import FileRefused, InputRefused
from pipeline.onboard.golden import Golden, Tolerance, check_golden, load_golden, save_golden
from pipeline.onboard.session import Session, open_session
from tests.onboard import odd_models
from tests.onboard.small_models import inputs, onnx_bytes, small_net

NET = small_net()
STEP = NET.ranges["y"][0]


def session(folder: Path, *, int8: bool) -> Session:
    path = folder / "small.onnx"
    path.write_bytes(onnx_bytes(NET, int8=int8))
    return open_session(path, "onnxruntime", steps={"y": STEP} if int8 else {})


def recorded(folder: Path, *, int8: bool) -> tuple[Session, Golden]:
    ready = session(folder, int8=int8)
    x = inputs(6)
    return ready, Golden({"x": x}, ready.run({"x": x}))


def moved(golden: Golden, sample: int, by: float) -> Golden:
    y = np.array(golden.outputs["y"])
    y[sample, 1] += by
    return Golden(golden.inputs, {"y": y})


@pytest.mark.parametrize("int8", [False, True])
def test_the_same_file_passes_with_no_difference(tmp_path: Path, int8: bool) -> None:
    result = check_golden(*recorded(tmp_path, int8=int8))
    assert result.ok
    assert result.largest == 0


@pytest.mark.parametrize(("steps", "ok"), [(1, True), (-1, True), (2, False), (-2, False)])
def test_int8_outputs_may_be_one_step_away(tmp_path: Path, steps: int, ok: bool) -> None:
    ready, golden = recorded(tmp_path, int8=True)
    result = check_golden(ready, moved(golden, 4, steps * STEP))
    assert (result.ok, result.output, result.sample) == (ok, "y", 4)
    assert result.largest == pytest.approx(abs(steps), rel=1e-4)
    assert "output 'y', sample 4" in result.summary
    assert "steps" in result.summary


def test_float_outputs_are_compared_with_their_size(tmp_path: Path) -> None:
    ready, golden = recorded(tmp_path, int8=False)
    size = float(np.abs(golden.outputs["y"]).max())
    assert check_golden(ready, moved(golden, 2, 0.5e-4 * size)).ok
    result = check_golden(ready, moved(golden, 2, 3e-4 * size))
    assert not result.ok
    assert result.sample == 2
    assert result.largest == pytest.approx(3e-4, rel=0.1)
    assert check_golden(ready, moved(golden, 2, 3e-4 * size), Tolerance(relative=1e-3)).ok


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_a_difference(tmp_path: Path, value: float) -> None:
    ready, golden = recorded(tmp_path, int8=False)
    result = check_golden(ready, moved(golden, 3, value))
    assert not result.ok
    assert result.sample == 3
    assert result.largest == np.inf


def test_the_worst_of_several_outputs_is_told(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    path.write_bytes(odd_models.two_by_two_onnx())
    ready = open_session(path, "onnxruntime")
    given = {"picture": np.ones((3, 3, 4, 5), np.float32), "offset": np.zeros((3, 3, 1, 1), np.float32)}
    outputs = ready.run(given)
    outputs["mean"] = outputs["mean"] + np.array([[0], [0], [0.1]], np.float32)
    result = check_golden(ready, Golden(given, outputs))
    assert (result.ok, result.output, result.sample) == (False, "mean", 2)


def test_another_file_is_refused_or_fails(tmp_path: Path) -> None:
    ready, golden = recorded(tmp_path, int8=False)
    with pytest.raises(FileRefused, match=r"makes \['y'\], recorded were \['z'\]"):
        check_golden(ready, Golden(golden.inputs, {"z": golden.outputs["y"]}))
    with pytest.raises(FileRefused, match=r"shape \(6, 3\), recorded was \(6, 2\)"):
        check_golden(ready, Golden(golden.inputs, {"y": golden.outputs["y"][:, :2]}))
    with pytest.raises(InputRefused):
        check_golden(ready, Golden({"x": golden.inputs["x"][:, :1]}, golden.outputs))
    other = dataclasses.replace(NET, linear_bias=NET.linear_bias + np.float32(1))
    (tmp_path / "other.onnx").write_bytes(onnx_bytes(other, int8=False))
    assert not check_golden(open_session(tmp_path / "other.onnx", "onnxruntime"), golden).ok


def test_recorded_samples_survive_a_file(tmp_path: Path) -> None:
    golden = Golden(
        {"in/x:0": inputs(2), "words": np.array([[1], [2]], np.int32)}, {"file": np.zeros((2, 0, 3), np.float32)}
    )
    save_golden(tmp_path / "a.golden", golden)
    save_golden(tmp_path / "b.golden", golden)
    assert (tmp_path / "a.golden").read_bytes() == (tmp_path / "b.golden").read_bytes()
    back = load_golden(tmp_path / "a.golden")
    for wanted, got in ((golden.inputs, back.inputs), (golden.outputs, back.outputs)):
        assert list(wanted) == list(got)
        for name, array in wanted.items():
            np.testing.assert_array_equal(got[name], array)
            assert got[name].dtype == array.dtype


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "pickle", "other"])
def test_a_file_that_holds_no_samples_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "golden.npz"
    save_golden(path, Golden({"x": inputs(50)}, {"y": inputs(50)}))
    whole = path.read_bytes()
    if damage == "pickle":  # would run what it says
        with path.open("wb") as file:
            np.savez(file, **{"in:x": np.array([print], object), "out:y": np.zeros(1)})  # type: ignore[arg-type]
    elif damage == "other":
        np.savez(path, x=np.zeros(3))
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(FileRefused, match=r"golden\.npz"):
        load_golden(path)
