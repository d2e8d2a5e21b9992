"""Which training samples stand for the data when activation ranges are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.data.files import places
from pipeline.data.npy import read_npy
from pipeline.data.source import Dataset, Indices
from pipeline.data.split import stratified_draw
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError

_CALIBRATION_DRAW = 3  # tells this draw apart from those of the splits, which have the same seed


def calibration_indices(dataset: Dataset) -> Indices:
    """Return sorted indices into ``dataset.train``: those of the card's file, or else a seeded, stratified draw.

    The draw takes ``card.calibration.samples`` samples, or all when there are fewer.
    """
    if dataset.calibration is not None:
        return dataset.calibration
    strata = dataset.train.strata
    if strata is None:
        strata = np.zeros(len(dataset.train), dtype=np.int64)
    count = min(dataset.card.calibration.samples, len(strata))
    # few samples may not hold every class: ranges do not need that
    return stratified_draw(strata, count, dataset.card.split.seed, _CALIBRATION_DRAW, least=0)


def indices_file(card: DatasetCard, folder: Path) -> Path:
    """Return the file of indices that the card names; ``folder`` is the card's.  Raises DataError."""
    name = card.calibration.indices or ""
    for path in places(name, folder):
        if path.is_file():
            return path
    raise DataError(
        f"the calibration indices '{name}' are missing",
        where=card.name,
        remedy="put the file beside the card, or take [calibration] indices out of the card: a draw takes its place",
    )


def read_indices(path: Path, train_samples: int) -> Indices:
    """Return the indices into the training split that a ``.npy`` file holds, sorted.

    Raises DataError when they are no whole numbers, come twice, or lie outside of the training split.
    """
    try:
        with path.open("rb") as file:
            indices = read_npy(file, path.stat().st_size, str(path))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or indices.size == 0:
        raise DataError(
            f"holds {indices.dtype} of shape {indices.shape}, expected a list of whole numbers", where=str(path)
        )
    outside = np.flatnonzero((indices < 0) | (indices >= train_samples))
    if outside.size:
        raise DataError(
            f"index {indices[outside[0]]} at place {outside[0]} is outside of the {train_samples} training samples",
            where=str(path),
            remedy="make the file for this split, or take [calibration] indices out of the card",
        )
    unique = np.unique(indices.astype(np.int64))
    if len(unique) != len(indices):
        raise DataError(f"holds {len(indices) - len(unique)} indices twice", where=str(path))
    return unique
