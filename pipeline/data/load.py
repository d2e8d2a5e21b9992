"""The two questions about a data set: which one is it (``reference``), and what is in it (``load``).

``reference`` reads bytes only to hash them and imports no torch: a run that recalls everything asks nothing more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.artifacts import DataRef, Digest
from pipeline.data import csv_table, idx, image_folder, npz, printed_digits
from pipeline.data.calibration import read_indices
from pipeline.data.files import Found, locate, places, sha256_of, sha256_of_each
from pipeline.data.source import Dataset, Parts
from pipeline.data.split import divide
from pipeline.errors import DataError
from pipeline.progress import Progress, Silent
from pipeline.spec import DatasetCard

LOADERS: Mapping[str, Callable[[DatasetCard, Found], Parts]] = {
    "npz": npz.load,
    "idx": idx.load,
    "image-folder": image_folder.load,
    "csv": csv_table.load,
    "printed-digits": printed_digits.load,
}
# What the card says about the data, but not what it tells a reader or where the files lie.
_NOT_IN_DIGEST = {"name", "title", "licence", "source", "files", "folder"}


def reference(card: DatasetCard, folder: Path, progress: Progress | None = None) -> DataRef:
    """Return which data set a card means: its digest covers the content of all files and how they are divided.

    ``folder`` is the card's.  Files are looked for beside the card, in ``$KARUI_DATA`` and one level below, and in the
    user's cache; only what is nowhere is fetched from its url (``progress`` says so).  Raises DataError naming the file
    that is missing or altered, with expected and found sha256; ConfigError for a card that cannot be meant.
    """
    found = locate(card, folder, progress or Silent())
    return DataRef(card=card, digest=_digest(card, found, folder), folder=folder)


def load(ref: DataRef) -> Dataset:
    """Return the data set, checked and divided.

    Every split holds every class, labels are 0 … K-1, samples have the card's shape and are finite.  Raises DataError
    naming file, sample or class, what was expected and found, and what to do; also when the files changed since
    ``reference`` looked at them.
    """
    card = ref.card
    found = locate(card, ref.folder, Silent())
    digest = _digest(card, found, ref.folder)
    if digest != ref.digest:
        raise DataError(
            f"the files changed while this run was using them: expected digest {ref.digest}, found {digest}",
            where=card.name,
            remedy="run the same command again: what depends on them is then made anew",
        )
    dataset = divide(LOADERS[card.kind](card, found), card)
    if card.calibration.indices is None:
        return dataset
    indices = read_indices(_indices_file(card, ref.folder), len(dataset.train))
    return dataclasses.replace(dataset, calibration=indices)


def _digest(card: DatasetCard, found: Found, folder: Path) -> Digest:
    parts: dict[str, object] = {
        "card": card.model_dump(mode="json", exclude=_NOT_IN_DIGEST),
        "files": {role: sha256_of(path) for role, path in found.files.items()},
    }
    if card.calibration.indices is not None:
        parts["calibration"] = sha256_of(_indices_file(card, folder))
    if card.kind == "image-folder":
        paths = image_folder.pictures(card, found)
        root = found.folder or folder
        names = [path.relative_to(root).as_posix() for path in paths]
        parts["pictures"] = list(zip(names, sha256_of_each(paths), strict=True))
    if card.kind == "printed-digits":
        parts["drawing"] = printed_digits.fingerprint()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _indices_file(card: DatasetCard, folder: Path) -> Path:
    name = card.calibration.indices or ""
    candidates = places(name, folder)
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(
        f"the calibration indices '{name}' are missing",
        where=card.name,
        remedy="put the file beside the card, or take [calibration] indices out of the card: a draw takes its place",
    )
