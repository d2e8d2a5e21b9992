"""``karui bench --counts``: files compared by what they execute on an emulated processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from tests.benching.runs import small_file
from tests.runtimes.emulation.systems import emulated_target


def test_files_are_compared_and_a_missed_limit_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emulated_target("raspberry-pi-4b")
    command = ["bench", "--counts", *(str(small_file(tmp_path, "tflite", each)) for each in ("fp32", "int8"))]
    assert cli.main([*command, "--at-most", "1.01", "--json"]) == 3
    first, second = json.loads(capsys.readouterr().out)["files"]
    assert (first["file"], first["runtime"], first["ratio"]) == ("small.fp32.tflite", "litert", 1.0)
    assert second["ratio"] == second["counts"]["total"] / first["counts"]["total"] > 1.01
    assert (first["counts"]["mlal"], second["counts"]["mlal"] > 0) == (0.0, True)
    assert cli.main([*command, "--at-most", "2"]) == 0
    said = capsys.readouterr().out
    assert "one inference on the emulated cortex-a72 of raspberry-pi-4b, one thread" in said
    assert "✓ at most 2 times the first" in said


def test_a_runtime_that_the_target_has_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--counts", str(small_file(tmp_path)), "--target", "x86-laptop-vnni"]) == 1
    assert "QEMU emulates no AVX-512" in capsys.readouterr().err
