"""The state of machines, read from files as their kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.onboard.machine import ROOT, State, state, troubles
from tests.onboard.machines import laptop, pi, write

GB_CPUINFO = "processor\t: 0\ncpu MHz\t\t: 2445.404\nprocessor\t: 1\ncpu MHz\t\t: 1500.000\n"


def test_a_raspberry_pi_tells_clock_governor_heat_and_what_its_firmware_does(tmp_path: Path) -> None:
    assert state(write(tmp_path, pi(bits="50005", mhz=600, celsius=83.2))) == State(
        clocks_mhz=(600.0,) * 4,
        highest_mhz=(1500.0,) * 4,
        governors=("ondemand",) * 4,
        temperature_c=83.2,
        firmware_bits=0x50005,
        slowed=None,
        load=0.52,
    )


def test_a_laptop_tells_its_processors_heat_and_not_its_disks(tmp_path: Path) -> None:
    found = state(write(tmp_path, laptop(microjoules=1, slowed=3)))
    assert found.temperature_c == 52.0
    assert found.slowed == 6
    assert found.firmware_bits is None
    assert found.clocks_mhz == (2600.0, 2600.0)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert state(tmp_path) == State()
    assert list(troubles(State(), State())) == []


def test_a_virtual_machine_prints_its_clocks_alone(tmp_path: Path) -> None:
    assert state(write(tmp_path, {"proc/cpuinfo": GB_CPUINFO})).clocks_mhz == (2445.404, 1500.0)


def test_cores_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_cur_freq": f"{n}000" for n in range(12)}
    assert state(write(tmp_path, files)).clocks_mhz == tuple(map(float, range(12)))


@pytest.mark.parametrize("text", ["", "nonsense", "-", "1e999 W", "12 34", "9" * 400])
def test_what_is_no_number_is_absent(tmp_path: Path, text: str) -> None:
    tree = dict.fromkeys(pi(bits="0", mhz=1, celsius=1), text)
    found = state(write(tmp_path, tree))
    assert (found.clocks_mhz, found.temperature_c, found.firmware_bits) == ((), None, None)


def test_the_firmwares_own_tool_is_asked_where_the_kernel_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "vcgencmd"
    tool.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50000\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert state(ROOT).firmware_bits == 0x50000
    tool.write_text("#!/bin/sh\necho 'VCHI initialization failed'\n")
    assert state(ROOT).firmware_bits is None


# ── what spoils a measurement ───────────────────────────────────────────────────────────────────────────────────────


def of_pi(bits: int, celsius: float = 60.0) -> State:
    return State(firmware_bits=bits, temperature_c=celsius)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0x0, 0x0, []),
        (0x0, 0x40004, ["it was throttled while it ran (83 °C)"]),
        (0x0, 0x40000, ["it was throttled while it ran (83 °C)"]),  # and is no longer
        (0x4, 0x0, ["it was throttled while it ran (83 °C)"]),
        (0x50000, 0x50000, ["its supply voltage fell too low before, since it was started",
                            "it was throttled before, since it was started"]),
        (0x50000, 0x50001, ["its supply voltage fell too low while it ran (83 °C)",
                            "it was throttled before, since it was started"]),
        (0x0, 0xA000A, ["its clock was held down while it ran (83 °C)",
                        "it reached its soft temperature limit while it ran (83 °C)"]),
    ],
)  # fmt: skip
def test_what_a_pis_firmware_did(before: int, after: int, said: list[str]) -> None:
    assert list(troubles(of_pi(before), of_pi(after, 83.2))) == said


def test_heat_that_slowed_a_laptop_down(tmp_path: Path) -> None:
    before = state(write(tmp_path, laptop(microjoules=1, slowed=3, governor="performance")))
    after = state(write(tmp_path, laptop(microjoules=1, slowed=5, governor="performance")))
    assert list(troubles(before, after)) == ["heat slowed its cores down 4 times while it ran (52 °C)"]
    assert list(troubles(after, after)) == []


@pytest.mark.parametrize(
    ("governor", "mhz", "said"),
    [
        ("powersave", 800, ["its governor is powersave, and a core stood at 800 of 4200 MHz"]),
        ("powersave", 3900, []),  # what laptops are sold with, and quick where something runs
        ("performance", 800, []),
    ],
)
def test_a_governor_that_holds_the_clock_down(tmp_path: Path, governor: str, mhz: int, said: list[str]) -> None:
    found = state(write(tmp_path, laptop(microjoules=1, governor=governor, mhz=mhz)))
    assert list(troubles(found, found)) == said
