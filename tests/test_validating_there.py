"""``karui validate --emulate``: the same file on the target's own processor."""

from __future__ import annotations

import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.catalog import find
from pipeline.errors import EmulationError
from pipeline.validating import Question, validate
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture
from tests.runtimes.emulation.systems import emulated_machine, emulated_target
from tests.test_validating import _files as _files  # noqa: PLC0414  a fixture

QUESTION = Question(model=Path("int8.tflite"), data="labelled.npz", target="raspberry-pi-4", emulate=True)


@pytest.fixture
def no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the emulator of whole machines: booting one takes a while."""

    def none(_: object) -> NoReturn:
        raise EmulationError("no machine")

    monkeypatch.setattr("pipeline.instruments.weighed.find_machine", none)


def test_the_target_answers_and_its_memory_is_weighed() -> None:
    emulated_machine("raspberry-pi-4b")
    found = validate(QUESTION)
    assert found.there is not None
    assert found.there.machine.startswith("a cortex-a72 with 1,024 MiB (QEMU ")
    assert found.there.peak_memory_bytes is not None
    assert found.there.does_not_fit == ""
    [check] = [each for each in found.checks if each.quantity == "peak memory"]
    assert (check.got, check.low, check.high) == (found.there.peak_memory_bytes,) * 3


@pytest.mark.usefixtures("no_machine")
def test_the_target_answers_and_its_time_is_estimated() -> None:
    emulated_target("raspberry-pi-4b")
    found = validate(QUESTION)
    assert found.there is not None
    assert found.there.place.text.startswith("emulated on cortex-a72 (QEMU ")
    assert found.there.samples == found.there.of == found.samples
    assert (found.there.same, found.there.identical, found.there.max_steps) == (1.0, 1.0, 0.0)
    assert found.there.value == found.value
    assert found.there.latency_ms is not None
    assert 0 < found.there.latency_ms.low < found.there.latency_ms.value < found.there.latency_ms.high
    assert found.hints == ()
    assert (found.there.peak_memory_bytes, found.there.machine) == (None, "no machine")


@pytest.mark.usefixtures("no_machine")
def test_a_latency_limit_inside_the_range_is_uncertain(karui: Karui) -> None:
    emulated_target("raspberry-pi-4b")
    profile = find("target", "raspberry-pi-4").read_text()
    there = validate(QUESTION).there
    assert there is not None
    assert there.latency_ms is not None
    limit = (there.latency_ms.value + there.latency_ms.high) / 2
    Path("mine.toml").write_text(profile.replace("[limits]", f"[limits]\nlatency_p95_ms = {limit}"))
    done = karui(
        "validate",
        "int8.tflite",
        "--data",
        "labelled.npz",
        "--float",
        "float.tflite",
        "--target",
        "mine.toml",
        "--emulate",
    )
    assert "latency there" in done.out
    assert "latency p95 (int8)" in done.out
    assert "met, not for sure" in done.out
    assert done.status == 5


def test_without_an_emulator_the_rest_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = validate(QUESTION)
    assert found.there is None
    [hint] = found.hints
    assert hint.startswith("raspberry-pi-4b was not emulated: no emulator of aarch64 processors is installed here")
    assert hint.endswith("apt install qemu-user")
    assert found.value.value > 0.8


@pytest.mark.usefixtures("no_machine")
def test_answers_stand_where_nothing_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a compiler the plugin cannot be made."""
    emulated_target("raspberry-pi-4b")
    monkeypatch.setattr("pipeline.runtimes.emulation.counting._SOURCE", _other_source(tmp_path))
    there_is = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "cc" else there_is(name))
    found = validate(QUESTION)
    assert found.there is not None
    assert found.there.identical == 1.0
    assert found.there.latency_ms is None
    assert "needs a C compiler" in found.there.basis


def _other_source(folder: Path) -> Path:
    """Return a plugin that was never compiled."""
    source = folder / "other.c"
    source.write_text(f"/* {folder} */")
    return source


def test_a_runtime_that_dies_there_is_a_missed_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    _, system = emulated_target("raspberry-pi-4b")
    dying = (sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})")
    homes = {name: replace(home, command=dying) for name, home in system.homes.items()}
    monkeypatch.setattr(sys.modules["pipeline.validating.there"], "system_for", lambda _: replace(system, homes=homes))
    found = validate(QUESTION)
    assert found.there is None
    [hint] = found.hints
    assert hint.startswith("raspberry-pi-4b, emulated, does not run the file: litert ")
    assert hint.endswith(" was ended by SIGILL")
    assert (found.checks[0].name, found.checks[0].state, found.state) == ("failures there (int8)", "missed", "missed")


def test_a_file_without_a_runtime_there_is_refused(karui: Karui) -> None:
    board = find("target", "raspberry-pi-4").read_text().replace('"aarch64"', '"armv7l"')
    Path("old.toml").write_text(board)
    Path("some.onnx").touch()
    done = karui("validate", "some.onnx", "--data", "labelled.npz", "--target", "old.toml")
    done.refused(2, "has no runtime for some.onnx: onnxruntime cannot be installed there", "it has tflite-runtime")
