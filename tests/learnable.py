"""Small data that a network can learn in a second, networks that learn it, and a place to work in.

Shapes: N samples, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.artifacts import Checkpoint, DataRef, NetworkRef
from pipeline.data.load import reference
from pipeline.progress import Silent
from pipeline.run import Work
from pipeline.spec import DatasetCard, InputSpec, OptionValue, TrainSpec
from pipeline.stages.train import train
from pipeline.store import Store
from pipeline.training import TensorSamples

SHAPE, CLASSES = (3, 8, 8), 4
INPUT = InputSpec(shape=SHAPE)

CONVOLUTIONAL = '''
"""Two convolutions with batch norm, mean over the picture, Linear; the head is made first, as nothing forbids."""
from torch import nn

class Small(nn.Module):
    def __init__(self, channels, width, classes, dropout):
        super().__init__()
        self.fc = nn.Linear(width, classes)
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout),
        )

    def forward(self, x):
        return self.fc(self.body(x))

def build(input_shape, classes, *, width=8, dropout=0.0):
    return Small(input_shape[0], width, classes, dropout)
'''
DENSE = '''
"""Two Linear layers."""
import math
from torch import nn

def build(input_shape, classes, *, width=16):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.ReLU(), nn.Linear(width, classes))
'''


def pictures(
    count: int, seed: int, *, classes: int = CLASSES, noise: float = 1.0, shape: tuple[int, ...] = SHAPE
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw (N, *shape) and (N,): one pattern per class, the same for every seed, under noise."""
    patterns = np.random.default_rng(99).normal(0, 1, (classes, *shape))
    labels = np.arange(count, dtype=np.int64) % classes
    drawn = np.random.default_rng(seed).normal(0, noise, (count, *shape))
    return (patterns[labels] + drawn).astype(np.float32), labels


def tensors(count: int, seed: int, **how: Any) -> TensorSamples:
    """Hold pictures as the training loop does."""
    x, labels = pictures(count, seed, **how)
    inputs = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    return TensorSamples(inputs=inputs, labels=torch.from_numpy(labels))


def dataset(
    folder: Path, *, train: int = 200, val: int = 100, test: int = 100, classes: int = CLASSES, noise: float = 1.0
) -> DataRef:
    """Write the three splits as files and return the data set."""
    for seed, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        x, y = pictures(count, seed, classes=classes, noise=noise)
        np.savez(folder / f"{split}-{classes}.npz", x=x, y=y)
    card = DatasetCard.model_validate(
        {
            "name": "patterns",
            "title": "Patterns under noise",
            "kind": "npz",
            "classes": [f"pattern {index}" for index in range(classes)],
            "input": {"shape": SHAPE},
            "files": {split: {"path": f"{split}-{classes}.npz"} for split in ("train", "val", "test")},
            "calibration": {"samples": 64},
        }
    )
    return reference(card, folder)


def network(
    folder: Path,
    source: str = CONVOLUTIONAL,
    *,
    name: str = "small",
    shape: tuple[int, ...] = SHAPE,
    classes: int = CLASSES,
    **options: OptionValue,
) -> NetworkRef:
    """Write a network file and return the reference to it."""
    path = folder / f"{name}.py"
    path.write_text(source)
    digest = hashlib.sha256(source.encode()).hexdigest()
    return NetworkRef(sha256=digest, options=dict(options), input_shape=shape, classes=classes, path=path)


class Listening(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def work(folder: Path, progress: Silent | None = None) -> Work:
    """Return a store and a scratch folder of their own."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return Work(store=Store(folder / "store"), scratch=scratch, progress=progress or Silent(), device="cpu")


def again(done: Work, folder: Path, progress: Silent | None = None) -> Work:
    """Return the same store with a new, empty scratch folder, as every step gets it."""
    return dataclasses.replace(work(folder, progress), store=done.store)


def trained(done: Work, data: DataRef, ref: NetworkRef, **plan: object) -> Checkpoint:
    """Train from scratch, two epochs unless told otherwise."""
    settings = {"epochs": 2, "batch_size": 32, "learning_rate": 1e-2, **plan}
    return train(done, data=data, network=ref, spec=TrainSpec.model_validate(settings), seed=0)


def equal(first: dict[str, Tensor], second: dict[str, Tensor], names: Sequence[str] | None = None) -> bool:
    """Whether two state dicts hold the same bits (of some tensors)."""
    chosen = list(names if names is not None else first)
    return (names is not None or first.keys() == second.keys()) and all(
        torch.equal(first[name], second[name]) for name in chosen
    )
