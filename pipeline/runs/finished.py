"""Runs that are done: where they lie and what they found out."""

from __future__ import annotations

import shlex
from pathlib import Path

from pipeline.artifacts.outcome import Outcome
from pipeline.errors import ConfigError, nearest
from pipeline.runs.cache import DEFAULT_CACHE, cache_folder
from pipeline.runs.records import AlteredError, from_sealed_json, to_sealed_json
from pipeline.runs.run import RUN_FILE, UNREADABLE, read_run
from pipeline.runs.store import Store, storing, write_atomic

RUNS = DEFAULT_CACHE.parent
OUTCOME_FILE, REPORT_FILE, REPORT_JSON_FILE = "outcome.json", "report.html", "report.json"


def find_run(name: str) -> Path:
    """Return the folder of a run: a path, or a name under ``runs/``.  Raises ConfigError when there is none."""
    for folder in (Path(name), RUNS / name):
        if (folder / RUN_FILE).is_file():
            return folder
    known = [file.parent.name for file in RUNS.glob(f"*/{RUN_FILE}")]
    raise ConfigError(f"there is no run '{name}'{nearest(name, known)}", remedy="make one with: karui run")


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write what a run found out, readable by people and with a digest of itself.  Raises StorageError."""
    write_atomic(folder / OUTCOME_FILE, to_sealed_json(outcome))


def load_outcome(folder: Path) -> Outcome:
    """Return what a finished run found out.

    Raises ConfigError when ``folder`` is no finished run, or its outcome is not what was written.
    """
    read_run(folder)
    file = folder / OUTCOME_FILE
    if not file.is_file():
        raise ConfigError(
            "this run has not finished",
            where=str(folder),
            remedy=f"finish it: {again(folder)}",
        )
    with storing(file):
        data = file.read_bytes()
    try:
        return from_sealed_json(Outcome, data)
    except ValueError as error:
        what = f"cannot be believed: {error}" if isinstance(error, AlteredError) else UNREADABLE
        raise ConfigError(what, where=str(file), remedy=f"make it anew: {again(folder)}") from error


def again(folder: Path) -> str:
    """Return the command that finishes the run in ``folder``, or makes its results anew.  Raises ConfigError."""
    info = read_run(folder)
    recipe = info.recipe.name if info.recipe else info.name
    return info.again or shlex.join(("karui", "run", recipe, "--out", str(folder)))


def cache_of(folder: Path) -> Path:
    """Return the folder that a run shares with others: the one it used, or if that is gone, today's.

    Raises ConfigError when ``folder`` is no run folder.
    """
    used = folder / read_run(folder).cache
    return used if used.is_dir() else cache_folder()


def store_of(folder: Path) -> Store:
    """Return the store that a run's digests are in.  Raises ConfigError when ``folder`` is no run folder."""
    return Store(cache_of(folder) / "store")
