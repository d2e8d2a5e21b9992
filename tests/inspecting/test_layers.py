"""How much memory is alive at each step."""

from __future__ import annotations

from pipeline.inspecting.layers import Step, peaks


def step(reads: str, makes: str, size_bytes: int, *, in_place: bool = False) -> Step:
    return Step(reads=tuple(reads), makes=(makes,), size_bytes=size_bytes, in_place=in_place)


def test_a_chain_holds_two_values_at_a_time() -> None:
    assert peaks({"x": 10}, [step("x", "a", 20), step("a", "b", 5), step("b", "c", 1)], ["c"]) == (30, 25, 6)


def test_a_skip_holds_its_value_until_the_sum() -> None:
    steps = [step("x", "a", 20), step("a", "b", 5), step("b", "c", 20), step("ac", "d", 20)]
    assert peaks({"x": 10}, steps, ["d"]) == (30, 25, 45, 60)


def test_what_is_done_in_place_takes_no_room_and_keeps_its_place_alive() -> None:
    steps = [step("x", "a", 20), step("a", "b", 20, in_place=True), step("b", "c", 3), step("b", "d", 1)]
    assert peaks({"x": 10}, steps, ["d"]) == (30, 20, 23, 21)


def test_outputs_live_to_the_end_and_what_nobody_reads_only_while_it_is_made() -> None:
    steps = [step("x", "a", 20), step("x", "b", 7), step("a", "c", 1)]
    assert peaks({"x": 10}, steps, ["a", "c"]) == (30, 37, 21)
    assert peaks({"x": 10}, steps, ["c"]) == (30, 37, 21)


def test_an_input_is_there_from_the_start() -> None:
    assert peaks({"x": 10, "y": 4}, [step("x", "a", 2), step("ya", "b", 1)], ["b"]) == (16, 7)
