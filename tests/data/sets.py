"""Small real data sets on disk, and the cards that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.load import load, reference
from pipeline.data.source import INPUT, Dataset, Indices, Source, everything
from pipeline.declare.card import DatasetCard

FIFTHS = {"val": 0.2, "test": 0.2}


def card(kind: str, shape: tuple[int, ...], **more: Any) -> DatasetCard:
    """Return a card called "set" whose validation and test splits are a fifth each."""
    return DatasetCard.model_validate(
        {"name": "set", "title": "a set", "kind": kind, "input": {"shape": shape}, "split": FIFTHS, **more}
    )


def all_of(name: str) -> dict[str, Any]:
    """Return ``files`` with this file in the role "all"."""
    return {"all": {"path": name}}


def loaded(declared: DatasetCard, folder: Path) -> Dataset:
    """Return the data set of a card that lies in a folder."""
    return load(reference(declared, folder))


def pictures(samples: int, shape: tuple[int, ...] = (1, 4, 4), seed: int = 0) -> NDArray[np.uint8]:
    """Return random pixels (N, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (samples, *shape), dtype=np.uint8)


def labels(samples: int, classes: int = 3) -> NDArray[np.int64]:
    """Return 0, 1, 2, 0, 1, 2 and so on."""
    return np.arange(samples, dtype=np.int64) % classes


def write_npz(path: Path, **arrays: NDArray[Any]) -> Path:
    """Write arrays as ``.npz``."""
    np.savez_compressed(path, allow_pickle=True, **arrays)
    return path


def samples(source: Source, indices: Indices | None = None) -> NDArray[Any]:
    """Return the inputs of some samples, or of all, as they are stored: (n, …)."""
    return source.read(everything(source) if indices is None else indices).inputs[INPUT]


def classes_in(source: Source) -> Indices:
    """Return the class of every sample (N,)."""
    return source.wanted(everything(source))["class"]
