"""Which training samples stand for the data when activation ranges are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.checks import read_npy
from pipeline.data.source import Dataset
from pipeline.data.split import stratified_draw
from pipeline.errors import DataError

_CALIBRATION_DRAW = 3  # tells this draw apart from those of the splits, which have the same seed


def calibration_indices(dataset: Dataset) -> NDArray[np.int64]:
    """Return sorted indices into ``dataset.train``: those of the card's file, or else a seeded, stratified draw.

    The draw takes ``card.calibration.samples`` samples, or all when there are fewer.
    """
    if dataset.calibration is not None:
        return dataset.calibration
    labels = dataset.train.labels
    count = min(dataset.card.calibration.samples, len(labels))
    # few samples may not hold every class: ranges do not need that
    return stratified_draw(labels, count, dataset.card.split.seed, _CALIBRATION_DRAW, least=0)


def read_indices(path: Path, train_samples: int) -> NDArray[np.int64]:
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
