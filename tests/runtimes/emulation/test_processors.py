"""Which processor QEMU has to be for a target."""

from __future__ import annotations

import pytest

from pipeline import catalog
from pipeline.declare.target import CpuSpec
from pipeline.runtimes.emulation.processors import Processor, processor_of


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("raspberry-pi-3b-plus", "cortex-a53"),
        ("raspberry-pi-4b", "cortex-a72"),
        ("raspberry-pi-5", "cortex-a76"),
        ("raspberry-pi-zero-2-w", "cortex-a53"),
        ("x86-laptop-avx2", "Haswell"),
    ],
)
def test_every_target_that_can_be_emulated(target: str, name: str) -> None:
    found = processor_of(catalog.load_target(target).cpu)
    assert isinstance(found, Processor)
    assert found.name == name


def test_what_a_kernel_says_of_it() -> None:
    found = processor_of(catalog.load_target("raspberry-pi-5").cpu)
    assert isinstance(found, Processor)
    assert found.cpuinfo.count("processor\t: ") == 4
    assert "CPU part\t: 0xd0b\n" in found.cpuinfo
    assert "Features\t: fp asimd" in found.cpuinfo
    assert "asimddp\n" in found.cpuinfo


def test_32_bits_of_any_board_are_those_of_the_oldest_core() -> None:
    cpu = CpuSpec(architecture="armv7l", model="BCM2837, Cortex-A53", isa=("half", "neon"), cores=2, clock_mhz=1)
    found = processor_of(cpu)
    assert isinstance(found, Processor)
    assert (found.architecture, found.name) == ("armv7l", "cortex-a7")
    assert found.cpuinfo.count("processor\t: ") == 2
    assert "CPU architecture: 7\n" in found.cpuinfo
    assert "CPU part\t: 0xc07\n" in found.cpuinfo


@pytest.mark.parametrize(
    ("cpu", "why"),
    [
        (CpuSpec(architecture="x86_64", model="any", isa=("avx512f",), cores=1, clock_mhz=1), "no AVX-512"),
        (CpuSpec(architecture="aarch64", model="Apple M1", cores=1, clock_mhz=1), "'Apple M1' names no core"),
    ],
)
def test_why_one_cannot_be(cpu: CpuSpec, why: str) -> None:
    found = processor_of(cpu)
    assert isinstance(found, str)
    assert why in found
