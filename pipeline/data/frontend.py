"""Which steps turn raw values into a network's inputs: those of the kind of data, then what [input] in the card says.

Numbers that are measured, not declared, are those of the training split.

Shapes: N samples, n of them at once, C channels (axis 1: columns of a table, channels of a picture).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.source import INPUT, Indices, Parts, Source, everything
from pipeline.declare.card import DatasetCard, InputSpec
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import StepCall, prepare, run_steps

_AT_ONCE = 1024  # samples between two sums; part of what is measured, to the last bit …
_BYTES = 256  # different values of a byte
_VALUES_AT_ONCE = 1 << 20  # … and fewer of large samples: they are measured in float64


def frontend_of(parts: Parts, train: Source, card: DatasetCard) -> dict[str, tuple[StepCall, ...]]:
    """Return input → steps.  Raises ConfigError where the card's numbers do not fit the channels."""
    own = parts.own_steps(train) if parts.own_steps is not None else ()
    if not card.inputs:
        return {INPUT: (*own, *_declared(INPUT, card.input, own, train, card))}
    return {name: _declared(name, spec, (), train, card) for name, spec in card.inputs.items()}


def with_shape(card: DatasetCard, train: Source, frontend: dict[str, tuple[StepCall, ...]]) -> DatasetCard:
    """Return the card with the input's shape, found where it is not declared.

    Raises DataError when what comes out of the steps has another shape than the card says.
    """
    for name, spec in card.inputs.items() if card.inputs else ((INPUT, card.input),):
        found = _shape_after(frontend[name], name, train)
        if spec.shape and card.stored_shape(name) != found:
            raise DataError(
                f"the network's input has the shape {list(found)}, expected {list(spec.shape)}",
                where=card.name,
                remedy=f"set [input] shape = {list(found)} in the card, or leave it out",
            )
    if card.inputs or card.input.shape:
        return card
    return card.model_copy(update={"input": card.input.model_copy(update={"shape": found})})


def check_prepared(parts: Parts, frontend: dict[str, tuple[StepCall, ...]], card: DatasetCard) -> None:
    """Raise DataError for the first value of any sample that is no finite number after the steps; names its file."""
    for split, source in (("train", parts.train), ("val", parts.val), ("test", parts.test)):
        if source is not None and len(source):
            for first, raw in _to_look_at(source):
                with np.errstate(all="ignore"):  # what becomes infinite is refused by name
                    prepared = prepare(raw, frontend)
                _check_finite(prepared, first, parts.places.get(split, f"{card.name}: {split}"))


def _to_look_at(source: Source) -> Iterator[tuple[int | None, Arrays]]:
    """Yield number of the first sample → some samples; None: their smallest and largest values alone.

    Steps keep the order of values, so that of bytes (all pictures) two say what all would.
    """
    indices = everything(source)
    one = source.read(indices[:1]).inputs
    if all(array.dtype.itemsize == 1 for array in one.values()):
        yield None, {name: _extremes(array) for name, array in one.items()}
        return
    for portion in _portions(indices, sum(array.size for array in one.values())):
        yield int(portion[0]), source.read(portion).inputs


