"""The two questions about a data set: which one is it (``reference``), and what is in it (``load``).

``reference`` reads bytes only to hash them and imports no torch: a run that recalls everything asks nothing more.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pipeline.artifacts.networks import DataRef, Digest
from pipeline.data.calibration import indices_file, read_indices
from pipeline.data.files import Found, locate, sha256_of
from pipeline.data.frontend import check_prepared, frontend_of, with_shape
from pipeline.data.kinds import PLACES, named, own_spec, wanted_by
from pipeline.data.source import ArraySource, Dataset
from pipeline.data.split import divide
from pipeline.declare.card import DatasetCard
from pipeline.declare.words import Spec
from pipeline.errors import DataError
from pipeline.progress import Progress, Silent

# What the card says about the data, but not what it tells a reader or where the files lie.
_NOT_IN_DIGEST = {"name", "title", "licence", "source", "files", "own"}

_SMALL_BYTES = 64 * 2**20
# the stages of a run ask for the same data set in turn, and for that of its start: a small one stays beside another one
_held: list[tuple[DataRef, Dataset]] = []  # at most two, the latest last


def reference(card: DatasetCard, folder: Path, progress: Progress | None = None) -> DataRef:
    """Return which data set a card means: its digest covers the content of all files and how they are divided.

    ``folder`` is the card's.  Files are looked for beside the card, in ``$KARUI_DATA`` and one level below, and in the
    user's cache; only what is nowhere is fetched from its url (``progress`` says so).  Raises DataError naming the file
    that is missing or altered, with expected and found sha256; ConfigError for a card that cannot be meant.
    """
    own = own_spec(card)
    found = locate(card, folder, progress or Silent())
    return DataRef(card=card, digest=_digest(card, own, found), folder=folder)


def load(ref: DataRef) -> Dataset:
    """Return the data set, checked and divided; the same object when one that is held is asked for again.

    Every split holds every class, labels are 0 … K-1, samples have the card's shape and are finite.  Raises DataError
    naming file, sample or class, what was expected and found, and what to do; also when the files changed since
    ``reference`` looked at them.
    """
    card, own = ref.card, own_spec(ref.card)
    found = locate(card, ref.folder, Silent())
    digest = _digest(card, own, found)
    if digest != ref.digest:
        raise DataError(
            f"the files changed while this run was using them: expected digest {ref.digest}, found {digest}",
            where=card.name,
            remedy="run the same command again: what depends on them is then made anew",
        )
    known = next((each for each in _held if each[0] == ref), None)
    if known is not None:
        _held.remove(known)
        _held.append(known)
        return known[1]
    _held[:] = [each for each in _held[-1:] if _is_small(each[1])]  # before the next one takes its place in memory
    dataset = _loaded(card, own, found)
    _held.append((ref, dataset))
    return dataset


def _is_small(dataset: Dataset) -> bool:
    splits = (dataset.train, dataset.val, dataset.test)
    arrays = [each for split in splits if isinstance(split, ArraySource) for each in split.inputs.values()]
    return len(arrays) >= len(splits) and sum(each.nbytes for each in arrays) < _SMALL_BYTES


def _loaded(card: DatasetCard, own: Spec, found: Found) -> Dataset:
    parts = named(card).load(card, own, found, wanted_by(card))
    splits = divide(parts, card)
    frontend = frontend_of(parts, splits["train"], card)
    check_prepared(parts, frontend, card)
    indices = None
    if card.calibration.indices is not None:
        indices = read_indices(indices_file(card, found.beside), len(splits["train"]))
    return Dataset(
        card=with_shape(card, splits["train"], frontend),
        classes=parts.classes,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        frontend=frontend,
        columns=parts.columns,
        numbers=parts.numbers,
        calibration=indices,
        pictures=parts.pictures,
        left_out=parts.left_out,
    )


def _digest(card: DatasetCard, own: Spec, found: Found) -> Digest:
    # without defaults, so that a key which is added one day leaves the digests of older cards as they are
    declared = card.model_dump(mode="json", exclude=_NOT_IN_DIGEST, exclude_defaults=True)
    parts: dict[str, object] = {
        "card": declared,
        "own": own.model_dump(mode="json", exclude=PLACES, exclude_defaults=True),
        "files": {role: sha256_of(path) for role, path in found.files.items()},
        "content": named(card).content(card, own, found),
    }
    if card.calibration.indices is not None:
        parts["calibration"] = sha256_of(indices_file(card, found.beside))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
