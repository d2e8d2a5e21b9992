"""``karui bench`` as a user meets it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.runs.measurements import read_measurements
from tests.benching.runs import small_file

QUICK = ["--minutes", "0.05"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return small_file(tmp_path)


def test_one_document_and_the_same_in_a_file(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "measurements.json"
    assert cli.main(["bench", str(small), *QUICK, "--json", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads(out.read_bytes())
    assert read_measurements(out).files[0].file == small.name
    assert "1 thread: fresh sessions" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'FILE|RUN"),
        (["--threads", "0"], "'0' is no list of thread counts, for example 1,4"),
        (["--threads", "1,four"], "'1,four' is no list of thread counts"),
        (["--threads", "99999"], "'99999' is no list"),
        (["--minutes", "0"], "Invalid value for '--minutes'"),
        (["--at-most", "1.01"], "only counts have a limit"),
        (["--target", "raspberry-pi-4"], "is no Raspberry Pi 4 Model B"),
        (["--counts", "--target", "raspberry-pie"], "no target is called 'raspberry-pie'"),
        (["--runtime", "litert"], "litert cannot run small.int8.onnx here"),
    ],
)
def test_what_cannot_be_meant(small: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *([str(small)] if arguments else []), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_ctrl_c_ends_it_in_words_with_nothing_half_written(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "measurements.json"
    command = [sys.executable, "-m", "pipeline.cli", "bench", str(small), "--minutes", "5", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()  # it has begun
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    assert "first answers" in line
    assert process.returncode == 130
    assert "error: stopped\n  nothing is kept of a measurement that did not end" in said
    assert printed == ""
    assert not out.parent.exists()
