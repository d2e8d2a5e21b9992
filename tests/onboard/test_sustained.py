"""A run without a pause: what it adds up, whether it ends, and what it says of the machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.onboard.session import Timer
from pipeline.onboard.sustained import POINTS, Point, Sustained, sustained
from tests.onboard.machines import laptop, pi, write


def busy(ms: float, *, slower_after: int = 10**9, by: float = 1.0) -> Timer:
    """Keep the processor busy for so long at each inference, and longer after so many."""
    done = 0

    def once() -> float:
        nonlocal done
        own = ms * (by if done >= slower_after else 1.0)
        done += 1
        start = time.perf_counter()
        while time.perf_counter() < start + own / 1000:
            pass
        return own

    def timer(count: int) -> list[float]:
        once()
        return [once() for _ in range(count)]

    return timer


def test_it_runs_as_long_as_it_is_asked_to_and_counts_every_inference() -> None:
    told: list[None] = []
    found = sustained(busy(0.2), seconds=0.3, tell=lambda: told.append(None))
    assert 2 <= len(found.points) == len(told) <= POINTS
    assert 0.25 <= found.seconds <= found.points[-1].at_s
    assert 500 <= found.per_second <= 5001  # a busy machine makes it fewer
    assert all(each.ms == 0.2 for each in found.points)
    assert found.points[-1].at_s >= 0.3


def test_a_network_slower_than_a_stretch_makes_fewer_points() -> None:
    found = sustained(busy(30), seconds=0.1)
    assert 1 <= len(found.points) <= 3
    assert found.inferences == 2 * len(found.points)


def test_what_gets_slower_shows_at_the_end() -> None:
    found = sustained(busy(0.2, slower_after=150, by=2.0), seconds=0.3)
    assert found.tenth(last=False)[0].ms == 0.2  # a stretch has 100 inferences
    assert found.tenth(last=True)[-1].ms == 0.4


def test_first_and_last_tenth() -> None:
    points = tuple(Point(at_s=n, inferences=1, seconds=1.0, ms=n + 1.0) for n in range(40))
    found = Sustained(points=points)
    assert [each.ms for each in found.tenth(last=False)] == [1, 2, 3, 4]
    assert [each.ms for each in found.tenth(last=True)] == [37, 38, 39, 40]
    assert Sustained(points=points[:3]).tenth(last=True) == points[2:3]


def test_clock_heat_and_energy_come_along(tmp_path: Path) -> None:
    root, taken = write(tmp_path, laptop(microjoules=0)), 0

    def draw_power() -> None:
        nonlocal taken
        taken += 1_000_000
        write(root, laptop(microjoules=taken))

    found = sustained(busy(1), seconds=0.4, root=root, tell=draw_power)
    assert found.joules == pytest.approx(len(found.points) - 1)  # what is drawn after the last look is not seen
    assert found.joules is not None
    assert found.joules_each == pytest.approx(found.joules / found.inferences)
    assert {(each.clock_mhz, each.temperature_c) for each in found.points} == {(2600.0, 52.0)}


def test_a_machine_that_tells_no_energy(tmp_path: Path) -> None:
    found = sustained(busy(5), seconds=0.02, root=write(tmp_path, pi(bits="0", mhz=1500, celsius=50)))
    assert found.joules is None
    assert found.joules_each is None
    assert found.points[0].clock_mhz == 1500
