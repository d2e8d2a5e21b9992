"""Kinds of data: one file per kind, each a module with the names of ``Kind``, and one line below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import JsonValue, ValidationError, create_model

from pipeline.data.files import Found
from pipeline.data.kinds import csv, idx, image_folder, npz, python
from pipeline.data.source import Parts, Wanted
from pipeline.declare import words
from pipeline.declare.card import DatasetCard, InputSpec
from pipeline.errors import ConfigError, nearest
from pipeline.refusal import refusals
from pipeline.tasks import named as named_task


class Kind(Protocol):
    """kinds/NAME.py.  ``own``: what this kind's ``Spec`` made of the card's keys that are not common to all."""

    @property
    def Spec(self) -> type[words.Spec]:  # noqa: N802  a class of the module
        """The card keys that only this kind knows."""

    def missing(self, card: DatasetCard, own: Any, wanted: Wanted | None, /) -> str:
        """Say what the card needs and has not; empty when it has all."""

    def content(self, card: DatasetCard, own: Any, found: Found, /) -> JsonValue:
        """Return what the samples depend on besides the card and its [files]: names and digests.

        Asked at every start, so nothing is decoded here.  Raises DataError.
        """

    def load(self, card: DatasetCard, own: Any, found: Found, wanted: Wanted | None, /) -> Parts:
        """Return the samples; ``wanted``: what they are labelled with, None: with nothing.

        Raises DataError naming file and sample, ConfigError for a card that cannot be meant.
        """


KINDS: Mapping[str, Kind] = {
    "npz": npz,
    "idx": idx,
    "image-folder": image_folder,
    "csv": csv,
    "python": python,
}

# where things lie, which says nothing about what they are
PLACES = {"folder", "file"}


def named(card: DatasetCard, where: str = "") -> Kind:
    """Return the card's kind.  Raises ConfigError with the nearest known one."""
    if card.kind not in KINDS:
        *most, last = (f"'{name}'" for name in KINDS)
        expected = f"{', '.join(most)} or {last}"
        guess = nearest(card.kind, KINDS)
        close = guess if guess.startswith("; did") else ""
        raise ConfigError(f'kind = "{card.kind}": expected {expected}{close}', where=where or card.name)
    return KINDS[card.kind]


def _only_for_pictures(card: DatasetCard) -> str:
    """Say which key is for pictures in files alone, where the card has it for something else."""
    if card.kind == "image-folder":
        return ""
    given = [
        key for key in ("resize", "background") for spec in (card.input, *card.inputs.values()) if _says(spec, key)
    ]
    return f'[input] {given[0]} is for kind = "image-folder" alone: arrays are taken as they are' if given else ""


def _says(spec: InputSpec, key: str) -> bool:
    return bool(getattr(spec, key) != InputSpec.model_fields[key].default)


def wanted_by(card: DatasetCard) -> Wanted:
    """Return what the card's task learns from.  Raises ConfigError for a task that is not known."""
    return named_task(card.task).WANTED


def own_spec(card: DatasetCard, where: str = "") -> words.Spec:
    """Return the card's keys that only its kind knows, checked; ``where``: the card's file, for errors.

    Raises ConfigError naming every key that is unknown, missing or wrong, with the nearest valid one.
    """
    kind = named(card, where)
    try:
        own = kind.Spec.model_validate(card.own)
    except ValidationError as error:
        both = create_model(
            "Card",
            __base__=kind.Spec,
            **{  # type: ignore[call-overload]
                name: (field.annotation, field) for name, field in DatasetCard.model_fields.items() if name != "own"
            },
        )
        lines = [text for _, text in refusals(both, card.own, error)]
        raise ConfigError(f"\n{where or card.name}: ".join(lines), where=where or card.name) from error
    if missing := kind.missing(card, own, wanted_by(card)) or _only_for_pictures(card):
        raise ConfigError(missing, where=where or card.name)
    return own
