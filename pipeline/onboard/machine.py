"""The state of a machine that measures: clock, governor, heat, throttling, load; what it does not tell is absent.

Every reader takes ``root``, the folder in which ``proc`` and ``sys`` lie, so that a copy of another machine's files
describes that machine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
_CPUS = "sys/devices/system/cpu"
_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"  # Raspberry Pi
_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")  # of processors, in hwmon
_ANSWER_S = 2

# bits of Raspberry Pi's get_throttled: now, and 16 bits further since the board was started
UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 0x1, 0x2, 0x4, 0x8
SINCE_START = 16


@dataclass(frozen=True)
class State:
    """A machine at one moment; () and None: it does not tell."""

    clocks_mhz: tuple[float, ...] = ()  # of each core
    highest_mhz: tuple[float, ...] = ()  # that each may reach
    governors: tuple[str, ...] = ()  # of each core
    temperature_c: float | None = None  # of the hottest sensor
    firmware_bits: int | None = None  # of get_throttled
    slowed: int | None = None  # how often heat has slowed the cores down since the start (x86)
    load: float | None = None  # processes that ran or waited, mean of the last minute


def state(root: Path = ROOT) -> State:
    """Read the state of the machine, in a few milliseconds."""
    return State(
        clocks_mhz=clocks_mhz(root),
        highest_mhz=_of_cores(root, "cpufreq/cpuinfo_max_freq"),
        governors=tuple(text for core in _cores(root) if (text := _text(core / "cpufreq/scaling_governor"))),
        temperature_c=temperature_c(root),
        firmware_bits=_firmware_bits(root),
        slowed=_slowed(root),
        load=_load(root),
    )


def clocks_mhz(root: Path = ROOT) -> tuple[float, ...]:
    """Return the clock of each core at this moment."""
    found = _of_cores(root, "cpufreq/scaling_cur_freq")
    printed = re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return found or tuple(float(each) for each in printed)


def temperature_c(root: Path = ROOT) -> float | None:
    """Return the temperature of the hottest sensor; those of the processor alone where they have its name."""
    zones = [_number(zone / "temp") for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))]
    own = [folder for folder in (root / "sys/class/hwmon").glob("hwmon*") if _text(folder / "name") in _SENSORS]
    sensors = [_number(file) for folder in own for file in sorted(folder.glob("temp*_input"))]
    known = [each / 1000 for each in (sensors or zones) if each is not None and each > 0]
    return max(known, default=None)


def _of_cores(root: Path, name: str) -> tuple[float, ...]:
    """Return a number of each core, kHz as MHz."""
    found = (_number(core / name) for core in _cores(root))
    return tuple(each / 1000 for each in found if each is not None)


def _cores(root: Path) -> list[Path]:
    found = [core for core in (root / _CPUS).glob("cpu[0-9]*") if core.name[3:].isdigit()]
    return sorted(found, key=lambda core: int(core.name[3:]))


def _firmware_bits(root: Path) -> int | None:
    said = _text(root / _FIRMWARE) or (_asked_firmware() if root == ROOT else "")
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", said)
    return int(found[1], 16) if found else None


def _asked_firmware() -> str:
    """Ask the Raspberry Pi's own tool, where it is."""
    tool = shutil.which("vcgencmd")
    if tool is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603  # the system's own tool
            [tool, "get_throttled"], capture_output=True, text=True, check=False, timeout=_ANSWER_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _slowed(root: Path) -> int | None:
    names = ("core_throttle_count", "package_throttle_count")
    found = [_number(core / "thermal_throttle" / name) for core in _cores(root) for name in names]
    known = [int(each) for each in found if each is not None]
    return sum(known) if known else None


def _load(root: Path) -> float | None:
    first = _text(root / "proc/loadavg").partition(" ")[0]
    return float(first) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", first) else None


# ── in words ────────────────────────────────────────────────────────────────────────────────────────────────────────

_SAID = {
    UNDER_VOLTAGE: "its supply voltage fell too low",
    CAPPED: "its clock was held down",
    THROTTLED: "it was throttled",
    SOFT_LIMIT: "it reached its soft temperature limit",
}


def troubles(before: State, after: State) -> Iterator[str]:
    """Say what spoils a measurement between two states, each in a sentence."""
    for bit, said in _SAID.items():
        if _came(before, after, bit):
            yield f"{said} while it ran{_why(after)}"
        elif after.firmware_bits is not None and after.firmware_bits >> SINCE_START & bit:
            yield f"{said} before, since it was started"
    if before.slowed is not None and after.slowed is not None and after.slowed > before.slowed:
        yield f"heat slowed its cores down {after.slowed - before.slowed} times while it ran{_why(after)}"
    if "powersave" in after.governors and not after.highest_mhz:
        yield "its governor is powersave"
    slow = [
        f"{now:.0f} of {highest:.0f} MHz"
        for now, highest, governor in zip(after.clocks_mhz, after.highest_mhz, after.governors)
        if governor == "powersave" and now < highest / 2
    ]
    if slow:
        yield f"its governor is powersave, and a core stood at {slow[0]}"


def _came(before: State, after: State, bit: int) -> bool:
    """Tell whether something was so while it ran: at one of its ends, or for the first time since the start."""
    if before.firmware_bits is None or after.firmware_bits is None:
        return False
    since = bit << SINCE_START
    return bool(
        (before.firmware_bits | after.firmware_bits) & bit or after.firmware_bits & ~before.firmware_bits & since
    )


def _why(after: State) -> str:
    return f" ({after.temperature_c:.0f} °C)" if after.temperature_c is not None else ""


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there, or not for us to read
        return ""
