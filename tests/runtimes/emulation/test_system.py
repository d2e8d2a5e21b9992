"""A target's processor on this machine: found, set up, and as honest as the real one."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import numpy as np
import pytest

from pipeline import catalog
from pipeline.declare.words import RuntimeName
from pipeline.errors import EmulationError
from pipeline.onboard.faults import ProcessDied
from pipeline.runtimes import open_session, unavailable
from pipeline.runtimes.child import Child, Home
from pipeline.runtimes.emulation.system import find_emulator, stand_in
from pipeline.runtimes.emulation.tried import tried
from tests.onboard.small_models import inputs, onnx_bytes, small_net, tflite_bytes
from tests.runtimes.emulation.systems import THIRTY_TWO_BITS, emulated_target

STEPS_APART = 2.5  # tflite-runtime rounds otherwise on other processors


def test_without_an_emulator_the_command_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmulationError, match="no emulator of aarch64") as refused:
        find_emulator("aarch64")
    assert refused.value.remedy == "install it: apt install qemu-user"


def test_a_target_beyond_the_emulator_is_refused() -> None:
    with pytest.raises(EmulationError, match=r"x86-laptop-vnni cannot be emulated: QEMU emulates no AVX-512"):
        stand_in(catalog.load_target("x86-laptop-vnni"))


def test_runtimes_of_a_pi_are_those_of_this_machine() -> None:
    target, system = emulated_target("raspberry-pi-4b")
    assert set(system.homes) == {name for name in ("onnxruntime", "litert", "tflite-runtime") if not unavailable(name)}
    said = tried(target)
    assert said.startswith("raspberry-pi-4b: cortex-a72 (QEMU ")
    assert "onnxruntime 1." in said
    assert "litert 2." in said


def test_32_bits_run_the_one_runtime_that_has_a_wheel(tmp_path: Path) -> None:
    target, system = emulated_target(THIRTY_TWO_BITS)
    assert set(system.homes) == {"tflite-runtime"}
    said = tried(target).splitlines()
    assert said[0].startswith("thirty-two-bits: cortex-a7 (QEMU ")
    assert said[0].split(" runs ")[1].startswith("tflite-runtime 2.")
    assert said[1] == "  its memory: whole machines are emulated for aarch64 alone"
    path = tmp_path / "small.tflite"
    path.write_bytes(tflite_bytes(small_net(), int8=True))
    here, there = (open_session(path, "tflite-runtime", home=home) for home in (None, system.homes["tflite-runtime"]))
    with contextlib.closing(here), contextlib.closing(there):
        assert there.signature == here.signature
        apart = there.run({"x": inputs(20)})["y"] - here.run({"x": inputs(20)})["y"]
        assert np.abs(apart).max() < STEPS_APART * here.steps["y"]


@pytest.mark.parametrize(
    ("target", "runtime"),
    [
        ("raspberry-pi-4b", "onnxruntime"),
        ("raspberry-pi-4b", "litert"),
        ("raspberry-pi-5", "onnxruntime"),
        ("x86-laptop-avx2", "onnxruntime"),
    ],
)
def test_a_small_int8_file_gives_the_same_there(tmp_path: Path, target: str, runtime: RuntimeName) -> None:
    _, system = emulated_target(target)
    write = onnx_bytes if runtime == "onnxruntime" else tflite_bytes
    path = tmp_path / f"small.{'onnx' if runtime == 'onnxruntime' else 'tflite'}"
    path.write_bytes(write(small_net(), int8=True))
    here = open_session(path, runtime, exact=True)
    there = open_session(path, runtime, home=system.homes[runtime])
    with contextlib.closing(there):
        assert there.steps == here.steps
        assert there.signature == here.signature
        np.testing.assert_array_equal(there.run({"x": inputs(20)})["y"], here.run({"x": inputs(20)})["y"])


SDOT = (
    "import ctypes, mmap, struct; page = mmap.mmap(-1, 4096, prot=7); "
    "page[:8] = struct.pack('<II', 0x4e829420, 0xd65f03c0); "  # sdot v0.4s, v1.16b, v2.16b; ret
    "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))(); print('ran')"
)


def test_only_processors_that_have_an_instruction_run_it() -> None:
    """A wheel that was built for another processor dies here as it does there, and its signal is the result."""
    for target, runs in (("raspberry-pi-4b", False), ("raspberry-pi-5", True)):
        _, system = emulated_target(target)
        home = system.homes["onnxruntime"]
        child = Child("onnxruntime", Home(command=(*home.command, "-c", SDOT)))
        with contextlib.closing(child), pytest.raises(ProcessDied) as died:
            child.ask("version", {"runtime": "onnxruntime"}, timeout_s=60)
        assert (signal.SIGILL.name in str(died.value)) != runs
