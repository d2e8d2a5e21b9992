"""What a model file says about itself: how raw values become its inputs, what its outputs mean, what it was made from.

The same stands in the file (under ``KEY``) and in ``model.json`` beside it.  Shapes are those of one sample.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.onboard.arrays import PictureForm, Signature, TensorSpec
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.frontend import STEPS, StepCall, run_steps

KEY = "karui"  # the name of this text inside a model file
LABELS_FILE = "labels.txt"  # beside a model file, and inside TFLite ones
FORMAT = 1
PICTURE, TABLE, ARRAY = "picture", "table", "array"
SCORES, PROBABILITIES, NUMBERS = "scores", "probabilities", "numbers"
MOST_LABELS = 100_000
_TYPES = {str: "text", int: "a whole number", list: "a list", dict: "a table of settings"}
MOST_VALUES = 1 << 27  # of a sample


@dataclass(frozen=True)
class Column:
    """A column of a table; ``categories`` in the order of their codes, none for numbers."""

    name: str
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Raw:
    """What one sample is before any preprocessing."""

    kind: str  # PICTURE: 8 bits per value; TABLE: a row of columns; ARRAY: numbers of this shape
    dtype: str
    shape: tuple[int, ...]  # (C, H, W), (F,) …
    colours: str = ""  # of a picture: "RGB", or "L" for grey
    columns: tuple[Column, ...] = ()  # of a table
    resize: str = ""  # of a picture: see PictureForm
    background: tuple[int, ...] = (255, 255, 255)

    @property
    def named(self) -> str:
        """Return what one sample is, in words."""
        return {PICTURE: "a picture", TABLE: "a row of a table"}.get(self.kind, "an array")

    @property
    def form(self) -> PictureForm:
        """Return how a picture file becomes such a sample."""
        channels, height, width = self.shape
        red, green, blue = self.background
        return PictureForm((channels, height, width), self.resize, (red, green, blue))


@dataclass(frozen=True)
class Stored:
    """A tensor as it stands in this file: integers are (value / scale) + zero_point; scale 0: no integers."""

    name: str
    layout: str  # "NCHW", "NHWC", "NF" …: N samples at once
    dtype: str
    shape: tuple[int, ...]
    scale: float = 0.0
    zero_point: int = 0


@dataclass(frozen=True)
class Input:
    """One input: raw values, the steps that they go through, and the tensor that takes the result."""

    name: str
    axes: str
    shape: tuple[int, ...]
    raw: Raw
    steps: tuple[StepCall, ...]
    stored: Stored


@dataclass(frozen=True)
class Output:
    """One output; what it holds (scores, probabilities or numbers), and what numbers are multiplied by."""

    name: str
    axes: str
    shape: tuple[int, ...]
    holds: str
    times: float
    stored: Stored


@dataclass(frozen=True)
class About:
    """Everything that is known when the file is written."""

    recipe: str
    task: str
    karui: str  # version that wrote the file
    data: str  # name of the data set
    data_sha256: str
    labels: tuple[str, ...]  # of classes, or names of the numbers
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    format: int = FORMAT

    @property
    def signature(self) -> Signature:
        """Return what goes in and comes out, in the layout of the network that was trained."""
        return Signature(
            tuple(TensorSpec(each.name, "float32", each.shape, each.axes) for each in self.inputs),
            tuple(TensorSpec(each.name, "float32", each.shape, each.axes) for each in self.outputs),
        )


_DAMAGED = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError),
)


def labels_text(labels: tuple[str, ...]) -> str:
    """Return what stands in ``labels.txt``: one label per line, in the order of the outputs."""
    return "".join(" ".join(label.split()) + "\n" for label in labels)


def to_text(about: About) -> str:
    """Return the text that stands in the file; equal for equal contents."""
    return json.dumps(asdict(about), ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def from_text(text: str, where: str) -> About:
    """Return what ``to_text`` wrote.  Raises FileRefused for anything else, and for steps that are not known here."""
    try:
        words = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if _of(int, words["format"]) != FORMAT:
            raise FileRefused(
                f"describes itself in format {words['format']!r}, format {FORMAT} is known here",
                where=where,
                remedy="use the version of karui that wrote it, or a later one",
            )
        about = _about(words)
    except _DAMAGED as error:
        raise FileRefused(
            f"what it says about itself is damaged ({type(error).__name__}: {error!s:.200})",
            where=where,
            remedy="export it again; if it was copied, compare its sha256",
        ) from error
    unknown = [call.step for each in about.inputs for call in each.steps if call.step not in STEPS]
    if unknown:
        raise FileRefused(
            f"asks for the step '{unknown[0]}', which is not known here (known: {', '.join(STEPS)})",
            where=where,
            remedy="use the version of karui that wrote it, or a later one",
        )
    return about


def _about(words: Mapping[str, Any]) -> About:
    found = About(
        **{name: _of(str, words[name]) for name in ("recipe", "task", "karui", "data", "data_sha256")},
        labels=tuple(_of(str, label) for label in _of(list, words["labels"])),
        inputs=tuple(_input(each) for each in _of(list, words["inputs"])),
        outputs=tuple(_output(each) for each in _of(list, words["outputs"])),
    )
    if not found.inputs or not found.outputs:
        raise ValueError("no inputs or no outputs")
    if len(found.labels) > MOST_LABELS:
        raise ValueError(f"{len(found.labels):,} labels, at most {MOST_LABELS:,} belong there")
    for each in found.inputs:
        _check_steps(each)
    return found


def _check_steps(found: Input) -> None:
    """Take a sample of zeros through the steps: what does not fit is known before any input is read."""
    if any(call.step not in STEPS for call in found.steps):
        return  # told by name
    with np.errstate(all="ignore"):
        prepared = run_steps(np.zeros((1, *found.raw.shape), np.float32), found.steps)
    if prepared.shape[1:] != found.shape:
        raise ValueError(f"its steps make {prepared.shape[1:]!r:.40} of a sample, not {found.shape!r:.40}")


def _input(words: Mapping[str, Any]) -> Input:
    steps = tuple(StepCall(_of(str, each["step"]), _of(dict, each["settings"])) for each in _of(list, words["steps"]))
    return Input(**_end(words), raw=_raw(words["raw"]), steps=steps)


def _output(words: Mapping[str, Any]) -> Output:
    return Output(**_end(words), holds=_of(str, words["holds"]), times=_number(words["times"]))


def _end(words: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": _of(str, words["name"]),
        "axes": _of(str, words["axes"]),
        "shape": _shape(words["shape"]),
        "stored": _stored(words["stored"]),
    }


def _raw(words: Mapping[str, Any]) -> Raw:
    raw = Raw(
        kind=_of(str, words["kind"]),
        dtype=_of(str, words["dtype"]),
        shape=_shape(words["shape"]),
        colours=_of(str, words["colours"]),
        columns=tuple(
            Column(_of(str, each["name"]), tuple(_of(str, name) for name in _of(list, each["categories"])))
            for each in _of(list, words["columns"])
        ),
        resize=_of(str, words["resize"]),
        background=_shape(words["background"]),
    )
    if raw.kind not in (PICTURE, TABLE, ARRAY):
        raise ValueError(f"a sample of kind {raw.kind!r:.40}")
    if len(raw.background) != 3 or (raw.kind == PICTURE and len(raw.shape) != 3):
        raise ValueError(f"{raw.named} of shape {raw.shape} on the background {raw.background}")
    if max(raw.background) > 255 or math.prod(raw.shape) > MOST_VALUES:
        raise ValueError(f"{raw.named} of shape {raw.shape!r:.60} on the background {raw.background!r:.60}")
    if raw.kind == TABLE and math.prod(raw.shape) != len(raw.columns):
        raise ValueError(f"{len(raw.columns)} columns for a row of shape {raw.shape!r:.60}")
    return raw


def _stored(words: Mapping[str, Any]) -> Stored:
    return Stored(
        name=_of(str, words["name"]),
        layout=_of(str, words["layout"]),
        dtype=_of(str, words["dtype"]),
        shape=_shape(words["shape"]),
        scale=_number(words["scale"]),
        zero_point=_of(int, words["zero_point"]),
    )


def _shape(sizes: object) -> tuple[int, ...]:
    found = tuple(_of(int, size) for size in _of(list, sizes))
    if min(found, default=0) < 0:
        raise ValueError(f"{found!r:.40} where sizes belong")
    return found


def _number(value: object) -> float:
    return float(value) if isinstance(value, float) else float(_of(int, value))


def _finite(word: str) -> float:
    if not math.isfinite(float(word)):
        raise ValueError(f"{word:.40} where a finite number belongs")
    return float(word)


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):  # to Python, true is an int
        raise TypeError(f"{value!r:.40} where {_TYPES[kind]} belongs")
    return value
