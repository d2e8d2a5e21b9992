"""Counts of instructions: the same every time, and those of the processor that is emulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import EmulationError
from pipeline.runtimes.child import Home
from pipeline.runtimes.emulation.counting import Counting, Counts
from pipeline.runtimes.emulation.processors import Processor
from pipeline.runtimes.emulation.system import Emulator, System
from tests.onboard.small_models import inputs, small_net, tflite_bytes
from tests.runtimes.emulation.systems import emulated_target

REPEAT_WITHIN = 0.001
FEW_WITHIN = 0.02
PYTHONS_OWN = 64  # instructions by which the loop around an inference varies: much beside a network this small


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(tflite_bytes(small_net(), int8=True))
    return path


def counted(path: Path, target: str, times: int = 1) -> list[Counts]:
    _, system = emulated_target(target)
    with Counting(system) as counting:
        return [counting.count(path, "litert", {"x": inputs(1)}) for _ in range(times)]


def test_counts_repeat(small: Path) -> None:
    once, again = counted(small, "raspberry-pi-4b", 2)
    elsewhere = counted(small, "raspberry-pi-4b")[0]  # in a process of its own
    for other in (again, elsewhere):
        assert other["total"] == pytest.approx(once["total"], rel=REPEAT_WITHIN, abs=PYTHONS_OWN)
        assert other["mlal"] == once["mlal"]
    assert sum(once[name] for name in once if name in CLASSES) == pytest.approx(once["total"])
    assert 0 < once["l1d_miss"] < once["accesses"]
    assert once["bytes_ld"] > once["bytes_st"] > 0


def test_few_inferences_tell_as_much_as_many(small: Path) -> None:
    _, system = emulated_target("raspberry-pi-4b")
    with Counting(system) as counting:
        many, few, one = (counting.count(small, "litert", {"x": inputs(1)}, more=more) for more in (None, 4, 0))
    assert few["total"] == pytest.approx(many["total"], rel=FEW_WITHIN)
    assert few["mlal"] == one["mlal"] == many["mlal"]
    assert one["total"] > many["total"]  # with what stands around it


def test_a_newer_core_multiplies_with_fewer_instructions(small: Path) -> None:
    """A Cortex-A76 adds four 8-bit products in one step (SDOT); an A72 has no such instruction."""
    [older], [newer] = counted(small, "raspberry-pi-4b"), counted(small, "raspberry-pi-5")
    assert older["dot"] == 0 < older["mlal"]
    assert newer["dot"] > 0
    assert newer["total"] < older["total"]


CLASSES = {
    *("branch", "load", "load_pair", "load_q", "load_pair_q", "load_struct", "store", "store_q"),
    *("int_alu", "int_shift", "int_mul", "int_div", "fp_scalar", "fmla_vec", "fp_vec", "dot", "mlal", "mul_vec"),
    *("simd_alu", "simd_perm", "simd_narrow_shift", "simd_cvt", "sys", "atomic", "other"),
}


def system_with(folder: Path, help_text: str) -> System:
    """Return a system whose emulator knows no more than to print its help."""
    emulator = folder / "emulator"
    emulator.write_text(f"#!/bin/sh\necho '{help_text}'\n")
    emulator.chmod(0o755)
    return System(
        processor=Processor(architecture="aarch64", name="cortex-a72"),
        emulator=Emulator(path=emulator, version="7.2"),
        homes={"litert": Home(command=(str(emulator),))},
        not_usable={},
    )


def test_an_emulator_without_plugins_is_refused_before_it_ends(small: Path, tmp_path: Path) -> None:
    system = system_with(tmp_path, "-cpu model")
    with Counting(system) as counting, pytest.raises(EmulationError, match="takes no plugins") as refused:
        counting.count(small, "litert", {"x": inputs(1)})
    assert refused.value.remedy == "install one that does: apt install qemu-user"


def test_without_a_compiler_it_is_said(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = system_with(tmp_path, "-plugin file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with Counting(system) as counting, pytest.raises(EmulationError, match="needs a C compiler") as refused:
        counting.count(small, "litert", {"x": inputs(1)})
    assert refused.value.remedy == "install one: apt install gcc"
