"""Profiles of machines from copies of their own /proc and /sys, and of this one."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import host
from pipeline.declare.target import CpuSpec, MemorySpec, TargetProfile
from pipeline.errors import ConfigError

PI4 = {
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\n\n"
    "Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/meminfo": "MemTotal:        3884368 kB\nMemFree:         2881948 kB\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
}
HASWELL = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7-4600U CPU @ 2.10GHz\ncpu MHz\t\t: 1234.5\n"
    "flags\t\t: fpu sse4_2 avx2 fma\n",
    "proc/meminfo": "MemTotal:        8000000 kB\n",
    **{
        f"sys/devices/system/cpu/cpu0/cache/index{index}/{key}": value
        for index, cache in enumerate([("1", "Data", "32K"), ("1", "Instruction", "32K"), ("3", "Unified", "4M")])
        for key, value in zip(("level", "type", "size"), cache, strict=True)
    },
}


def machine(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def target(*, title: str = "T", model: str, isa: tuple[str, ...] = (), name: str = "t") -> TargetProfile:
    architecture = host.host_profile().cpu.architecture
    cpu = CpuSpec(architecture=architecture, model=model, isa=isa, cores=4, clock_mhz=1000)
    return TargetProfile(
        name=name, title=title, cpu=cpu, memory=MemorySpec(size_bytes=1), os="Linux", python="3.11", threads=1
    )


def test_raspberry_pi_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    root = machine(tmp_path, PI4)
    profile = host.host_profile(root)
    assert (profile.cpu.architecture, profile.cpu.model, profile.cpu.clock_mhz) == ("aarch64", "Cortex-A72", 1800)
    assert profile.cpu.isa == ("asimd", "cpuid", "crc32", "evtstrm", "fp")
    assert (profile.memory.size_bytes, profile.os) == (3884368 * 1024, "Debian GNU/Linux 12 (bookworm)")
    assert profile.weight_bits == 8
    assert host.machine_name(root).startswith("Raspberry Pi 4 Model B, Cortex-A72, ")


def test_avx2_without_vnni_gets_seven_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    root = machine(tmp_path, HASWELL)
    profile = host.host_profile(root)
    assert (profile.weight_bits, profile.saturates_int16) == (7, True)
    assert (profile.cpu.l1d_bytes, profile.cpu.l2_bytes, profile.cpu.l3_bytes) == (32768, 0, 4 * 2**20)
    assert profile.cpu.clock_mhz == 2100  # the nominal one, not what it happens to run at
    assert host.machine_name(root).startswith("Intel Core i7-4600U, ")


@pytest.mark.parametrize(
    ("title", "same"),
    [
        ("Raspberry Pi 4 Model B", True),
        ("Raspberry Pi 4 Model B (4 GB)", True),
        ("Raspberry Pi 4", True),
        ("Raspberry Pi 3 Model B+", False),
        ("Raspberry Pi 400", False),
    ],
)
def test_a_board_is_known_by_its_name(tmp_path: Path, title: str, same: bool) -> None:
    assert host.is_this_machine(target(title=title, model="BCM2711"), machine(tmp_path, PI4)) is same


def test_pi_3b_plus_is_not_a_3b(tmp_path: Path) -> None:
    root = machine(tmp_path, PI4 | {"proc/device-tree/model": "Raspberry Pi 3 Model B Plus Rev 1.3\0"})
    assert host.is_this_machine(target(title="Raspberry Pi 3 Model B+", model="BCM2837B0"), root)
    assert not host.is_this_machine(target(title="Raspberry Pi 3 Model B", model="BCM2837"), root)


@pytest.mark.parametrize(
    ("model", "isa", "same"),
    [
        ("Intel Core i7-4600U", ("avx2",), True),
        ("Intel Core i7-4600U", ("avx2", "avx512_vnni"), False),
        ("Intel Core i7-4600", (), False),
        ("any x86-64 laptop with AVX2", ("avx2",), False),
    ],
)
def test_a_pc_is_known_by_model_and_instruction_sets(
    tmp_path: Path, model: str, isa: tuple[str, ...], same: bool
) -> None:
    assert host.is_this_machine(target(model=model, isa=isa), machine(tmp_path, HASWELL)) is same


def test_host_is_this_machine_and_an_other_architecture_is_not() -> None:
    here = host.host_profile()
    assert host.is_this_machine(here)
    assert host.is_this_machine(here.model_copy(update={"name": "mine"})) is (not Path("/proc/device-tree").exists())
    other = "armv7l" if here.cpu.architecture != "armv7l" else "x86_64"
    foreign = here.cpu.model_copy(update={"architecture": other})
    assert not host.is_this_machine(here.model_copy(update={"name": "mine", "cpu": foreign}))


def test_an_unknown_architecture_is_an_error_for_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    with pytest.raises(ConfigError, match="s390x"):
        host.host_profile(tmp_path)


def test_without_proc_python_answers(tmp_path: Path) -> None:
    profile = host.host_profile(tmp_path)
    assert profile.cpu.model
    assert profile.memory.size_bytes > 2**20


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the quick way is Linux's")
def test_fast_and_without_torch() -> None:
    code = "import sys; from pipeline.host import host_profile; host_profile(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    host.host_profile.cache_clear()
    start = time.perf_counter()
    host.host_profile()
    assert time.perf_counter() - start < 0.05


def test_training_device(tmp_path: Path) -> None:
    assert host.training_device("cpu", tmp_path) == "cpu"
    assert host.training_device("auto", tmp_path) == "cpu"  # no driver there
    with pytest.raises(ConfigError, match="no CUDA device here"):
        host.training_device("cuda", tmp_path)
    machine(tmp_path, {"proc/driver/nvidia/version": "NVRM version: 1\n"})
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    built_with_cuda = any((Path(torch.origin).parent / "lib").glob("*torch_cuda*"))
    assert host.training_device("auto", tmp_path) == ("cuda" if built_with_cuda else "cpu")


def test_cores_follow_affinity() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity on this system")
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from pipeline.host import *; "
    code += "print(usable_cores(), machine_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 ")
    assert ", 1 core, " in done.stdout
