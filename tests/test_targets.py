"""Every target profile is complete and says where its figures come from."""

from __future__ import annotations

import pytest

from pipeline import catalog
from pipeline.declare.target import TargetProfile

NAMES = [name for name in catalog.names("target") if name != catalog.HOST]
PIS = [name for name in NAMES if name.startswith("raspberry-pi-")]


def load(name: str) -> TargetProfile:
    return catalog.load_target(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_complete(name: str) -> None:
    target = load(name)
    assert target.name == name
    assert target.cpu.isa
    assert min(target.cpu.l1d_bytes, target.cpu.l2_bytes, target.memory.bandwidth_bytes_per_s) > 0
    assert len(target.sources) >= 2
    limits = target.limits
    assert limits.accuracy_drop_pp is not None
    assert limits.size_bytes is not None
    assert limits.peak_memory_bytes is not None
    assert limits.size_bytes < limits.peak_memory_bytes < target.memory.size_bytes


def test_names_and_aliases_are_unique() -> None:
    words = [word for name in NAMES for word in (name, *load(name).aliases)]
    assert len(words) == len(set(words))
    assert len(NAMES) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_weights_have_7_bits_exactly_where_8_would_saturate(name: str) -> None:
    target = load(name)
    assert target.weight_bits == (7 if target.saturates_int16 else 8)


@pytest.mark.parametrize("name", PIS)
def test_a_raspberry_pi(name: str) -> None:
    target = load(name)
    assert (target.cpu.architecture, target.cpu.cores, target.python) == ("aarch64", 4, "3.11")
    assert target.os == "Raspberry Pi OS 64-bit (Debian 12)"
    assert {"fp", "asimd", "crc32"} <= set(target.cpu.isa)
    assert ("asimddp" in target.cpu.isa) == (name == "raspberry-pi-5")  # dot product: Cortex-A76 only


@pytest.mark.parametrize(
    ("name", "clock_mhz", "caches_kib", "memory_mib"),
    [
        ("raspberry-pi-zero-2-w", 1000, (32, 512, 0), 512),
        ("raspberry-pi-3b-plus", 1400, (32, 512, 0), 1024),
        ("raspberry-pi-4b", 1500, (32, 1024, 0), 1024),
        ("raspberry-pi-5", 2400, (64, 512, 2048), 2048),
        ("x86-laptop-avx2", 1600, (32, 256, 6144), 8192),
        ("x86-laptop-vnni", 2400, (48, 1280, 8192), 8192),
    ],
)
def test_figures_of_the_data_sheets(
    name: str, clock_mhz: int, caches_kib: tuple[int, int, int], memory_mib: int
) -> None:
    target = load(name)
    cpu = target.cpu
    assert cpu.clock_mhz == clock_mhz
    assert (cpu.l1d_bytes, cpu.l2_bytes, cpu.l3_bytes) == tuple(kib * 1024 for kib in caches_kib)
    assert target.memory.size_bytes == memory_mib * 1024**2


def test_vnni_and_avx2_laptops_differ_in_it() -> None:
    assert load("x86-laptop-avx2").saturates_int16
    assert not load("x86-laptop-vnni").saturates_int16
