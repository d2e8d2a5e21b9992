"""What every kind of source is checked for: shape, finite values, labels that can be meant, sizes that fit a machine.

``where`` in an error is the file and array; a sample is named by its number, counted from 0.

Shapes: N samples, C channels, H height, W width, K classes, T numbers to predict.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.source import Indices
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError, DataError, nearest

# Of arrays that are read whole; no honest set of one file needs more, and a forged header must not take all memory.
LARGEST_ARRAY_BYTES = 2 << 30
MOST_CLASSES = 10_000
_FLOAT32_BYTES = 4

# what zipfile raises for damaged, encrypted and forged archives, decompressors included
UNREADABLE_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)
_VALUES_AT_ONCE = 1 << 22  # looked at together: what is compared takes memory beside what is there


def checked_samples(samples: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """Return the samples as (N, *shape) in native byte order; pictures may come without their one channel.

    Raises DataError for another shape, for values that are no real numbers, and for the first value that is no finite
    number as float32, in which networks compute.
    """
    if samples.dtype.kind not in "biuf":
        raise DataError(
            f"holds values of type {samples.dtype}, expected numbers", where=where, remedy="store numbers alone"
        )
    without_channel = shape[1:] if len(shape) == 3 and shape[0] == 1 else None
    if samples.ndim == 0 or samples.shape[1:] not in (shape, without_channel):
        raise DataError(
            f"samples have the shape {samples.shape[1:]}, expected {shape}",
            where=where,
            remedy="store them as (N, *shape), pictures as (N, C, H, W), or correct [input] shape in the card",
        )
    native = samples.astype(samples.dtype.newbyteorder("="), copy=False).reshape(len(samples), *shape)
    if native.dtype.kind == "f":
        check_finite(native, where)
    if native.dtype.itemsize > _FLOAT32_BYTES:
        _check_fits_float32(native, where)
    return native


def _check_fits_float32(samples: NDArray[Any], where: str) -> None:
    for first, some in _in_portions(samples):
        with np.errstate(over="ignore"):  # what becomes infinite is refused by name
            bad = ~np.isfinite(some.astype(np.float32))
        if bad.any():
            sample, *place = (int(axis) for axis in np.argwhere(bad)[0])
            raise DataError(
                f"sample {first + sample} holds {some[sample, *place]:g} at {tuple(place)}, more than float32 "
                "can hold (3.4e+38)",
                where=where,
                remedy="networks compute in float32: correct the value, or store the numbers in a larger unit",
            )


def check_finite(samples: NDArray[Any], where: str) -> None:
    """Raise DataError for the first NaN or infinity of (N, …)."""
    for first, some in _in_portions(samples):
        bad = ~np.isfinite(some)
        if bad.any():
            sample, *place = (int(axis) for axis in np.argwhere(bad)[0])
            raise DataError(
                f"sample {first + sample} holds {some[sample, *place]} at {tuple(place)}, expected finite numbers",
                where=where,
                remedy="remove this sample or fill in the value",
            )


def _in_portions(samples: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the number of the first sample → some samples (n, …)."""
    at_once = max(1, _VALUES_AT_ONCE // max(1, math.prod(samples.shape[1:])))
    for first in range(0, len(samples), at_once):
        yield first, samples[first : first + at_once]


def checked_labels(labels: NDArray[Any], samples: int, classes: int | None, where: str) -> NDArray[np.int64]:
    """Return the labels as (N,) int64.

    ``classes`` is K when the card names its classes.  Raises DataError for a wrong length or type, and for the first
    label outside 0 … K-1.
    """
    if labels.shape != (samples,):
        raise DataError(f"labels have the shape {labels.shape}, expected ({samples},): one per sample", where=where)
    if labels.dtype.kind not in "iub":
        raise DataError(
            f"labels are of type {labels.dtype}, expected whole numbers from 0",
            where=where,
            remedy='number the classes 0, 1, 2 … and name them in the card: classes = ["cat", "dog"]',
        )
    highest = (classes if classes is not None else MOST_CLASSES) - 1
    outside = np.flatnonzero((labels < 0) | (labels > highest))
    if outside.size:
        first = int(outside[0])
        raise DataError(
            f"sample {first} has the label {labels[first]}, expected 0 … {highest} "
            f"({outside.size} of {samples} labels are outside)",
            where=where,
            remedy="correct the labels, or the list of classes in the card",
        )
    return labels.astype(np.int64)


def checked_outputs(outputs: NDArray[Any], samples: int, where: str) -> NDArray[np.float32]:
    """Return what a network gave for each sample, (N, …) float32.  Raises DataError as ``checked_numbers`` does."""
    if outputs.ndim == 0 or len(outputs) != samples or outputs.dtype.kind != "f":
        raise DataError(
            f"the outputs to agree with are {outputs.dtype} of shape {outputs.shape}, expected real numbers "
            f"({samples}, …)",
            where=where,
        )
    check_finite(outputs.reshape(samples, -1), where)
    return outputs.astype(np.float32)


def checked_numbers(numbers: NDArray[Any], samples: int, divide: float, where: str) -> NDArray[np.float32]:
    """Return the numbers to predict, each divided by ``divide``, as (N, T) float32; (N,) is one number per sample.

    Raises DataError for a wrong length or type, and for the first NaN or infinity.
    """
    if numbers.ndim not in (1, 2) or len(numbers) != samples or numbers.dtype.kind not in "biuf":
        raise DataError(
            f"the numbers to predict are {numbers.dtype} of shape {numbers.shape}, expected ({samples},) or "
            f"({samples}, T): one or more per sample",
            where=where,
        )
    check_finite(numbers.reshape(samples, -1), where)
    with np.errstate(over="ignore"):  # what is finite as float64 may be too large for float32: refused below
        divided: NDArray[np.float32] = (numbers.reshape(samples, -1).astype(np.float64) / divide).astype(np.float32)
    check_finite(divided, where)
    return divided


def checked_masks(
    masks: NDArray[Any], samples: int, size: tuple[int, ...], classes: int | None, where: str
) -> NDArray[Any]:
    """Return the class of each pixel as (N, H, W), uint8 where it fits; ``size``: (H, W) of the pictures.

    ``classes`` is K when the card names its classes.  Raises DataError for another shape or type, and for the first
    pixel outside 0 … K-1.
    """
    if masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.shape != (samples, *size) or masks.dtype.kind not in "iub":
        raise DataError(
            f"masks are {masks.dtype} of shape {masks.shape}, expected whole numbers of shape {(samples, *size)}: "
            "the class of each pixel",
            where=where,
        )
    highest = (classes if classes is not None else MOST_CLASSES) - 1
    if masks.size and (masks.min() < 0 or masks.max() > highest):
        outside = (masks < 0) | (masks > highest)
        sample, row, column = (int(axis) for axis in np.argwhere(outside)[0])
        raise DataError(
            f"sample {sample} has the class {masks[sample, row, column]} at row {row}, column {column}, "
            f"expected 0 … {highest}",
            where=where,
            remedy="correct the mask, or the list of classes in the card",
        )
    return masks.astype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.int64, copy=False)


