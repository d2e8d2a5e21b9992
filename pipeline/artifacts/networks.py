"""What a run works on: data sets, networks and weights files, by what is in them and not by where they lie."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.declare.card import DatasetCard
from pipeline.declare.words import OptionValue
from pipeline.onboard.arrays import PictureForm, Signature
from pipeline.onboard.frontend import StepCall

Digest = str  # sha256 in hex of bytes in the store

NOT_IN_KEY = {"in_key": False}
_REASONS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class DataRef:
    """A data set on disk: its card, the sha256 over all its files, and where the card's relative paths start."""

    card: DatasetCard
    digest: Digest
    folder: Path = field(metadata=NOT_IN_KEY)

    @property
    def code_in_use(self) -> tuple[str, ...]:
        """Return the modules that this data set needs and others do not: its kind's and its task's."""
        kind = self.card.kind.replace("-", "_")
        return (f"pipeline.data.kinds.{kind}", f"pipeline.tasks.{self.card.task.replace('-', '_')}")


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a data set holds, found once: what networks are built for, and how raw values become their inputs."""

    signature: Signature  # what the data's task asks of a network
    classes: tuple[str, ...]  # names; () where nothing is classified
    samples: dict[str, int]  # "train", "val", "test" → how many
    frontend: dict[str, tuple[StepCall, ...]]  # input name → steps of preprocessing
    pictures: PictureForm | None = None  # how files become the raw values, where they are pictures
    left_out: dict[str, int] = field(default_factory=dict, metadata=NOT_IN_KEY)  # why files were not read → how many
    hints: tuple[str, ...] = field(default=(), metadata=NOT_IN_KEY)  # worth a look; changes nobody's result

    @property
    def code_in_use(self) -> tuple[str, ...]:
        """Return the modules that these steps need and others do not."""
        steps = dict.fromkeys(call.step.replace("-", "_") for calls in self.frontend.values() for call in calls)
        return tuple(f"pipeline.onboard.frontend.{step}" for step in steps)

    @property
    def summary(self) -> str:
        """Say how much there is."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.samples.items())
        classes = f"; {len(self.classes)} classes" if self.classes else ""
        return counts + classes + (f"; left out: {left_out_words(self.left_out)}" if self.left_out else "")


@dataclass(frozen=True, kw_only=True)
class NetworkRef:
    """A network file, what it imports of its own folder, and what its ``build()`` is called with.

    A network may also be named: ``timm:NAME`` of a package of networks, or ``MODULE:FUNCTION``.  An ONNX file is a
    network, too: ``imports`` are then the files beside it in which its weights lie.
    """

    sha256: Digest  # of the file's code; of what is named, of its name and version
    imports: dict[str, Digest] = field(default_factory=dict)  # own modules that the file imports → sha256
    options: dict[str, OptionValue]
    signature: Signature
    path: Path = field(metadata=NOT_IN_KEY)  # of what is named: its name, in the folder that its modules lie in
    name: str = ""  # "timm:resnet18", "mypackage.nets:build"; "" for a file
    version: str = ""  # of the distribution that it is named in; "" for what lies in the user's own folder

    @property
    def function(self) -> str:
        """Return the name of the function that makes the network."""
        return self.name.rpartition(":")[2] or "build"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample: (C, H, W) or (F,); an ONNX file's several inputs lie side by side."""
        shapes = [spec.shape for spec in self.signature.inputs]
        several = len(shapes) > 1 and self.path.suffix == ".onnx"
        return (sum(map(math.prod, shapes)),) if several else shapes[0]

    @property
    def output_channels(self) -> int:
        """Return the first axis of the output: what ``build(input_shape, classes)`` calls classes."""
        return self.signature.output.shape[0]


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A weights file of the user's to start from."""

    sha256: Digest
    path: Path = field(metadata=NOT_IN_KEY)


@dataclass(frozen=True, kw_only=True)
class NetworkCheck:
    """A network that can be trained, pruned, quantized, written and run, seen before any training."""

    layers: int  # operations of the float files
    parameters: int
    hints: tuple[str, ...] = ()  # worth a look; changes nobody's result

    @property
    def summary(self) -> str:
        """Say how large it is."""
        return f"{self.layers} layers, {self.parameters:,} parameters: can be trained and exported"


@dataclass(frozen=True, kw_only=True)
class Threads:
    """How many threads torch gets on the CPU: what the recipe says, or what was fastest when it was tried."""

    count: int
    step_ms: dict[int, float] = field(default_factory=dict)  # threads → median time of a training step; {} if told

    @property
    def summary(self) -> str:
        """Say how many, and what a step took."""
        tried = ", ".join(f"{count}: {took:.1f} ms" for count, took in self.step_ms.items())
        return f"{self.count}" + (f" ({tried} per step)" if tried else "")


def left_out_words(left_out: Mapping[str, int]) -> str:
    """Say what was left out, most first: "5 of type .heic, 2 hidden or of the system"."""
    most = Counter(left_out).most_common()
    told = [f"{count:,} {why}" for why, count in most[:_REASONS_SHOWN]]
    rest = sum(count for _, count in most[_REASONS_SHOWN:])
    return ", ".join([*told, *([f"{rest:,} others"] if rest else [])])
