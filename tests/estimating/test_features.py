"""What events follow from: tiles and lines of a cache, by hand."""

from __future__ import annotations

import pytest

from pipeline.estimating.features import Footprint, Tile, instructions_from, misses_from
from pipeline.estimating.work import Work

CONV = Work(kernel="Conv", reads=3 * 64, makes=10 * 64, rows=64, columns=10, depth=27, window=9, lines=8)
TILE = Tile(rows=6, columns=8, depth=4)


@pytest.mark.parametrize(
    "work",
    [
        CONV,
        Work(kernel="Depthwise", integer=True, rows=4, depth=9, groups=8, window=9, reads=32, makes=32),
        Work(kernel="Relu", reads=1, makes=1, activated=True),
        Work(kernel="Softmax"),
    ],
)
def test_what_is_written_is_read_again(work: Work) -> None:
    assert Work.parse(work.text) == work


def test_products_are_padded_to_tiles() -> None:
    found = instructions_from(CONV, TILE)
    assert CONV.macs == found["macs"] == 64 * 10 * 27
    assert found["tiles"] == 11 * 2
    assert found["padded macs"] == 22 * 6 * 8 * 28
    assert found["copied"] == 64 * 27  # a row of the product for each position


def test_a_small_network_misses_its_bytes_once() -> None:
    found = misses_from(CONV, TILE, Footprint.of([CONV]))
    assert found["values"] * 64 == 4 * (192 + 640)
    assert found["weights"] * 64 == 4 * 270
    assert all(found[name] == 0 for name in found if "again" in name or "beyond" in name)


def test_what_does_not_stay_in_the_first_cache_is_missed_each_time() -> None:
    found = misses_from(CONV, TILE, Footprint(weight_bytes=0, total_bytes=64 << 10))
    assert found["values beyond L1"] == found["values"]
    assert found["values beyond L2"] == 0


def test_weights_are_read_again_where_they_do_not_stay() -> None:
    wide = Work(kernel="Pointwise", rows=60, columns=256, depth=256, reads=60 * 256, makes=60 * 256)
    found = misses_from(wide, TILE, Footprint.of([wide]))
    assert found["weights again"] * 64 == 9 * 256 * 256 * 4  # once for each of ten tiles, and the first is counted
    assert found["weights beyond L2"] == 0
    large = Footprint.of([wide] * 40)
    assert misses_from(wide, TILE, large)["weights beyond L2"] == found["weights"]


def test_integers_take_a_quarter() -> None:
    narrow = Work(kernel="Pointwise", integer=True, rows=60, columns=256, depth=256, reads=60 * 256, makes=60 * 256)
    assert Footprint.of([narrow]).weight_bytes == 256 * 256
