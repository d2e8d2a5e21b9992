"""``karui estimate --add``: a board's times become rows, with counts of the very files that were measured."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.artifacts.measured import Benched
from pipeline.benching.added import added
from pipeline.errors import ConfigError
from pipeline.estimating.table import own
from pipeline.onboard.sustained import Point
from pipeline.progress import Silent
from pipeline.runs.measurements import write_measurements
from tests.benching.runs import small_file
from tests.runs.test_measurements import benched, measurements
from tests.runtimes.emulation.systems import emulated_target


@pytest.fixture(autouse=True)
def nothing_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Write what a Raspberry Pi measured of one file at 1800 MHz, on one thread and on four; the file lies beside."""
    file = small_file(tmp_path, "tflite")
    path = tmp_path / "m.json"
    write_measurements(path, measurements(*(of(file, threads) for threads in (1, 4))))
    return path


def of(file: Path, threads: int = 1) -> Benched:
    found = benched(hashlib.sha256(file.read_bytes()).hexdigest(), runtime="litert", threads=threads, p50_ms=0.03)
    points = (Point(at_s=1.0, inferences=500, seconds=1.0, ms=0.03, clock_mhz=1800.0),)
    return replace(found, file=file.name, kept_up=replace(found.kept_up, points=points))


def test_a_measured_file_becomes_a_row_with_its_own_counts(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    emulated_target("raspberry-pi-4b")
    assert cli.main(["estimate", "--add", str(measured)]) == 0
    [row] = own()
    assert (row.cpu, row.clock_mhz, row.board) == ("cortex-a72", 1800, "Raspberry Pi 4 Model B")
    assert (row.runtime, row.model, row.precision, row.published_ms) == ("litert", "small", "int8", 0.03)
    assert row.counts["mlal"] > 0
    assert row.counts["total"] > 1000
    said = capsys.readouterr().out
    assert "small int8 in litert: 0.03 ms on Raspberry Pi 4 Model B at 1800 MHz, " in said
    assert "latency.csv holds 1 times" in said
    [again] = added([measured], [], Silent())  # of the same file: it takes the row's place
    assert own() == (replace(again, counts={name: round(each) for name, each in again.counts.items()}),)
    assert replace(again, counts=row.counts) == row
    assert again.counts["total"] == pytest.approx(row.counts["total"], rel=0.001, abs=64)


def test_the_file_that_was_measured_has_to_be_there(measured: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    file = (tmp_path / "small.int8.tflite").rename(moved / "renamed.tflite")
    with pytest.raises(ConfigError, match=r"small\.int8\.tflite \([0-9a-f]{12}\), which was measured") as refused:
        added([measured], [], Silent())
    assert refused.value.remedy == "say where it is: --file FILE"
    file.write_bytes(file.read_bytes() + b" ")  # the same name is not the same file
    with pytest.raises(ConfigError, match="which was measured, is not beside it"):
        added([measured], [file], Silent())
    with pytest.raises(ConfigError, match="there is no such file"):
        added([measured], [tmp_path / "gone.onnx"], Silent())
    assert own() == ()


def test_other_machines_and_several_threads_are_refused(tmp_path: Path) -> None:
    file, path = small_file(tmp_path), tmp_path / "m.json"
    write_measurements(path, measurements(of(file), profile=None))
    with pytest.raises(ConfigError, match="which is no target that is known"):
        added([path], [], Silent())
    write_measurements(path, measurements(of(file, threads=4)))
    with pytest.raises(ConfigError, match="holds no times on one thread"):
        added([path], [], Silent())
