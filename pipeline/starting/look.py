"""Looks at a folder or file and finds out what kind of data it is: pictures in folders, a table, arrays, IDX files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.starting import arrays, pictures, tables
from pipeline.starting.seen import Seen

ChooseColumn = Callable[[tuple[str, ...], str], str]  # (columns, the likeliest) → the one to predict

_UNDERSTOOD = (
    "understood are: a folder with one folder of pictures per class (also below train/, val/, test/), a .csv table, "
    "an .npz file with x and y, IDX files as MNIST has them"
)


def look(place: Path, *, label: str | None, choose: ChooseColumn) -> Seen:
    """Return what lies at ``place``.

    ``label``: the column to predict, where the data are a table; ``choose`` is asked where that is not clear.
    Raises ConfigError for what is not understood, DataError for data that are damaged.
    """
    if not place.exists():
        raise ConfigError(f"there is no '{place}'", where="init", remedy="give the folder or the file of your data")
    seen = _seen(place, label, choose)
    if label is not None and seen.kind != "csv":
        what = f"--label is for tables; '{place}' holds {seen.summary}"
        raise ConfigError(what, where="init", remedy="leave --label out")
    return seen


def _seen(place: Path, label: str | None, choose: ChooseColumn) -> Seen:
    if place.is_file():
        return _file(place, label, choose)
    if pictures.are_in(place) and not pictures.is_working_folder(place):
        return pictures.look(place)
    if files := arrays.idx_files(place):
        return arrays.look_at_idx(files)
    tabled = _listed(place, (".csv", ".tsv"))
    if tabled and (files := tables.files_of(tabled)):
        return tables.look(files, label, choose)
    return _seen(_only_one(place, tabled), label, choose)


def _file(file: Path, label: str | None, choose: ChooseColumn) -> Seen:
    if file.suffix.lower() in (".csv", ".tsv", ".txt"):
        return tables.look({"all": file}, label, choose)
    if file.suffix.lower() == ".npz" or zipfile.is_zipfile(file):
        return arrays.look_at_npz(file)
    if (files := arrays.idx_files(file.parent)) and file in files.values():
        return arrays.look_at_idx(files)
    raise ConfigError(f"'{file}' is no kind of data that karui knows", where="init", remedy=_UNDERSTOOD)


def _only_one(folder: Path, tabled: Mapping[str, Path]) -> Path:
    """Return the one file, or the one folder, in which data lie.  Raises ConfigError when there are none or several."""
    candidates = [*tabled.values(), *_listed(folder, (".npz",)).values()]
    candidates += [each for each in _folders(folder) if pictures.are_in(each) or arrays.idx_files(each)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(sorted(each.name for each in candidates))
        raise ConfigError(
            f"'{folder}' holds several data sets: {names}",
            where="init",
            remedy=f"say which one, for example: karui init {candidates[0]}",
        )
    pictures.refuse_working_folder(folder)
    flat = pictures.lie_flat(folder)
    what = f"'{folder}' holds {flat} pictures and no folders of classes" if flat else f"no data found in '{folder}'"
    remedy = "make one folder per class and move the pictures there" if flat else _UNDERSTOOD
    raise ConfigError(what, where="init", remedy=remedy)


def _listed(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    found = (each for each in sorted(folder.iterdir()) if each.is_file() and not each.name.startswith("."))
    return {each.stem.lower(): each for each in found if each.suffix.lower() in suffixes}


def _folders(folder: Path) -> list[Path]:
    return [each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith((".", "__"))]
