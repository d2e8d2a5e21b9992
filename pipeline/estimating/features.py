"""What the events of a kernel follow from, if kernels work as they usually do: in tiles, through caches.

Instructions follow from products that are padded to whole tiles, from what is copied into rows for them, and from what
is read and made.  Misses follow from bytes: each is missed once, and again where it is read again and has not stayed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.estimating.work import PRODUCTS, RECURRENT, Work

_L1_BYTES, _L2_BYTES, _LINE_BYTES = 32 << 10, 1 << 20, 64  # of the simulated cache
_IN_TILES = frozenset({"Product", "Gemm", "MatMul", "ConvTranspose"})
_COMMON_WINDOW = 9
MISSES = ("L1 miss", "L2 miss")
_SAME_KERNEL = {"Conv": "Product", "Pointwise": "Product", "Projection": "Product"}  # once what it reads lies in rows


@dataclass(frozen=True, kw_only=True, order=True)
class Tile:
    """How many rows and columns of a product a kernel makes at a time, and how many elements it sums up at once."""

    rows: int
    columns: int
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one inference of a network touches."""

    weight_bytes: int
    total_bytes: int  # weights, and the largest values of one layer

    @classmethod
    def of(cls, works: Sequence[Work]) -> Footprint:
        """Return that of a network."""
        weights = sum(weight_bytes(work) for work in works)
        largest = max((value_bytes(work) for work in works), default=0)
        return cls(weight_bytes=weights, total_bytes=weights + largest)


def kernel_of(work: Work) -> str:
    """Return what computes an operation: depthwise convolutions of 3 x 3 and stride 1 have a kernel of their own."""
    if work.kernel == "Depthwise" and (work.window != _COMMON_WINDOW or work.reads >= 2 * work.makes):
        return "DepthwiseOther"
    return _SAME_KERNEL.get(work.kernel, work.kernel)


def element_bytes(work: Work) -> int:
    """Return the size of one value."""
    return 1 if work.integer else 4


def weight_bytes(work: Work) -> int:
    """Return the size of its weights."""
    return work.weights * element_bytes(work)


def value_bytes(work: Work) -> int:
    """Return the size of what it reads and makes."""
    if work.kernel.startswith(("Quantize", "Dequantize")):
        return 5 * work.makes
    return (work.reads + work.makes) * element_bytes(work)


def instructions_from(work: Work, tile: Tile) -> Mapping[str, float]:
    """Return what its instructions follow from."""
    if work.kernel == "Depthwise":
        return {
            "macs": work.macs,
            "made": work.makes,
            "read": work.reads,
            "activated": work.makes * work.activated,
            "positions": work.rows,
            "positions x window": work.rows * work.window,
            "channels x window": work.groups * work.window,
            "channels x lines": work.groups * work.lines,
            "channels x lines x window": work.groups * work.lines * work.window,
            "channels": work.groups,
            "one": 1,
        }
    if work.kernel in PRODUCTS:
        return _of_product(work, tile)
    if work.kernel in RECURRENT:
        return {
            "macs": work.macs,
            "rows": work.rows * work.groups,
            "gates": work.rows * work.groups * work.columns,
            "weights": work.weights,
            "one": 1,
        }
    found = {"read": work.reads, "made": work.makes, "one": 1}
    if work.window > 1:
        found |= {"made x window": work.makes * work.window, "channels x lines": work.groups * work.lines}
    if work.rows > 1:
        found["rows"] = work.rows
    if work.groups > 1:
        found["channels"] = work.groups
    if work.activated:
        found["activated"] = work.makes
    return found


def _of_product(work: Work, tile: Tile) -> Mapping[str, float]:
    down, across = math.ceil(work.rows / tile.rows), math.ceil(work.columns / tile.columns)
    deep = math.ceil(work.depth / tile.depth) * tile.depth
    tiles = work.groups * down * across
    return {
        "macs": work.macs,
        "padded macs": tiles * tile.rows * tile.columns * deep,
        "tiles": tiles,
        "tiles x window": tiles * work.window,
        "tiles x depth": tiles * deep,
        "copied": work.groups * work.rows * work.depth * (work.kernel == "Conv"),
        "made": work.makes,
        "results": work.groups * work.rows * work.columns * (work.kernel == "ConvTranspose"),
        "read": work.reads,
        "activated": work.makes * work.activated,
        "positions": work.groups * work.rows,
        "lines x window": work.groups * work.lines * work.depth * (work.kernel == "Conv"),
        "groups": work.groups,
        "one": 1,
    }


def follows(kind: str, kernel: str, name: str) -> bool:
    """Whether events of a kind can follow from it: what a product sums up stays in registers until it is stored."""
    if kernel.removesuffix("8") not in _IN_TILES:
        return True
    if kind == "store":
        return name not in ("macs", "padded macs", "tiles x depth", "tiles x window")
    return kind != "multiply" or name in ("macs", "padded macs", "tiles", "made", "results", "copied", "one")


def misses_from(work: Work, tile: Tile, all_of_it: Footprint) -> Mapping[str, float]:
    """Return what its misses follow from, in lines of the cache."""
    each = element_bytes(work)
    lines = 1 / _LINE_BYTES
    weights, own = weight_bytes(work) * lines, value_bytes(work)
    values = own * lines
    found = {
        "values": values,
        "weights": weights,
        "values beyond L1": values * _beyond(all_of_it.total_bytes, _L1_BYTES),
        "weights beyond L1": weights * _beyond(all_of_it.total_bytes, _L1_BYTES),
        "values beyond L2": values * _beyond(own + weight_bytes(work), _L2_BYTES),
        "weights beyond L2": weights * _beyond(all_of_it.total_bytes, _L2_BYTES),
        "values in a large network": values * _beyond(all_of_it.total_bytes, _L2_BYTES),
        "one": 1,
    }
    if work.kernel in PRODUCTS:
        down, across = math.ceil(work.rows / tile.rows), math.ceil(work.columns / tile.columns)
        panel = work.columns * work.depth * each
        rows = work.rows * work.depth * each
        copied = work.groups * rows * lines * (work.kernel == "Conv")
        found |= {
            "copied": copied,
            "weights again": work.groups * (down - 1) * panel * lines * _beyond(panel, _L1_BYTES),
            "rows again": work.groups * (across - 1) * rows * lines * _beyond(rows, _L1_BYTES),
            "copied beyond L2": copied * _beyond(own + work.groups * rows, _L2_BYTES),
            "tiles": work.groups * down * across,
            "read again": (work.window - 1) * work.reads * each * lines * _beyond(work.reads * each, _L1_BYTES),
        }
    if work.kernel in RECURRENT:
        found["weights again"] = (work.rows - 1) * weights * _beyond(weight_bytes(work), _L1_BYTES)
    return found


def _beyond(size: float, cache: int) -> float:
    """Return the share that has not stayed: 0 well inside a cache, 1 well beyond it."""
    return min(1.0, max(0.0, 2 * size / cache - 1))