def _portions(indices: Indices, values: int) -> list[Indices]:
    """Return the indices of samples cut into portions; ``values``: in one sample."""
    at_once = max(1, min(_AT_ONCE, _VALUES_AT_ONCE // max(values, 1)))
    return [indices[start : start + at_once] for start in range(0, len(indices), at_once)]


def _extremes(like: NDArray[Any]) -> NDArray[Any]:
    ends = (False, True) if like.dtype.kind == "b" else (np.iinfo(like.dtype).min, np.iinfo(like.dtype).max)
    return np.concatenate([np.full_like(like, end) for end in ends])


def _check_finite(prepared: Arrays, first: int | None, where: str) -> None:
    for name, values in prepared.items():
        bad = ~np.isfinite(values)
        if bad.any():
            sample, *place = (int(axis) for axis in np.argwhere(bad)[0])
            subject = "a sample" if first is None else f"sample {first + sample}"
            raise DataError(
                f"{subject} is {values[sample, *place]} at {tuple(place)} of '{name}' after preprocessing, "
                "expected finite numbers",
                where=where,
                remedy="correct divide, mean and std in [input] of the card, or the sample",
            )


def _declared(
    name: str, spec: InputSpec, own: tuple[StepCall, ...], train: Source, card: DatasetCard
) -> tuple[StepCall, ...]:
    mean, std = spec.mean, spec.std
    if spec.normalize == "train":
        mean, std = measured(train, name, (*own, StepCall("normalize", {"divide": spec.divide})))
    else:
        _check_lengths(name, spec, own, train, card)
    steps = [StepCall("normalize", {"divide": spec.divide, "mean": list(mean), "std": list(std)})]
    if spec.clip is not None:
        steps.append(StepCall("clip", {"limit": spec.clip}))
    return tuple(steps)


def _check_lengths(name: str, spec: InputSpec, own: tuple[StepCall, ...], train: Source, card: DatasetCard) -> None:
    """Check what the card itself cannot: it may not know how many columns the table has."""
    channels = _shape_after(own, name, train)[0]
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) not in (1, channels):
            raise ConfigError(
                f"[input] {key} has {len(values)} values, expected one or one per channel ({channels})", where=card.name
            )


def _shape_after(steps: tuple[StepCall, ...], name: str, train: Source) -> tuple[int, ...]:
    """Return the shape of one sample after the steps."""
    one = train.read(everything(train)[:1]).inputs[name]
    with np.errstate(all="ignore"):  # of zeros: only the shape is asked for
        return run_steps(np.zeros_like(one), steps).shape[1:]


# ── measuring ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, eq=False)
class _Moments:
    """Of some samples: how many values each channel has, their mean, and the sum of squared distances from it."""

    count: int
    mean: NDArray[np.float64]  # (C,)
    squares: NDArray[np.float64]  # (C,)
    binary: NDArray[np.bool_]  # (C,): no other values than 0 and 1

    def joined(self, other: _Moments) -> _Moments:
        """Return the moments of both (Chan, Golub & LeVeque 1979), without the loss of digits of a sum of squares."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return _Moments(
            count=count,
            mean=self.mean + apart * (other.count / count),
            squares=self.squares + other.squares + apart**2 * (self.count * other.count / count),
            binary=self.binary & other.binary,
        )


def measured(train: Source, name: str, steps: tuple[StepCall, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of an input over all samples, after the steps: C each.

    Accumulated in float64, rounded to float32, in which they are used.  A channel that holds nothing but 0 and 1 stays
    as it is (mean 0, std 1): a rare category would otherwise become a value far from all others.  So does the scale of
    a channel that never changes.
    """
    one = train.read(everything(train)[:1]).inputs[name]
    portions = _portions(everything(train), math.prod(_shape_after(steps, name, train)))
    if one.dtype == np.uint8 and [call.step for call in steps] == ["normalize"]:
        whole = _moments_of_bytes(train, name, steps, portions)
    else:
        whole = _moments(train, name, steps, portions[0])
        for portion in portions[1:]:
            whole = whole.joined(_moments(train, name, steps, portion))
    spread = np.sqrt(whole.squares / whole.count)
    mean = np.where(whole.binary, 0.0, whole.mean).astype(np.float32)
    std = np.where(whole.binary | (spread.astype(np.float32) == 0), 1.0, spread).astype(np.float32)
    return tuple(mean.tolist()), tuple(std.tolist())


def _moments(train: Source, name: str, steps: tuple[StepCall, ...], portion: Indices) -> _Moments:
    values = run_steps(train.read(portion).inputs[name], steps).astype(np.float64)  # (n, C, …)
    channels = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)  # (C, n*…)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values are refused where all inputs are
        mean = channels.mean(1)
        squares = ((channels - mean[:, None]) ** 2).sum(1)
    return _Moments(
        count=channels.shape[1],
        mean=mean,
        squares=squares,
        binary=((channels == 0) | (channels == 1)).all(1),
    )


def _moments_of_bytes(train: Source, name: str, steps: tuple[StepCall, ...], portions: list[Indices]) -> _Moments:
    """Count how often each of the 256 values occurs and prepare these alone: ten times as fast for pictures."""
    counts = np.zeros((_shape_after((), name, train)[0], _BYTES), np.int64)  # (C, 256)
    for portion in portions:
        raw = train.read(portion).inputs[name]  # (n, C, …)
        for channel in range(len(counts)):
            counts[channel] += np.bincount(raw[:, channel].ravel(), minlength=_BYTES)
    values = run_steps(np.arange(_BYTES, dtype=np.uint8)[:, None], steps)[:, 0].astype(np.float64)  # (256,)
    count = int(counts[0].sum())
    mean = counts @ values / count
    return _Moments(
        count=count,
        mean=mean,
        squares=(counts * (values - mean[:, None]) ** 2).sum(1),
        binary=(counts[:, (values != 0) & (values != 1)] == 0).all(1),
    )
