"""Small data that a network can learn in a second, networks that learn it, and a place to work in.

Shapes: N samples, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import tasks
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkRef
from pipeline.artifacts.training import Checkpoint
from pipeline.data.load import load, reference
from pipeline.data.source import INPUT, ArraySource, everything
from pipeline.declare.card import DatasetCard, InputSpec
from pipeline.declare.recipe import TrainSpec
from pipeline.declare.words import OptionValue
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.frontend import Frontend
from pipeline.progress import Silent
from pipeline.runs.run import Work
from pipeline.runs.sources import code_digest, local_imports
from pipeline.runs.store import Store
from pipeline.stages.train import train
from pipeline.training.batches import Held

SHAPE, CLASSES = (3, 8, 8), 4
SPEC = InputSpec(shape=SHAPE)
FRONTEND: Frontend = {INPUT: ()}  # pictures() are what the network sees

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


def source(count: int, seed: int, **how: Any) -> ArraySource:
    """Hold pictures as a data set does."""
    x, labels = pictures(count, seed, **how)
    return ArraySource(inputs={INPUT: x}, labels={"class": labels}, strata=labels)


def tensors(count: int, seed: int, **how: Any) -> Held:
    """Hold pictures as the training loop does."""
    x, labels = pictures(count, seed, **how)
    inputs = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    return Held(inputs={INPUT: inputs}, wanted={"class": torch.from_numpy(labels)})


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


def numbers(folder: Path) -> DataRef:
    """Write pictures whose label is a number, and return the data set."""
    for seed, (split, count) in enumerate({"train": 200, "val": 100, "test": 100}.items()):
        x, _ = pictures(count, seed)
        np.savez(folder / f"{split}-numbers.npz", x=x, y=x[:, 0].mean((1, 2), dtype=np.float32)[:, None] * 8)
    card = DatasetCard.model_validate(
        {
            "name": "means",
            "title": "The mean of a channel",
            "kind": "npz",
            "task": "regression",
            "input": {"shape": SHAPE},
            "files": {split: {"path": f"{split}-numbers.npz"} for split in ("train", "val", "test")},
            "calibration": {"samples": 64},
        }
    )
    return reference(card, folder)


def facts(data: DataRef) -> DataFacts:
    """Say what a data set holds."""
    held = load(data)
    labels = tasks.named(data.card.task)
    shape = held.train.wanted(everything(held.train)[:1])[labels.WANTED].shape[1:]
    return DataFacts(
        signature=labels.signature(data.card, held.classes, shape),
        classes=held.classes,
        samples={"train": len(held.train), "val": len(held.val), "test": len(held.test)},
        frontend=held.frontend,
    )


def signature(shape: tuple[int, ...] = SHAPE, classes: int = CLASSES) -> Signature:
    """Return that of a network with one input and a row of values per sample."""
    return Signature(
        inputs=(TensorSpec(INPUT, "float32", shape, "CHW" if len(shape) == 3 else "F"),),
        outputs=(TensorSpec("output", "float32", (classes,), "K"),),
    )


def network(
    folder: Path,
    code: str = CONVOLUTIONAL,
    *,
    name: str = "small",
    shape: tuple[int, ...] = SHAPE,
    classes: int = CLASSES,
    **options: OptionValue,
) -> NetworkRef:
    """Write a network file and return the reference to it and to what it imports of ``folder``."""
    path = folder / f"{name}.py"
    path.write_text(code, encoding="utf-8")
    return network_at(path, signature(shape, classes), **options)


def network_at(path: Path, asked: Signature, **options: OptionValue) -> NetworkRef:
    """Return the reference to a network file that is there."""
    return NetworkRef(
        sha256=code_digest(path.read_bytes()),
        imports={module: code_digest(file.read_bytes()) for module, file in local_imports(path).items()},
        options=dict(options),
        signature=asked,
        path=path,
    )


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
    return Work(store=Store(folder / "store"), scratch=scratch, progress=progress or Silent())


def again(done: Work, folder: Path, progress: Silent | None = None) -> Work:
    """Return the same store with a new, empty scratch folder, as every step gets it."""
    return dataclasses.replace(work(folder, progress), store=done.store)


def trained(done: Work, data: DataRef, ref: NetworkRef, **plan: object) -> Checkpoint:
    """Train from scratch, two epochs unless told otherwise."""
    settings = {"epochs": 2, "batch_size": 32, "learning_rate": 1e-2, **plan}
    return train(
        done,
        data=data,
        facts=facts(data),
        network=ref,
        spec=TrainSpec.model_validate(settings),
        seed=0,
        threads=1,
        device="cpu",
    )


def equal(first: dict[str, Tensor], second: dict[str, Tensor], names: Sequence[str] | None = None) -> bool:
    """Whether two state dicts hold the same bits (of some tensors)."""
    chosen = list(names if names is not None else first)
    return (names is not None or first.keys() == second.keys()) and all(
        torch.equal(first[name], second[name]) for name in chosen
    )
