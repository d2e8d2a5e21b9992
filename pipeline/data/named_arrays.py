"""Arrays by name, as ``.npz`` files and generators bring them: ``x`` and ``y``, or ``x_train``, ``y_train`` and more.

``x`` is the input (the inputs have their own names where the card has several), ``y`` what a sample is labelled with,
``groups`` who or what it comes from, if that is known.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from pipeline.data.checks import (
    checked_labels,
    checked_masks,
    checked_numbers,
    checked_outputs,
    checked_samples,
    class_names,
    numbered_groups,
)
from pipeline.data.source import INPUT, ArraySource, Parts, Wanted
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError
from pipeline.onboard.arrays import Arrays, length

SPLITS = ("train", "val", "test")
LABEL, GROUPS = "y", "groups"
_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the arrays of one split come from, and how they are named there."""

    arrays: Arrays
    where: str
    suffix: str  # "", "_train" …
    remedy: str
    held: tuple[str, ...] = ()  # all names there, also of arrays that mean nothing here
    called: Mapping[str, str] = field(default_factory=dict)  # x, y_train … → its name there, where that is another

    def array(self, name: str) -> NDArray[Any]:
        """Return an array.  Raises DataError when it is not there."""
        full = name + self.suffix
        if full not in self.arrays:
            raise DataError(
                f"holds no array '{self.called.get(full, full)}', found {_listed(self.held or sorted(self.arrays))}",
                where=self.where,
                remedy=self.remedy,
            )
        return self.arrays[full]

    def place(self, name: str) -> str:
        """Return file and array, for errors."""
        return f"{self.where}: {self.called.get(name + self.suffix, name + self.suffix)}"


def names_in_use(card: DatasetCard) -> set[str]:
    """Return the names of all arrays that mean something for this card, with and without a split."""
    names = {*_arrays_of_inputs(card).values(), LABEL, GROUPS}
    return names | {f"{name}_{split}" for name in names for split in SPLITS}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "nothing") + more


def origins_in_one(
    arrays: Arrays,
    card: DatasetCard,
    where: str,
    remedy: str,
    *,
    held: Sequence[str],
    called: Mapping[str, str] | None = None,
) -> dict[str, Origin]:
    """Return split → its arrays where all lie together: divided where the first input is.

    ``held``: all names there; ``called``: as of ``Origin``.
    """
    first = next(iter(_arrays_of_inputs(card).values()))
    divided = f"{first}_train" in arrays
    present = [split for split in SPLITS if f"{first}_{split}" in arrays] if divided else ["train"]
    return {
        split: Origin(
            arrays=arrays,
            where=where,
            suffix=f"_{split}" if divided else "",
            remedy=remedy,
            held=tuple(held),
            called=called or {},
        )
        for split in present
    }


def parts_of(origins: Mapping[str, Origin], card: DatasetCard, wanted: Wanted | None) -> Parts:
    """Return samples as stored and what they are labelled with, checked; ``wanted`` None: nothing is labelled.

    Raises DataError naming file, array and sample.
    """
    inputs = {split: _inputs(origin, card) for split, origin in origins.items()}
    lengths = {split: length(arrays) for split, arrays in inputs.items()}
    labels = {split: _labels(origin, card, wanted, lengths[split]) for split, origin in origins.items()}
    grouped = {split: origin for split, origin in origins.items() if GROUPS + origin.suffix in origin.arrays}
    groups = numbered_groups(
        {split: origin.array(GROUPS) for split, origin in grouped.items()},
        lengths,
        " and ".join(origin.where for origin in grouped.values()),
    )
    sources = {
        split: ArraySource(
            inputs=inputs[split],
            labels=labels[split],
            strata=labels[split].get("class"),
            groups=groups.get(split),
        )
        for split in origins
    }
    classes = class_names(card, *(one[wanted] for one in labels.values())) if wanted in ("class", "mask") else ()
    return Parts(
        classes=classes,
        train=sources["train"],
        val=sources.get("val"),
        test=sources.get("test"),
        places={split: f"{origin.where}{origin.suffix and f' ({split})'}" for split, origin in origins.items()},
    )


def _arrays_of_inputs(card: DatasetCard) -> dict[str, str]:
    """Return input → array: the only input is called x."""
    return {name: name for name in card.inputs} or {INPUT: "x"}


def _inputs(origin: Origin, card: DatasetCard) -> Arrays:
    specs = dict(card.inputs) or {INPUT: card.input}
    names = _arrays_of_inputs(card)
    found = {
        name: checked_samples(origin.array(names[name]), card.stored_shape(name), origin.place(names[name]))
        for name in specs
    }
    lengths = {name: len(array) for name, array in found.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{count} of {name}" for name, count in lengths.items())
        raise DataError(f"the inputs hold different numbers of samples: {told}", where=origin.where)
    return found


def _labels(origin: Origin, card: DatasetCard, wanted: Wanted | None, samples: int) -> Arrays:
    if wanted is None:
        return {}
    raw, where, classes = origin.array(LABEL), origin.place(LABEL), len(card.classes) or None
    if wanted == "class":
        return {wanted: checked_labels(raw, samples, classes, where)}
    if wanted == "number":
        return {wanted: checked_numbers(raw, samples, card.target_divide, where)}
    if wanted == "output":
        return {wanted: checked_outputs(raw, samples, where)}
    size = next(iter(card.inputs.values()), card.input).shape[-2:]
    return {wanted: checked_masks(raw, samples, size, classes, where)}
