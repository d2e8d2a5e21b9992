"""Data-set cards: where a data set is, what is in it, what may be done with it."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from pipeline.declare.words import LARGEST_SIZE, MOST, Classes, Seed, Spec

_Byte = Annotated[int, Field(ge=0, le=255)]
_Held = Annotated[float | int, Field(ge=0)]
_SAYS_HOW = {"divide", "mean", "std", "normalize"}  # keys of [input] that say how values are scaled
_NAMES_OF_OTHER_ARRAYS = ("x", "y", "groups")


def outside_name(name: str) -> str:
    """Return what cards call one of several inputs of a model file: samples and labels have names of their own."""
    return f"{name}_in" if name in _NAMES_OF_OTHER_ARRAYS else name


class FileSpec(Spec):
    """One file of a data set; ``path`` is relative to the card, to ``$KARUI_DATA`` or absolute."""

    path: str
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    url: str | None = None  # its public address, fetched only when the file is nowhere on disk
    # of what is fetched; another size is refused before it comes
    size_bytes: int | None = Field(None, ge=1, le=LARGEST_SIZE)


class InputSpec(Spec):
    """Shape of one sample as the network sees it and how raw values become its input: (raw / divide - mean) / std.

    Where none of divide, mean, std and normalize is given, mean and std are measured on the training split.
    """

    # (C, H, W) for pictures, (F,) for tables; left out: as many columns as the table has (csv alone)
    shape: tuple[Annotated[int, Field(ge=1, le=MOST)], ...] = Field((), max_length=3)
    divide: float = Field(1.0, gt=0)
    mean: tuple[float, ...] = (0.0,)  # one value, or one per channel (first axis)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    # "train": mean and std of each channel are those of the training split; "none": raw / divide alone
    normalize: Literal["train", "none"] | None = None
    # of pictures in folders that have other sizes: "squash" whatever their proportions, "fit" in with a border, "crop"
    resize: Literal["squash", "fit", "crop"] | None = None
    # RGB: what transparent pixels lie on, and the border of "fit"
    background: tuple[_Byte, _Byte, _Byte] = (255, 255, 255)
    # of several inputs: the output that it becomes at the next step; samples hold it before the first one
    carried: str = ""
    clip: float | None = Field(
        None, gt=0
    )  # after that, values beyond ±clip are cut off: long tails cost int8 its steps

    @model_validator(mode="before")
    @classmethod
    def _measured_unless_said(cls, table: object) -> object:
        if isinstance(table, dict) and not _SAYS_HOW & table.keys():
            return {**table, "normalize": "train"}
        return table

    @model_validator(mode="after")
    def _lengths(self) -> InputSpec:
        for key in ("mean", "std"):
            if self.shape and len(getattr(self, key)) not in (1, self.shape[0]):
                raise ValueError(f"'{key}' needs one value or one per channel ({self.shape[0]})")
        return self

    @model_validator(mode="after")
    def _measured_or_given(self) -> InputSpec:
        if self.normalize and (self.mean, self.std) != ((0.0,), (1.0,)):
            why = "measures 'mean' and 'std'" if self.normalize == "train" else "leaves 'mean' and 'std' away"
            raise ValueError(f'normalize = "{self.normalize}" {why}; take them out')
        return self


class SplitSpec(Spec):
    """How samples are divided: by the source's own splits where it has them, else by a seeded stratified draw."""

    seed: Seed = 0
    val: _Held = 0.1  # share (< 1) or number of training samples held out for validation
    test: _Held = 0.2  # the same for the test split; unused where the source brings one

    @field_validator("val", "test")
    @classmethod
    def _share_or_number(cls, value: float) -> float:
        if isinstance(value, float) and value >= 1:
            raise ValueError("expected a share below 1, such as 0.2, or a whole number of samples, such as 200")
        return value


class CalibrationSpec(Spec):
    """Which training samples stand for the data when ranges are measured."""

    samples: int = Field(256, ge=1, le=MOST)
    indices: str | None = None  # .npy of indices into the training split, beside the card; else a seeded draw


class DatasetCard(Spec):
    """One data set: where it is, what is in it, what may be done with it.

    ``kind`` and ``task`` name modules of ``pipeline.data.kinds`` and ``pipeline.tasks``.  Keys that only one kind of
    data knows (``label_column`` of a CSV) stand beside the common ones in a card and are collected in ``own``, which
    the kind's own ``Spec`` checks.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    title: str
    kind: str
    task: str = "classification"
    licence: str = ""
    source: str = ""
    classes: Classes = Field((), max_length=10_000)  # empty: taken from the data (folders, CSV)
    target_divide: float = Field(1.0, gt=0)  # numbers to predict are learned, and reported, as raw / target_divide
    input: InputSpec = InputSpec()
    # in place of [input] where a network has several: name → its own
    inputs: dict[str, InputSpec] = Field(default_factory=dict)
    # more than 0: a sample is a sequence of so many steps, and [inputs.NAME] carried = "OUTPUT" says what is handed on
    steps: int = Field(0, ge=0, le=MOST)
    # of task "agreement", where a network has several outputs: name → shape; y holds them side by side, flattened
    outputs: dict[str, tuple[Annotated[int, Field(ge=1, le=MOST)], ...]] = Field(default_factory=dict)
    # role → file; npz, csv: "all", or "train" and more; idx: "train-images" …
    files: dict[str, FileSpec] = Field(default_factory=dict)
    split: SplitSpec = SplitSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    own: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect_own(cls, table: object) -> object:
        if not isinstance(table, dict) or "own" in table:
            return table
        own = {key: value for key, value in table.items() if key not in cls.model_fields}
        common = {key: value for key, value in table.items() if key in cls.model_fields}
        if common.get("kind") == "printed-digits":  # what it was called before generators became files
            common["kind"] = "python"
            own = {"file": "printed_digits.py", "options": {"samples": own.pop("samples", 0)}, **own}
        # TOML has dates and infinity, JSON has not: as text, the kind's own Spec refuses them by name
        return {**common, "own": json.loads(json.dumps(own, default=str), parse_constant=str)}

    @model_validator(mode="after")
    def _one_way_to_say_inputs(self) -> DatasetCard:
        if self.inputs and self.input != InputSpec():
            raise ValueError("[input] is for one input, [inputs.NAME] for several; take one of them out")
        reserved = [name for name in self.inputs if name in _NAMES_OF_OTHER_ARRAYS]
        if reserved:
            raise ValueError(f"no input can be called '{reserved[0]}'")
        return self

    @model_validator(mode="after")
    def _carried_in_steps(self) -> DatasetCard:
        carried = {name: spec.carried for name, spec in self.inputs.items() if spec.carried}
        if bool(carried) != bool(self.steps):
            raise ValueError(
                "'steps' and [inputs.NAME] 'carried' belong together: one says how long, one what is handed on"
            )
        if len(carried) == len(self.inputs) and carried:
            raise ValueError("all inputs are carried: one of them has to be new at each step")
        return self

    def stored_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape in which the data hold a sample of an input."""
        spec = self.inputs.get(name, self.input)
        return spec.shape if spec.carried or not self.steps else (self.steps, *spec.shape)

    @property
    def carried(self) -> dict[str, str]:
        """Return output → input that it becomes at the next step."""
        return {spec.carried: name for name, spec in self.inputs.items() if spec.carried}
