"""What in a data set is worth a look, in sentences: nothing of it stops a run.

Shapes: N samples, C channels (columns of a table), H height, W width, T training pictures, E test pictures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.files import sha256_of_each
from pipeline.data.pictures import MaskedPictureSource, PictureSource
from pipeline.data.source import ArraySource, Dataset, Source, Subset, everything
from pipeline.onboard.about import Column
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import StepCall, run_steps

_SPREADS_APART = 100
_LOOKED_AT, _LEAST = 20_000, 100  # samples whose spread is measured: more would say the same
_VALUES_AT_ONCE = 8_000_000  # held as float32
_MOST_VALUES = 1_000_000_000  # of all pictures that are compared: so many take ten seconds
_FEW = 10  # test samples of a class: one more right or wrong moves its share by ten points
_NAMED, _PAIRS = 5, 3  # classes and pairs of pictures that are named; the others are counted
_MOST_PAIRS = 1 << 22  # hashes compared at once

# When two pictures look nearly the same.  A hash of gradients alone is also equal for flat pictures and for drawings
# on one background; what it finds is looked at closer.  Small pictures of one class are merely similar.
_SMALLEST_SIDE = 32
_HASH_BITS_APART = 6  # of 64
_THUMBNAIL_SIDE = 16
_CORRELATED = 0.995
_LEAST_CONTRAST = 0.1  # of a thumbnail, as a share of the spread over all of them: a blank picture looks like any other

Pairs = list[tuple[int, int]]  # index into the test split, index into the training split


def hints_of(dataset: Dataset) -> tuple[str, ...]:
    """Return what a person should know of the data before believing in the result."""
    return (*_few_test_samples(dataset), *_far_apart(dataset), *_in_both_splits(dataset))


# ── classes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _few_test_samples(dataset: Dataset) -> Iterator[str]:
    if dataset.test.strata is None or not dataset.classes:
        return
    counts = np.bincount(dataset.test.strata, minlength=len(dataset.classes))
    few = [f"'{name}' ({count})" for name, count in zip(dataset.classes, counts, strict=True) if count < _FEW]
    if few:
        yield (
            f"fewer than {_FEW} test samples of {_listed(few)}: what is right or wrong there is chance; "
            "a larger [split] test or more samples would tell"
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more classes" if more > 0 else "")


# ── features ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _far_apart(dataset: Dataset) -> Iterator[str]:
    """Compare the spreads of the features as the network gets them."""
    whole = everything(dataset.train)
    one = dataset.train.read(whole[:1]).inputs
    most = min(_LOOKED_AT, max(_LEAST, _VALUES_AT_ONCE // sum(raw.size for raw in one.values())), len(whole))
    chosen = whole[np.linspace(0, len(whole) - 1, most).astype(np.int64)]
    wanted = [name for name, raw in one.items() if raw.dtype.itemsize > 1]  # bytes are pixels: all of one scale
    if not wanted:
        return
    raws = dataset.train.read(chosen).inputs
    for name in wanted:
        steps = dataset.frontend.get(name, ())
        found = _narrow_and_wide(run_steps(raws[name], steps))
        if found is None:
            continue
        (narrow, low), (wide, high) = found
        named = _feature_names(dataset.columns, steps, raws[name].shape[1])
        table = f"[inputs.{name}]" if dataset.card.inputs else "[input]"
        yield (
            f"{named(wide)} spreads {high / low:,.0f} times as wide as {named(narrow)} ({high:.3g} and {low:.3g}, the "
            f'standard deviations of what the network gets): normalize = "train" in {table} of the card evens them out'
        )


def _narrow_and_wide(values: NDArray[np.float32]) -> tuple[tuple[int, float], tuple[int, float]] | None:
    """Return channel and spread of the narrowest and of the widest; None where they are not far apart.

    What never changes, and what has two values alone (a rare category), has no scale that could be wrong.
    """
    channels = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)  # (C, n*…)
    spreads = channels.std(axis=1, dtype=np.float64)
    low, high = channels.min(axis=1, keepdims=True), channels.max(axis=1, keepdims=True)
    spreads[((channels == low) | (channels == high)).all(axis=1)] = 0
    changing = np.flatnonzero(spreads > 0)
    if len(changing) < 2:
        return None
    narrow, wide = (int(changing[pick(spreads[changing])]) for pick in (np.argmin, np.argmax))
    if spreads[wide] <= _SPREADS_APART * spreads[narrow]:
        return None
    return (narrow, float(spreads[narrow])), (wide, float(spreads[wide]))


def _feature_names(columns: Sequence[Column], steps: Sequence[StepCall], stored: int) -> _Names:
    """Return what channels are called: the columns of a table, each category of one a channel of its own."""
    names: list[str] = []
    spread_out = {
        place: len(codes) for call in steps if call.step == "one_hot" for place, codes in _codes(call).items()
    }
    for place, column in enumerate(columns if len(columns) == stored else ()):
        names += [column.name] * spread_out.get(place, 1)
    return _Names(names=tuple(names))


def _codes(call: StepCall) -> Mapping[int, Sequence[object]]:
    return dict(zip(call.settings["columns"], call.settings["codes"], strict=True))


@dataclass(frozen=True, kw_only=True)
class _Names:
    """Names of channels, as far as they have some."""

    names: tuple[str, ...]

    def __call__(self, channel: int) -> str:
        return f"'{self.names[channel]}'" if channel < len(self.names) else f"feature {channel}"


# ── pictures in both splits ─────────────────────────────────────────────────────────────────────────────────────────


def _in_both_splits(dataset: Dataset) -> Iterator[str]:
    """Find pictures of the test split that the network was trained with, as they are or nearly."""
    train, test = dataset.train, dataset.test
    shape = dataset.card.input.shape
    if dataset.card.inputs or len(shape) != 3:
        return
    trained_with, tested_with = _files_of(train), _files_of(test)
    if trained_with and tested_with:  # too many to hold: their bytes are known, to decode them all would take minutes
        yield from _same(train, test, _equal(sha256_of_each(trained_with), sha256_of_each(tested_with)))
        return
    if (len(train) + len(test)) * math.prod(shape) > _MOST_VALUES:
        return
    seen = _looked_at(train, shape), _looked_at(test, shape)
    same = _equal(seen[0].digests, seen[1].digests)
    yield from _same(train, test, same)
    if min(shape[1:]) >= _SMALLEST_SIDE:
        known = {place for place, _ in same}
        alike = [pair for pair in _alike(*seen) if pair[0] not in known]
        if alike:
            yield (
                f"{_pictures(len(alike), 'looks', 'look')} nearly the same as one of the training split "
                f"({_told(train, test, alike, '≈')}): copies of one picture belong into one split"
            )


def _files_of(source: Source) -> tuple[Path, ...]:
    """Return the picture of every sample, where they are decoded when they are read; () elsewhere."""
    if isinstance(source, Subset):
        whole = _files_of(source.whole)
        return tuple(whole[int(index)] for index in source.indices) if whole else ()
    return source.paths if isinstance(source, PictureSource | MaskedPictureSource) else ()


def _same(train: Source, test: Source, pairs: Pairs) -> Iterator[str]:
    if pairs:
        yield (
            f"{_pictures(len(pairs), 'is', 'are')} in the training split too ({_told(train, test, pairs, '=')}): "
            "take one of each out, or the test is easier than the world"
        )


def _pictures(count: int, one: str, many: str) -> str:
    return f"1 picture of the test split {one}" if count == 1 else f"{count:,} pictures of the test split {many}"


def _told(train: Source, test: Source, pairs: Pairs, sign: str) -> str:
    """Name the first pairs: the test split's picture, then the training split's."""
    told = [f"{_name(test, first)} {sign} {_name(train, second)}" for first, second in pairs[:_PAIRS]]
    return ", ".join(told) + (", …" if len(pairs) > _PAIRS else "")


def _name(source: Source, index: int) -> str:
    """Return the file of a sample with its folder, or its number in the data that the split was drawn from."""
    if isinstance(source, Subset):
        return _name(source.whole, int(source.indices[index]))
    if isinstance(source, PictureSource | MaskedPictureSource):
        return source.names[index]
    if isinstance(source, ArraySource) and source.names:
        return source.names[index]
    numbers = source.numbers if isinstance(source, ArraySource) else None
    return f"sample {index if numbers is None else int(numbers[index])}"


# ── what pictures look like ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, eq=False)
class _Looks:
    """The pictures of a split."""

    digests: list[bytes]  # N: of the values
    hashes: NDArray[np.uint64]  # (N,): of the gradients; () for small pictures
    thumbnails: NDArray[np.float32]  # (N, 256): grey, of mean 0 and length 1; zeros for blank ones


def _looked_at(source: Source, shape: tuple[int, ...]) -> _Looks:
    digests: list[bytes] = []
    hashes, thumbnails = [np.zeros(0, np.uint64)], [np.zeros((0, _THUMBNAIL_SIDE**2), np.float32)]
    indices, at_once = everything(source), max(1, _VALUES_AT_ONCE // math.prod(shape))
    for start in range(0, len(indices), at_once):
        pictures = _only(source.read(indices[start : start + at_once]).inputs)  # (n, C, H, W)
        digests += [hashlib.blake2b(each.tobytes(), digest_size=16).digest() for each in pictures]
        if min(shape[1:]) >= _SMALLEST_SIDE:
            grey = pictures.mean(axis=1, dtype=np.float32)  # (n, H, W)
            hashes.append(gradient_hashes(grey))
            thumbnails.append(_shrunk(grey, _THUMBNAIL_SIDE, _THUMBNAIL_SIDE).reshape(len(grey), -1))
    return _Looks(digests=digests, hashes=np.concatenate(hashes), thumbnails=_unit(np.concatenate(thumbnails)))


def _only(inputs: Arrays) -> NDArray[np.generic]:
    return next(iter(inputs.values()))


def gradient_hashes(grey: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return 64 bits for each picture (n, H, W): whether it grows darker to the right, in 8 rows of 8 places.

    Equal for copies of other sizes and qualities (the difference hash, Krawetz 2013).
    """
    darker = np.diff(_shrunk(grey, 8, 9), axis=2) < 0  # (n, 8, 8)
    return np.packbits(darker.reshape(len(grey), -1), axis=1).view(np.uint64).ravel()


