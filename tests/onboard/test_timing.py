"""Fresh sessions, interleaved bursts: modelled clocks for what must be exact, a real busy loop for the milliseconds."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pipeline.onboard import timing
from pipeline.onboard.timing import Opener, measure

Log = list[tuple[str, int]]  # what was opened or called: name, number of the session


def busy(microseconds: float) -> Opener:
    """Keep the processor busy for so long at each inference (sleep would measure the scheduler)."""

    def once() -> float:
        start = time.perf_counter_ns()
        while time.perf_counter_ns() < start + microseconds * 1000:
            pass
        return (time.perf_counter_ns() - start) / 1e6

    return lambda: lambda count: [once() for _ in range(count)]


def modelled(name: str, ms_of_session: Callable[[int], float], log: Log | None = None) -> Opener:
    """Take no time, but say that the n-th session took ``ms_of_session(n)``."""
    opened = 0

    def opener() -> Callable[[int], list[float]]:
        nonlocal opened
        number, opened = opened, opened + 1
        if log is not None:
            log.append((f"open {name}", number))

        def timer(count: int) -> list[float]:
            if log is not None:
                log.append((name, number))
            return [ms_of_session(number)] * count

        return timer

    return opener


def run(openers: dict[str, Opener], **how: float) -> dict[str, np.ndarray]:
    settings = {"sessions": 12, "rounds": 4, "budget_s": 30.0, "seed": 0, **how}
    return measure(openers, **settings)  # type: ignore[arg-type]  # whole numbers where they are wanted


def test_times_are_those_of_single_inferences_in_ms() -> None:
    got = run({"short": busy(100), "long": busy(2000)}, sessions=2, rounds=10)
    assert got["short"].shape == got["long"].shape
    sessions, inferences = got["short"].shape
    assert sessions == 2
    assert inferences in (10, 20)  # two long ones take 4 ms, one does where the probes were held up
    # the fastest of many: the loop overshoots by a microsecond, and on a busy machine half of them are held up
    assert got["short"].min() == pytest.approx(0.1, rel=0.1)
    assert got["long"].min() == pytest.approx(2.0, rel=0.1)


def test_every_session_is_opened_anew_and_its_times_stand_in_its_row() -> None:
    got = run({"a": modelled("a", lambda n: 1 + n), "b": modelled("b", lambda n: 100 + n)})
    assert got["a"].shape == got["b"].shape == (12, 4)
    for name, first in (("a", 1), ("b", 100)):
        np.testing.assert_array_equal(got[name], np.repeat(first + np.arange(12.0)[:, None], 4, axis=1))


@pytest.mark.parametrize(("ms", "burst"), [(0.0, 50), (0.01, 50), (0.1, 10), (0.3, 4), (1.0, 1), (40.0, 1)])
def test_bursts_take_about_a_millisecond(ms: float, burst: int) -> None:
    assert run({"a": modelled("a", lambda _: ms)}, sessions=1)["a"].shape == (1, 4 * burst)


@pytest.mark.parametrize(("fast_ms", "slow_ms", "burst"), [(0.1, 0.2, 10), (0.1, 1.0, 4), (0.01, 30.0, 1)])
def test_bursts_of_all_files_are_of_one_length(fast_ms: float, slow_ms: float, burst: int) -> None:
    got = run({"fast": modelled("fast", lambda _: fast_ms), "slow": modelled("slow", lambda _: slow_ms)}, sessions=3)
    assert got["fast"].shape == got["slow"].shape == (3, 4 * burst)


def test_a_file_that_was_held_up_while_it_was_tried_is_not_slower_than_itself() -> None:
    """Inferences get faster within a burst: the first of a session is late, what follows takes 10 % less each time."""

    def warming(held_up: float) -> Opener:
        calls = 0

        def timer(count: int) -> list[float]:
            nonlocal calls
            calls += 1
            return [0.1 * 0.9**place * (held_up if calls == 1 else 1.0) for place in range(count)]

        return lambda: timer

    got = run({"a": warming(1.0), "b": warming(3.0)})
    np.testing.assert_array_equal(got["a"], got["b"])


def test_all_are_open_while_they_are_timed_and_none_outlives_its_turn() -> None:
    alive: weakref.WeakSet[Callable[[int], list[float]]] = weakref.WeakSet()
    most_at_opening, seen = [], []

    def opener() -> Callable[[int], list[float]]:
        most_at_opening.append(len(alive))

        def timer(count: int) -> list[float]:
            seen.append(len(alive))
            return [1.0] * count

        alive.add(timer)
        return timer

    run({"a": opener, "b": opener, "c": opener}, sessions=5)
    assert sorted(most_at_opening) == sorted([0, 1, 2] * 5)  # the three of before are gone when the next ones open
    assert set(seen) == {3}
    assert len(alive) == 0


def orders(seed: int) -> Iterator[str]:
    """Return who was opened first, and the order of every round."""
    log: Log = []
    run({name: modelled(name, lambda _: 2.0, log) for name in "abc"}, sessions=6, rounds=8, seed=seed)
    yield "".join(name[-1] for name, _ in log if name.startswith("open"))
    for number in range(6):
        calls = [name for name, session in log if session == number and not name.startswith("open")]
        yield "".join(calls[3 if number == 0 else 0 :])  # in the first one all are tried before


def test_order_of_opening_and_of_each_round_is_random_and_the_same_for_a_seed() -> None:
    first = list(orders(1))
    for each in first:
        parts = [each[start : start + 3] for start in range(0, len(each), 3)]
        assert all(sorted(part) == ["a", "b", "c"] for part in parts)
        assert len(set(parts)) > 1
    assert first == list(orders(1))
    assert first != list(orders(2))


def test_the_budget_takes_rounds_first_then_sessions_but_leaves_enough_of_both() -> None:
    start = time.perf_counter()
    got = run({"a": busy(2000)}, sessions=40, rounds=1000, budget_s=2.0)
    assert time.perf_counter() - start < 6
    assert len(got["a"]) >= timing.LEAST_SESSIONS
    assert 3 <= got["a"].shape[1] <= 25  # a fortieth of two seconds is time for 25
    assert run({"a": busy(1000)}, sessions=40, rounds=50, budget_s=0)["a"].shape == (timing.LEAST_SESSIONS, 3)
    assert run({"a": busy(1000)}, sessions=2, rounds=2, budget_s=0)["a"].shape == (2, 2)  # no more than was asked for


def test_the_collector_is_off_meanwhile_and_on_afterwards() -> None:
    seen = set()

    def timer(count: int) -> list[float]:
        seen.add(gc.isenabled())
        return [1.0] * count

    run({"a": lambda: timer})
    assert seen == {False}
    assert gc.isenabled()

    def broken(count: int) -> list[float]:
        raise ZeroDivisionError(count)

    with pytest.raises(ZeroDivisionError):
        run({"a": lambda: broken})
    assert gc.isenabled()


@pytest.mark.parametrize("settings", [{"sessions": 0}, {"rounds": 0}])
def test_nothing_to_measure_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="nothing"):
        run({})
    with pytest.raises(ValueError, match="nothing"):
        run({"a": busy(1)}, **settings)
