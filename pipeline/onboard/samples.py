"""Whatever somebody has, as a network's inputs: pictures, CSV rows, .npy and .npz arrays, folders of them.

Shapes: n samples.
"""

from __future__ import annotations

import importlib
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.about import PICTURE, TABLE, About, Raw
from pipeline.onboard.arrays import PICTURE_SUFFIXES as PICTURES
from pipeline.onboard.arrays import Arrays, length
from pipeline.onboard.faults import FileRefused, InputRefused
from pipeline.onboard.frontend import prepare
from pipeline.onboard.rows import read_rows

AT_ONCE = 256  # samples that are read, prepared and run together
ARRAYS = (".npy", ".npz")
TABLES = (".csv",)
_LARGEST_ARRAY_BYTES = 2 << 30
_UNREADABLE = (  # what numpy raises for damaged and for hostile files
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    RuntimeError,  # encrypted, or packed in a way that is not known here
    OverflowError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
)
_UNUSABLE = (  # what numpy and Python raise for settings that somebody forged
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)


@dataclass(frozen=True)
class Samples:
    """Some samples, ready for the network, and what each of them is called."""

    names: tuple[str, ...]  # n
    inputs: Arrays  # (n, …) each


def files_below(folder: Path) -> list[Path]:
    """Return all files of a folder that can be inputs, by name; hidden ones are passed over."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (*PICTURES, *ARRAYS, *TABLES))
    found = [path for path in found if not path.is_dir()]
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def samples_of(path: Path, about: About) -> Iterator[Samples]:
    """Yield the samples of a file, or of all files of a folder.  Raises InputRefused naming file and sample."""
    if not path.is_dir():
        yield from _prepared(_read(path, about), about)
        return
    files = files_below(path)
    if not files:
        known = ", ".join(("pictures", *ARRAYS, *TABLES))
        raise InputRefused(f"holds no files of a known kind ({known})", where=str(path))
    yield from pictures_and_more(files, about)


def pictures_and_more(files: list[Path], about: About) -> Iterator[Samples]:
    """Yield the samples of files in their order, pictures many at once."""
    waiting: list[Path] = []
    for file in files:
        picture = file.suffix.lower() in PICTURES
        if waiting and (not picture or len(waiting) == AT_ONCE):
            yield from _prepared(_pictures(waiting, about), about)
            waiting = []
        if picture:
            waiting.append(file)
        else:
            yield from _prepared(_read(file, about), about)
    if waiting:
        yield from _prepared(_pictures(waiting, about), about)


def rows_of(file: TextIO, where: str, about: About) -> Iterator[Samples]:
    """Yield the samples of an open CSV table."""
    yield from _prepared(_rows(file, where, about), about)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(path: Path, about: About) -> Samples:
    kind = path.suffix.lower()
    if not path.is_file():
        raise InputRefused("no such file or folder", where=str(path))
    try:
        if kind in PICTURES:
            return _pictures([path], about)
        if kind in TABLES:
            with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets write a byte-order mark
                return _rows(file, str(path), about)
        if kind in ARRAYS:
            return _arrays(path, about)
    except OSError as error:
        raise InputRefused(f"cannot be read: {error.strerror}", where=str(path)) from error
    known = ", ".join(("pictures", *ARRAYS, *TABLES))
    raise InputRefused(
        f"'{kind}' is no known kind of input", where=str(path), remedy=f"known: {known}, folders of them"
    )


def _only_raw(about: About, where: str) -> Raw:
    if len(about.inputs) > 1:
        names = ", ".join(each.name for each in about.inputs)
        raise InputRefused(
            f"the network has the inputs {names}", where=where, remedy="give an .npz file with one array for each"
        )
    return about.inputs[0].raw


def _pictures(paths: list[Path], about: About) -> Samples:
    raw = _only_raw(about, str(paths[0]))
    if raw.kind != PICTURE:
        raise InputRefused(
            f"the network takes no pictures: a sample is {raw.named} of shape {raw.shape}, {raw.dtype}",
            where=str(paths[0]),
            remedy="give a CSV table with its columns" if raw.kind == TABLE else "give an .npy file of such samples",
        )
    reader = importlib.import_module("pipeline.onboard.pictures")  # only here, since a device may have no Pillow
    pixels = np.stack([reader.read_picture(path, raw.form) for path in paths])
    return Samples(tuple(map(str, paths)), {about.inputs[0].name: pixels})


def _rows(file: TextIO, where: str, about: About) -> Samples:
    raw = _only_raw(about, where)
    if raw.kind != TABLE:
        raise InputRefused(
            f"the network takes no rows of a table: a sample is {raw.named} of shape {raw.shape}", where=where
        )
    filled = any(call.step == "fill" for call in about.inputs[0].steps)
    lines, values = read_rows(file, where, raw, may_miss=filled)
    return Samples(tuple(f"{where}:{line}" for line in lines), {about.inputs[0].name: values})


def _arrays(path: Path, about: About) -> Samples:
    try:
        # numpy counts what a header declares, however much, and refuses it then
        with np.errstate(over="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files of Python 2, which are read all the same
            given = _one_array(path, about) if path.suffix.lower() == ".npy" else _named_arrays(path, about)
    except _UNREADABLE as error:
        raise InputRefused(f"is no readable {path.suffix} file: {error}", where=str(path)) from error
    lengths = {len(array) for array in given.values()}
    if len(lengths) > 1:
        raise InputRefused(f"its arrays hold different numbers of samples: {sorted(lengths)}", where=str(path))
    if not lengths or lengths == {0}:
        raise InputRefused("holds no samples", where=str(path))
    count = length(given)
    return Samples(tuple(f"{path}#{place}" for place in range(count)) if count > 1 else (str(path),), given)


def _one_array(path: Path, about: About) -> dict[str, NDArray[Any]]:
    raw = _only_raw(about, str(path))
    return {about.inputs[0].name: _shaped(np.lib.format.open_memmap(path, mode="r"), raw, str(path))}


def _named_arrays(path: Path, about: About) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    with np.load(path, allow_pickle=False) as arrays:
        names = {each.name: _name_in(list(arrays), each.name, len(about.inputs), path) for each in about.inputs}
        for name in names.values():
            if max(sizes.get(f"{name}.npy", 0), sizes.get(name, 0)) > _LARGEST_ARRAY_BYTES:
                raise InputRefused(f"the array '{name}' is too large", where=str(path))
        return {
            each.name: _shaped(arrays[names[each.name]], each.raw, f"{path}: {names[each.name]}")
            for each in about.inputs
        }


def _name_in(there: list[str], name: str, inputs: int, path: Path) -> str:
    """Return which array is this input: the one of its name, or, where there is one input, "x" or the only array."""
    if name in there:
        return name
    if inputs == 1 and ("x" in there or len(there) == 1):
        return "x" if "x" in there else there[0]
    wanted = name if inputs > 1 else "x"
    raise InputRefused(f"holds no array '{wanted}', found {', '.join(there) or 'nothing'}", where=str(path))


def _shaped(array: Any, raw: Raw, where: str) -> NDArray[Any]:
    """Return samples (n, *raw.shape) of those, of a single one, or of pictures without their one channel."""
    if not isinstance(array, np.ndarray):  # what is something else in an archive comes as bytes
        raise InputRefused("holds no array", where=where, remedy="write it with numpy.save, several with numpy.savez")
    flat = raw.shape[1:] if len(raw.shape) == 3 and raw.shape[0] == 1 else None
    if array.dtype.kind not in "biuf":
        raise InputRefused(f"holds values of type {array.dtype}, numbers are wanted", where=where)
    if array.shape == raw.shape or (flat and array.shape == flat):
        return array.reshape(1, *raw.shape)
    if array.ndim and (array.shape[1:] == raw.shape or (flat and array.shape[1:] == flat)):
        return array.reshape(len(array), *raw.shape)
    raise InputRefused(f"has the shape {array.shape}, (n, {', '.join(map(str, raw.shape))}) is wanted", where=where)


# ── preprocessing ───────────────────────────────────────────────────────────────────────────────────────────────────


def _prepared(samples: Samples, about: About) -> Iterator[Samples]:
    """Take samples through the steps of preprocessing, a portion at a time."""
    frontend: Mapping[str, Any] = {each.name: each.steps for each in about.inputs}
    for start in range(0, len(samples.names), AT_ONCE):
        names = samples.names[start : start + AT_ONCE]
        portion = {name: np.asarray(array[start : start + AT_ONCE]) for name, array in samples.inputs.items()}
        try:
            with np.errstate(all="ignore"):  # what is no finite number afterwards is refused
                prepared = prepare(portion, frontend)
        except _UNUSABLE as error:
            raise FileRefused(
                f"what it says about preprocessing cannot be done ({type(error).__name__}: {error})",
                where=f"the model of recipe '{about.recipe}'",
                remedy="export it again; if it was copied, compare its sha256",
            ) from error
        for array in prepared.values():
            bad = ~np.isfinite(array.reshape(len(array), -1)).all(1)
            if bad.any():
                raise InputRefused("holds a value that is no finite number", where=names[int(np.flatnonzero(bad)[0])])
        yield Samples(names, prepared)