def _shrunk(grey: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return pictures (n, H, W) as (n, height, width), each pixel a mean over an area."""
    for axis, size in ((1, height), (2, width)):
        edges = np.linspace(0, grey.shape[axis], size + 1).astype(np.int64)
        shape = [1, 1, 1]
        shape[axis] = size
        areas = np.diff(edges).reshape(shape)
        grey = (np.add.reduceat(grey, edges[:-1], axis=axis) / areas).astype(np.float32)
    return grey


def _unit(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return thumbnails (N, P) whose products are correlations; one without contrast becomes zeros."""
    spread = float(thumbnails.std()) if thumbnails.size else 0.0
    centred = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    blank = lengths <= _LEAST_CONTRAST * spread * _THUMBNAIL_SIDE
    unit: NDArray[np.float32] = (centred / np.maximum(lengths, 1e-12)).astype(np.float32)
    unit[blank[:, 0]] = 0
    return unit


def _equal(train: Sequence[object], test: Sequence[object]) -> Pairs:
    known = {digest: place for place, digest in reversed(list(enumerate(train)))}
    return [(place, known[digest]) for place, digest in enumerate(test) if digest in known]


def _alike(train: _Looks, test: _Looks) -> Pairs:
    """Return each picture of the test split that looks nearly like one of the training split, with the likest."""
    found: Pairs = []
    rows = max(1, _MOST_PAIRS // max(len(train.hashes), 1))
    for start in range(0, len(test.hashes), rows):
        part = test.hashes[start : start + rows]
        apart = np.bitwise_count(part[:, None] ^ train.hashes[None])  # (rows, T)
        for row in np.flatnonzero((apart <= _HASH_BITS_APART).any(axis=1)):
            near = np.flatnonzero(apart[row] <= _HASH_BITS_APART)
            correlations = train.thumbnails[near] @ test.thumbnails[start + row]
            best = int(correlations.argmax())
            if correlations[best] >= _CORRELATED:
                found.append((start + int(row), int(near[best])))
    return found
