"""Everything that can go wrong in words a user can act on: what happened, where, what to do.

One root exception, caught in one place (``pipeline.cli``).  The exit status belongs to the class:
2 wrong use or configuration, 4 bad data or model file, 1 anything else.  (3, a missed limit, is a result and no error.)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 40  # so many known words are listed, the rest counted


class KaruiError(Exception):
    """Root of all errors meant for the user.

    ``what`` happened, ``where`` (a file, a table and key, a layer, a sample), and the ``remedy``: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(f"{where}: {what}" if where else what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"\n  {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{remedy}"


class ConfigError(KaruiError):
    """A recipe, target, card or command line that cannot be meant."""

    exit_code = 2


class DataError(KaruiError):
    """A data file that is missing, altered or not what its card says."""

    exit_code = 4


class ModelError(KaruiError):
    """A network, checkpoint or model file that cannot be used."""

    exit_code = 4


class UnsupportedOpError(ModelError):
    """An operation that a writer does not know; ``where`` names the layer in the user's network."""


class TrainingDivergedError(KaruiError):
    """The loss is no longer a finite number."""


class EmulationError(KaruiError):
    """A target's processor or system that cannot be had on this machine."""


class RunBusyError(KaruiError):
    """Another process is working in this run folder."""


class StorageError(KaruiError):
    """A file could not be written whole, or no longer is what was written."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or the known words when none is close."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return f"; known: {', '.join(words[:_LISTED])}{more}" if words else ""
