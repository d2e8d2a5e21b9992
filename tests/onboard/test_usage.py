"""Whose the processor's time was, and how much energy was taken: read from files as kernels write them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.onboard.machine import State
from pipeline.onboard.usage import Conditions, Meter, Usage, Watch, between, ticks
from tests.onboard.machines import STAT, laptop, process, write

# user nice system idle iowait irq softirq steal guest guest_nice
EARLIER, LATER = "1000 0 500 8000 500 0 0 100 0 0", "1600 0 600 8250 550 0 0 200 0 0"


def test_time_that_others_took_is_what_neither_this_process_nor_its_children_took(tmp_path: Path) -> None:
    me = process(50, 1, 100, 10, 5, 5)
    before = ticks(write(tmp_path, {"proc/stat": STAT.format(EARLIER)}, me, process(7, 1, 40, 0, 0, 0)), 50)
    grown = (
        process(50, 1, 300, 30, 25, 5),
        process(60, 50, 60, 0, 0, 0, name="a) R 7 (b"),
        process(7, 1, 200, 0, 0, 0),
    )
    after = ticks(write(tmp_path, {"proc/stat": STAT.format(LATER)}, *grown), 50)
    # 700 ticks busy, 240 of this process and 60 of its child, of 1100 that passed
    found = between(before, after)
    assert found is not None
    assert found.others == pytest.approx(400 / 1100)
    assert found.stolen == pytest.approx(100 / 1100)
    assert found.cores == 2


@pytest.mark.parametrize("text", ["", "cpu  1 2\n", "cpu  a b c d e f g h\n"])
def test_a_machine_that_does_not_tell(tmp_path: Path, text: str) -> None:
    assert ticks(write(tmp_path, {"proc/stat": text})) is None
    assert between(None, None) is None


def test_no_time_has_passed(tmp_path: Path) -> None:
    now = ticks(write(tmp_path, {"proc/stat": STAT.format(EARLIER)}))
    assert between(now, now) is None


def test_this_machine_knows_its_own_work() -> None:
    before = ticks()
    if before is None:
        pytest.skip("no /proc here")
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = ticks()
    assert after is not None
    assert 5 <= after.own - before.own <= 40  # of 10 ms each


def conditions(others: float, stolen: float = 0.0) -> Conditions:
    return Conditions(before=State(), after=State(), usage=Usage(others=others, stolen=stolen, cores=4))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (conditions(0.01), []),
        (conditions(0.4), ["other processes took 40 % of the processor while it ran (1.6 of 4 cores)"]),
        (conditions(0.0, 0.05), ["the machine below this virtual one took 5 % of its time away"]),
        (Conditions(before=State(), after=State()), []),
    ],
)
def test_load_that_spoils_a_measurement(found: Conditions, said: list[str]) -> None:
    assert list(found.troubles()) == said


def test_a_watch_looks_twice(tmp_path: Path) -> None:
    watch = Watch(write(tmp_path, laptop(microjoules=1, mhz=2600), {"proc/stat": STAT.format(EARLIER)}))
    write(tmp_path, laptop(microjoules=1, mhz=3000), {"proc/stat": STAT.format(LATER)})
    found = watch.end()
    assert (found.before.clocks_mhz, found.after.clocks_mhz) == ((2600.0,) * 2, (3000.0,) * 2)
    assert found.usage is not None
    assert found.usage.others == pytest.approx(700 / 1100)


# ── energy ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_energy_of_all_packages_and_of_none_of_their_parts(tmp_path: Path) -> None:
    meter = Meter(write(tmp_path, laptop(microjoules=5_000_000)))
    assert meter.read() == 0
    write(tmp_path, laptop(microjoules=7_500_000))
    assert meter.read() == pytest.approx(2.5)
    assert meter.read() == pytest.approx(2.5)


def test_a_counter_that_begins_anew(tmp_path: Path) -> None:
    meter = Meter(write(tmp_path, laptop(microjoules=262_143_000_000)))
    write(tmp_path, laptop(microjoules=1_000_000))
    assert meter.read() == pytest.approx((262_143_328_850 - 262_143_000_000 + 1_000_000) / 1e6)


def test_no_counter_or_one_that_is_closed(tmp_path: Path) -> None:
    assert Meter(tmp_path).read() is None
    meter = Meter(write(tmp_path, laptop(microjoules=5)))
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert meter.read() is None
    assert Meter(tmp_path).read() is None
