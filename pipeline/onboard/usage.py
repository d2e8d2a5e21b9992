"""What is used while something runs: processor time, whose it is, and energy where the processor tells it (RAPL).

Time of the processor is in ticks, as /proc/stat has it: how long one is does not matter for a share.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.onboard.machine import ROOT, State, state, troubles

_IDLE, _IO_WAIT, _STEAL, _GUEST = 3, 4, 7, 8  # columns of /proc/stat; guests stand in the first two again
_PARENT, _USED = 1, slice(11, 15)  # columns of /proc/PID/stat behind the name: its own time and that of ended children
_MANY, _STOLEN = 0.05, 0.01  # shares of the processor's time from which on they are worth a sentence


@dataclass(frozen=True)
class Ticks:
    """Processor time of a machine since its start."""

    total: int  # of all cores, idle or not
    busy: int
    stolen: int  # by what else runs on the machine below this virtual one
    own: int  # of this process and its descendants
    cores: int


@dataclass(frozen=True)
class Usage:
    """Whose the time of the processor was while something ran."""

    others: float  # share of all cores' time that other processes took, 0 … 1
    stolen: float  # that the machine below this virtual one took away
    cores: int


@dataclass(frozen=True)
class Conditions:
    """Under which something was measured."""

    before: State
    after: State
    usage: Usage | None = None  # None: the machine does not tell

    def troubles(self) -> Iterator[str]:
        """Say what spoils what was measured, each in a sentence."""
        yield from troubles(self.before, self.after)
        if self.usage is not None and self.usage.others >= _MANY:
            cores = f"{self.usage.others * self.usage.cores:.1f} of {self.usage.cores} cores"
            yield f"other processes took {100 * self.usage.others:.0f} % of the processor while it ran ({cores})"
        if self.usage is not None and self.usage.stolen >= _STOLEN:
            yield f"the machine below this virtual one took {100 * self.usage.stolen:.0f} % of its time away"


class Watch:
    """Looks at the machine when it is made, and again at the end."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._before, self._ticks = state(root), ticks(root)

    def end(self) -> Conditions:
        """Look again."""
        usage = between(self._ticks, ticks(self._root))
        return Conditions(before=self._before, after=state(self._root), usage=usage)


def ticks(root: Path = ROOT, pid: int | None = None) -> Ticks | None:
    """Read how much processor time was used; None where the machine does not tell."""
    text = _text(root / "proc/stat")
    first = re.match(r"cpu ((?: \d+){8,10})$", text, re.MULTILINE)
    if first is None:
        return None
    columns = [int(each) for each in first[1].split()]
    total = sum(columns[:_GUEST])
    idle = columns[_IDLE] + columns[_IO_WAIT]
    stolen = columns[_STEAL]
    return Ticks(
        total=total,
        busy=total - idle - stolen,
        stolen=stolen,
        own=_own(root, os.getpid() if pid is None else pid),
        cores=max(1, len(re.findall(r"^cpu\d+ ", text, re.MULTILINE))),
    )


def between(before: Ticks | None, after: Ticks | None) -> Usage | None:
    """Return whose the time between two readings was; None where it is not known, or none has passed."""
    if before is None or after is None or after.total <= before.total:
        return None
    total = after.total - before.total
    others = (after.busy - before.busy) - (after.own - before.own)
    return Usage(
        others=min(1.0, max(0.0, others / total)),
        stolen=min(1.0, max(0.0, (after.stolen - before.stolen) / total)),
        cores=after.cores,
    )


def _own(root: Path, pid: int) -> int:
    """Sum up a process, its descendants that live, and what those took that have ended."""
    parents, used = {}, {}
    for file in (root / "proc").glob("[0-9]*/stat"):
        columns = _text(file).rpartition(") ")[2].split()  # a name may hold anything
        if len(columns) >= _USED.stop and file.parent.name.isdigit():
            number = int(file.parent.name)
            parents[number] = int(columns[_PARENT])
            used[number] = sum(int(each) for each in columns[_USED])
    return sum(each for number, each in used.items() if _descends(number, pid, parents))


def _descends(number: int, ancestor: int, parents: dict[int, int]) -> bool:
    seen = set()
    while number not in seen:
        if number == ancestor:
            return True
        seen.add(number)
        number = parents.get(number, 0)
    return False


class Meter:
    """Adds up the energy that all processors take; ``joules`` is None where they do not tell it."""

    def __init__(self, root: Path = ROOT) -> None:
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        whole = [zone for zone in zones if re.fullmatch(r"intel-rapl:\d+", zone.name)]  # the others are parts of these
        self._zones = [zone for zone in whole if _text(zone / "name").startswith("package")]
        self._last = [_microjoules(zone) for zone in self._zones]
        self.joules: float | None = 0.0 if self._zones and None not in self._last else None

    def read(self) -> float | None:
        """Add what was taken since the last reading, and return all.  A counter that has begun anew is seen once."""
        if self.joules is None:
            return None
        for place, zone in enumerate(self._zones):
            now, before = _microjoules(zone), self._last[place]
            if now is None or before is None:
                self.joules = None
                return None
            around = _number(zone / "max_energy_range_uj") or 0
            self.joules += (now - before + (around if now < before else 0)) / 1e6
            self._last[place] = now
        return self.joules


def _microjoules(zone: Path) -> int | None:
    return _number(zone / "energy_uj")


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there, not for us to read, or a process that has ended meanwhile
        return ""