def class_names(card: DatasetCard, *labels: NDArray[Any]) -> tuple[str, ...]:
    """Return the card's classes, or the numbers "0" … "K-1" when it names none; K follows from the labels."""
    if card.classes:
        return card.classes
    highest = max((int(one.max()) for one in labels if one.size), default=-1)
    return tuple(map(str, range(highest + 1)))


def numbered_groups(groups: Mapping[str, NDArray[Any]], samples: Mapping[str, int], where: str) -> dict[str, Indices]:
    """Return split → (N,) int64: the names or numbers of groups, numbered alike in all splits.

    Raises DataError for a wrong length.
    """
    for split, names in groups.items():
        if names.shape != (samples[split],):
            raise DataError(
                f"the groups of {split} have the shape {names.shape}, expected ({samples[split]},): one per sample",
                where=where,
            )
    if not groups:
        return {}
    _, numbers = np.unique(np.concatenate([names.astype(str) for names in groups.values()]), return_inverse=True)
    ends = np.cumsum([len(names) for names in groups.values()])
    return dict(zip(groups, np.split(numbers.astype(np.int64), ends[:-1]), strict=True))


def missing_shape(card: DatasetCard) -> str:
    """Say which input of the card has no shape; empty when all have one."""
    for name, spec in card.inputs.items() if card.inputs else (("", card.input),):
        if not spec.shape:
            table = f"[inputs.{name}]" if name else "[input]"
            given = "shape" in spec.model_fields_set
            return f"{table} shape = []: expected a list of at least 1" if given else f"{table} needs 'shape'"
    return ""


def several_inputs(card: DatasetCard) -> str:
    """Say that a kind of data has one input only; empty when the card asks for no more."""
    return f'[inputs]: kind = "{card.kind}" has one input, [input]' if card.inputs else ""


def missing_files(card: DatasetCard) -> str:
    """Say which of the files of a table, or of arrays, the card lacks; empty when none is missing."""
    known = ("all", "train", "val", "test")
    unknown = [role for role in card.files if role not in known]
    if unknown:
        return f"[files] has no '{unknown[0]}'{nearest(unknown[0], known)}"
    if not {"all", "train"} & card.files.keys():
        return f'kind = "{card.kind}" needs [files.all] with the path of the file, or [files.train]'
    return ""


def picture_shape(card: DatasetCard) -> tuple[int, int, int]:
    """Return the card's input shape as (C, H, W).  Raises ConfigError when it is no grey or RGB picture."""
    shape = card.input.shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ConfigError(
            f"[input] shape = {list(shape)}: pictures are [1, H, W] (grey) or [3, H, W] (RGB)", where=card.name
        )
    return shape[0], shape[1], shape[2]


def check_array_bytes(size_bytes: int, where: str) -> None:
    """Raise DataError when an array that must be read whole is larger than ``LARGEST_ARRAY_BYTES``."""
    if size_bytes > LARGEST_ARRAY_BYTES:
        raise DataError(
            f"declares {size_bytes:,} bytes, expected at most {LARGEST_ARRAY_BYTES:,}",
            where=where,
            remedy="larger sets: np.savez(…) without compression is mapped, "
            'a folder of pictures (kind = "image-folder") is read piece by piece',
        )
