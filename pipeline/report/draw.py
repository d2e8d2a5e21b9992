"""Figures that a task asked for, made ready for the page: one function per kind of figure.

Shapes: M pictures, R points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Figure, Lines, Matrix, Passage, Pictures, Table
from pipeline.artifacts.networks import Digest
from pipeline.report import figures
from pipeline.report.picture import picture_uris, shown_width_px
from pipeline.report.svg import FLOAT, INT8


class ArrayStore(Protocol):
    """Where the arrays of figures and the times lie: ``pipeline.runs.store.Store``."""

    def get_array(self, digest: Digest) -> NDArray[Any]:
        """Return the array of ``digest``; raise StorageError when it is missing or altered."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure on the page: a drawing, or pictures with captions, or a table, or text; the others are empty."""

    title: str
    note: str = ""
    svg: Markup | None = None
    pictures: tuple[tuple[str, str], ...] = ()  # data URI, caption
    width_px: int = 0
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    text: str = ""


def draw(wanted: tuple[Figure, ...], store: ArrayStore, name: str) -> tuple[Drawn, ...]:
    """Draw all figures of one pair of files; ``name`` keeps their ids apart from other figures'.

    The first matrix that is no difference takes the colour of float, all others that of int8.
    Raises StorageError when an array is gone, ValueError when one has another shape than its figure says.
    """
    drawn, matrices = [], 0
    for number, each in enumerate(wanted):
        own = f"{name}-{number}"
        if isinstance(each, Matrix):
            drawn.append(_matrix(each, store, own, INT8 if matrices else FLOAT))
            matrices += not each.signed
        elif isinstance(each, Lines):
            drawn.append(_lines(each, store, own))
        elif isinstance(each, Pictures):
            drawn.append(_pictures(each, store))
        else:
            drawn.append(_words(each))
    return tuple(drawn)


def _matrix(wanted: Matrix, store: ArrayStore, name: str, colour: str) -> Drawn:
    counts = store.get_array(wanted.counts)
    if counts.shape != (len(wanted.rows), len(wanted.columns)):
        raise ValueError(f"{wanted.title}: {counts.shape} counts, {len(wanted.rows)} by {len(wanted.columns)} names")
    svg = figures.matrix(counts, wanted.rows, wanted.columns, name, signed=wanted.signed, colour=colour)
    return Drawn(title=wanted.title, svg=svg, note="green better, red worse" if wanted.signed else "")


def _lines(wanted: Lines, store: ArrayStore, name: str) -> Drawn:
    series = [(title, np.asarray(store.get_array(digest), np.float64)) for title, digest in wanted.series.items()]
    svg = figures.lines(series, wanted.x, wanted.y, name, dots=wanted.dots, description=wanted.title)
    return Drawn(title=wanted.title, svg=svg)


def _pictures(wanted: Pictures, store: ArrayStore) -> Drawn:
    images = store.get_array(wanted.images)  # (M, C, H, W)
    if len(images) != len(wanted.captions):
        raise ValueError(f"{wanted.title}: {len(images)} pictures, {len(wanted.captions)} captions")
    return Drawn(
        title=wanted.title,
        note=wanted.note,
        pictures=tuple(zip(picture_uris(images), wanted.captions, strict=True)),
        width_px=shown_width_px(*images.shape[2:]) if len(images) else 0,
    )


def _words(wanted: Table | Passage) -> Drawn:
    if isinstance(wanted, Table):
        return Drawn(title=wanted.title, note=wanted.note, columns=wanted.columns, rows=wanted.rows)
    return Drawn(title=wanted.title, text=wanted.text)
