"""``karui validate --emulate``: the same file on the target's own processor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.catalog import find
from pipeline.validating import Question, validate
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture
from tests.runtimes.emulation.systems import emulated_target
from tests.test_validating import _files as _files  # noqa: PLC0414  a fixture

QUESTION = Question(model=Path("int8.tflite"), data="labelled.npz", target="raspberry-pi-4", emulate=True)


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
