"""The instrument that counts: exact, the same at every hour; and the protocol that instruments satisfy."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.artifacts.evidence import Place
from pipeline.instruments import INSTRUMENTS, Contender, counts

NOWHERE = Path("no-such-file.onnx")  # counting opens no file


def contender(macs: int) -> Contender:
    return Contender(path=NOWHERE, macs=macs, works=lambda: pytest.fail("MACs are all that is asked for"))


@pytest.mark.parametrize(("candidate", "cheaper"), [(75, True), (99, True), (100, False), (130, False)])
def test_a_count_has_no_noise(candidate: int, cheaper: bool) -> None:
    got = counts.compare_macs(candidate, 100)
    assert got.low == got.ratio == got.high == candidate / 100
    assert got.cheaper is cheaper
    assert got.of == "macs"
    assert got.place == Place(how="estimated", name="MACs")


def test_a_reference_that_computes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 MACs"):
        counts.compare_macs(5, 0)


def test_as_an_instrument_it_needs_neither_file_nor_time() -> None:
    instrument = INSTRUMENTS["macs"]
    first, second = contender(50), contender(100)
    got = instrument.compare(first, second, threads=1, budget_s=0.0, seed=0)
    assert got == counts.compare_macs(50, 100)
    assert got == instrument.compare(first, second, threads=4, budget_s=9.0, seed=1)


@pytest.mark.parametrize("name", ["latency", "macs"])
def test_what_an_instrument_finds_carries_its_place(name: str) -> None:
    place = INSTRUMENTS[name].place()  # type: ignore[index]  # a word of a recipe
    assert (place.how == "measured") is (name == "latency")
    assert place == INSTRUMENTS[name].place(None)  # type: ignore[index]
