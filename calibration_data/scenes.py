"""Scenes of clothes on clutter, with the class of every pixel: items of Fashion-MNIST, pasted by seeded code.

A scene has one to three items, which may cover one another and reach over the edge, on a background that is uneven,
grainy and crossed by strokes.  An item's mask is its outline with all holes filled.  The items are divided before any
scene is made, so that no picture of an item is in two splits.  All arithmetic is on whole numbers: the same seed makes
the same bits on every machine.

Shapes: N scenes, M items, S = 48 side of a scene, I = 28 side of an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.data.kinds.idx import read_idx

classes = ("background", "top", "trousers", "shoe", "bag")

# label of Fashion-MNIST → class here; a dress (3) is left out, it looks like a top
_CLASS_OF = {0: 1, 2: 1, 4: 1, 6: 1, 1: 2, 5: 3, 7: 3, 9: 3, 8: 4}
_SHARE_OF_ITEMS = {"train": 0.7, "val": 0.1, "test": 0.2}
_SIDE_PX, _ITEM_PX = 48, 28
_OVER_EDGE_PX = 5  # so far an item may reach out of the scene
_MOST_ITEMS, _STROKES = 3, 5
_OUTLINE = 16  # what is brighter belongs to the item
_KNOTS, _STEPS = 7, 8  # of the uneven background: so many grey values a side, so many pixels between two of them


@dataclass(frozen=True, kw_only=True)
class _Items:
    """Pictures to paste and their classes."""

    pictures: NDArray[np.uint8]  # (M, I, I)
    labels: NDArray[np.int64]  # (M,)


class _Chance:
    """Whole numbers from PCG64's raw output, which NumPy promises never to change."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(list(seed)))

    def below(self, end: int, *shape: int) -> NDArray[np.int64]:
        """Return numbers 0 … end-1 (end is small beside 2**63, so that all are as good as equally likely)."""
        raw = self._bits.random_raw(int(np.prod(shape))).reshape(shape) >> np.uint64(1)
        return raw.astype(np.int64) % end


def load(*, seed: int, files: Mapping[str, Path], train: int, val: int, test: int) -> dict[str, NDArray[np.uint8]]:
    """Return so many scenes of each split: x (N, 1, 48, 48) and y (N, 48, 48), the class of each pixel.

    ``files``: "images" and "labels" of Fashion-MNIST, as IDX.  Raises DataError when they are no such files.
    """
    pictures, labels = read_idx(files["images"]), read_idx(files["labels"])
    order = np.argsort(_Chance(seed).below(1 << 62, len(labels)), kind="stable")
    usable = order[np.isin(labels[order], list(_CLASS_OF))]
    ends = np.cumsum([round(share * len(usable)) for share in _SHARE_OF_ITEMS.values()])[:-1]
    arrays: dict[str, NDArray[np.uint8]] = {}
    counts = (train, val, test)
    for number, (split, count, chosen) in enumerate(zip(_SHARE_OF_ITEMS, counts, np.split(usable, ends), strict=True)):
        classes_here = np.array([_CLASS_OF[int(label)] for label in labels[chosen]], dtype=np.int64)
        items = _Items(pictures=pictures[chosen], labels=classes_here)
        arrays[f"x_{split}"], arrays[f"y_{split}"] = _scenes(items, count, _Chance(seed, number))
    return arrays


def _scenes(items: _Items, count: int, chance: _Chance) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scenes = _clutter(count, chance)  # (N, S, S)
    masks = np.zeros((count, _SIDE_PX, _SIDE_PX), dtype=np.uint8)
    present = [np.flatnonzero(items.labels == label) for label in range(1, len(classes))]
    how_many = 1 + chance.below(_MOST_ITEMS, count)
    kind = chance.below(len(present), count, _MOST_ITEMS)
    which = chance.below(1 << 32, count, _MOST_ITEMS)
    corner = chance.below(_SIDE_PX - _ITEM_PX + 2 * _OVER_EDGE_PX + 1, count, _MOST_ITEMS, 2) - _OVER_EDGE_PX
    dark, bright = 30 + chance.below(50, count, _MOST_ITEMS), 140 + chance.below(116, count, _MOST_ITEMS)
    for scene in range(count):
        for item in range(how_many[scene]):
            candidates = present[kind[scene, item]]
            picture = items.pictures[candidates[which[scene, item] % len(candidates)]].astype(np.int64)
            low, high = dark[scene, item], bright[scene, item]
            shaded = low + picture * (high - low) // 255
            label, at = 1 + int(kind[scene, item]), corner[scene, item]
            _paste(scenes[scene], masks[scene], shaded, _outline(picture), corner=at, label=label)
    return scenes[:, None].astype(np.uint8), masks  # (N, 1, S, S), (N, S, S)


def _outline(picture: NDArray[np.int64]) -> NDArray[np.bool_]:
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(picture > _OUTLINE)
    return filled


def _paste(
    scene: NDArray[np.int64],
    mask: NDArray[np.uint8],
    picture: NDArray[np.int64],
    outline: NDArray[np.bool_],
    *,
    corner: NDArray[np.int64],
    label: int,
) -> None:
    """Draw an item into a scene and its mask; what lies outside is cut off."""
    start, end = np.maximum(corner, 0), np.minimum(corner + _ITEM_PX, _SIDE_PX)
    there = (slice(start[0], end[0]), slice(start[1], end[1]))
    here = (slice(start[0] - corner[0], end[0] - corner[0]), slice(start[1] - corner[1], end[1] - corner[1]))
    scene[there][outline[here]] = picture[here][outline[here]]
    mask[there][outline[here]] = label


def _clutter(count: int, chance: _Chance) -> NDArray[np.int64]:
    """Return backgrounds (N, S, S), 0 … 255: a slow change of grey, strokes, grain."""
    between = _between()  # (S, knots)
    knots = chance.below(110, count, _KNOTS, _KNOTS)
    slow: NDArray[np.int64] = np.einsum("sk,nkl,tl->nst", between, knots, between) // _STEPS**2  # (N, S, S)
    size = np.array([[3, 30]])  # a stroke is thin and long, or long and thin
    for _ in range(_STROKES):
        upright = chance.below(2, count)
        length = 1 + chance.below(1 << 20, count, 2) % size
        grey = chance.below(200, count)
        row, column = chance.below(_SIDE_PX, count), chance.below(_SIDE_PX, count)
        for scene in range(count):
            height, width = length[scene] if upright[scene] else length[scene, ::-1]
            top, left = row[scene], column[scene]
            slow[scene, top : top + height, left : left + width] = grey[scene]
    grain = chance.below(41, count, _SIDE_PX, _SIDE_PX) - 20
    clutter: NDArray[np.int64] = np.clip(slow + grain, 0, 255)
    return clutter


def _between() -> NDArray[np.int64]:
    """Return (S, knots): how much of each grey value a pixel has, in parts of ``_STEPS``; it falls off in a line."""
    pixel, knot = np.arange(_SIDE_PX)[:, None], _STEPS * np.arange(_KNOTS)[None]
    between: NDArray[np.int64] = np.maximum(_STEPS - np.abs(pixel - knot), 0)
    return between
