"""Arrays in ``.npz`` files: ``x`` and ``y``, or ``x_train``, ``y_train`` and the same with ``_val`` and ``_test``.

One file with the role "all", or one file per split with the roles "train", "val", "test", each holding ``x`` and ``y``.
Arrays of other names are named in the card: [arrays] x = "images", y = "labels".  ``groups`` (names or numbers) keeps
samples of one speaker, subject or machine in one split.  Large arrays that are not compressed stay on the disk.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from pydantic import Field, JsonValue

from pipeline.data.checks import UNREADABLE_ARCHIVE, missing_files, missing_shape
from pipeline.data.files import Found
from pipeline.data.named_arrays import SPLITS, Origin, names_in_use, origins_in_one, parts_of
from pipeline.data.npy import read_npz_member
from pipeline.data.source import Parts, Wanted
from pipeline.declare import words
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError, nearest
from pipeline.onboard.arrays import Arrays

_REMEDY = 'say in the card which arrays are meant: [arrays] x = "NAME", y = "NAME" (or x_train, y_train, x_test …)'


class Spec(words.Spec):
    """What only a card of arrays says."""

    arrays: dict[str, str] = Field(default_factory=dict)  # x, y, x_train … → what it is called in the file


def missing(card: DatasetCard, own: Spec, wanted: Wanted | None) -> str:
    """Say what the card needs and has not; empty when it has all."""
    del wanted
    known = sorted(names_in_use(card))
    unknown = [name for name in own.arrays if name not in known]
    if unknown:
        return f"[arrays] has no '{unknown[0]}'{nearest(unknown[0], known)}"
    return missing_files(card) or missing_shape(card)


def content(card: DatasetCard, own: Spec, found: Found) -> JsonValue:
    """Return nothing: all that the samples depend on stands in [files]."""
    del card, own, found
    return {}


def load(card: DatasetCard, own: Spec, found: Found, wanted: Wanted | None) -> Parts:
    """Return what the card's ``.npz`` files hold: samples as stored, (N, *shape).

    Raises DataError naming file, array and sample; ConfigError when the card names neither "all" nor "train".
    """
    if "train" in found.files:
        files = {split: found.files[split] for split in SPLITS if split in found.files}
        origins = {}
        for split, path in files.items():
            arrays, held = _arrays(path, card, own)
            origins[split] = Origin(
                arrays=arrays, where=str(path), suffix="", remedy=_REMEDY, held=held, called=_names(card, own)
            )
    else:
        path = found.file(card, "all")
        arrays, held = _arrays(path, card, own)
        origins = origins_in_one(arrays, card, str(path), _REMEDY, held=held, called=_names(card, own))
    return parts_of(origins, card, wanted)


def _arrays(path: Path, card: DatasetCard, own: Spec) -> tuple[Arrays, tuple[str, ...]]:
    """Return the arrays that mean something here, and the names of all; others are not even unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            arrays = {
                name: read_npz_member(archive, members[there], path)
                for name, there in _names(card, own).items()
                if there in members
            }
            return arrays, tuple(sorted(members))
    except UNREADABLE_ARCHIVE as error:
        raise DataError(
            f"is no readable .npz file: {error}", where=str(path), remedy="the file is damaged: make or fetch it again"
        ) from error


def _names(card: DatasetCard, own: Spec) -> dict[str, str]:
    """Return what each array that means something here is called in the file."""
    return {name: _called(name, own) for name in sorted(names_in_use(card))}


def _called(name: str, own: Spec) -> str:
    """Return what an array is called in the file: what is said of x holds for x_train, too."""
    base, _, split = name.rpartition("_")
    if name not in own.arrays and split in SPLITS and base in own.arrays:
        return f"{own.arrays[base]}_{split}"
    return own.arrays.get(name, name)
