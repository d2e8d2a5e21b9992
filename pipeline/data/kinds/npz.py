"""Arrays in ``.npz`` files: ``x`` and ``y``, or ``x_train``, ``y_train`` and the same with ``_val`` and ``_test``.

One file with the role "all", or one file per split with the roles "train", "val", "test", each holding ``x`` and ``y``.
``groups`` (names or numbers) keeps samples of one speaker, subject or machine in one split.  Nothing is unpickled, and
no array is read whose declared size is absurd or does not agree with its header.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import JsonValue

from pipeline.data.checks import missing_files, missing_shape, read_npy
from pipeline.data.files import Found
from pipeline.data.named_arrays import SPLITS, Origin, names_in_use, origins_in_one, parts_of
from pipeline.data.source import Parts, Wanted
from pipeline.declare import words
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError
from pipeline.onboard.arrays import Arrays

_REMEDY = "np.savez_compressed(file, x=samples, y=labels), or x_train, y_train, x_test, y_test"


class Spec(words.Spec):
    """Nothing more than every card has."""


def missing(card: DatasetCard, own: Spec, wanted: Wanted | None) -> str:
    """Say what the card needs and has not; empty when it has all."""
    del own, wanted
    return missing_files(card) or missing_shape(card)


def content(card: DatasetCard, own: Spec, found: Found) -> JsonValue:
    """Return nothing: all that the samples depend on stands in [files]."""
    del card, own, found
    return {}


def load(card: DatasetCard, own: Spec, found: Found, wanted: Wanted | None) -> Parts:
    """Return what the card's ``.npz`` files hold: samples as stored, (N, *shape).

    Raises DataError naming file, array and sample; ConfigError when the card names neither "all" nor "train".
    """
    del own
    if "train" in found.files:
        files = {split: found.files[split] for split in SPLITS if split in found.files}
        origins = {
            split: Origin(arrays=_arrays(path, card), where=str(path), suffix="", remedy=_REMEDY)
            for split, path in files.items()
        }
    else:
        path = found.file(card, "all")
        origins = origins_in_one(_arrays(path, card), card, str(path), _REMEDY)
    return parts_of(origins, card, wanted)


def _arrays(path: Path, card: DatasetCard) -> Arrays:
    """Return the arrays whose names mean something here; others are not even unpacked."""
    wanted = names_in_use(card)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            return {name: _member(archive, members[name], path) for name in sorted(wanted & set(members))}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"is no readable .npz file: {error}", where=str(path), remedy="the file is damaged: make or fetch it again"
        ) from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    with archive.open(member) as file:
        return read_npy(file, member.file_size, f"{path}: {member.filename}")
