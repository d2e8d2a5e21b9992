"""What was seen of some data: enough to write a card and a recipe that suit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns of a table are for."""

    answer: str  # the class, or the number to predict
    ignored: tuple[str, ...]
    categories: tuple[str, ...]
    gaps: bool  # some feature has no value somewhere
    features: int

    @property
    def summary(self) -> str:
        """Say how many there are to predict from."""
        return "1 column of features" if self.features == 1 else f"{self.features} columns of features"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One data set; ``per_class`` counts the training part, () where there are no classes."""

    kind: Literal["image-folder", "csv", "npz", "idx"]
    task: Literal["classification", "regression"]
    place: Path  # the folder of pictures, or the first file
    samples: int
    summary: str  # "200 pictures in 3 classes, 640×480 to 4032×3024 pixels, colour"
    per_class: tuple[int, ...] = ()
    own_splits: tuple[str, ...] = ()  # "val" and "test", as far as the data bring them
    shape: tuple[int, ...] = ()  # of a sample as the network shall see it; (): the columns of a table
    divide: int = 1
    resized: bool = False  # pictures have other sizes than ``shape``
    photos: bool = False  # large colour pictures: mirrored ones are as good
    files: Mapping[str, Path] = field(default_factory=dict)  # role → file
    arrays: Mapping[str, str] = field(default_factory=dict)  # x and y → other names that they have in an .npz file
    columns: Columns | None = None

    @property
    def is_picture(self) -> bool:
        """Tell whether a network of convolutions suits it."""
        return len(self.shape) == 3
