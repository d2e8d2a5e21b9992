"""Data that a Python file draws or reads: the card's ``file``, with ``load(*, seed, **options)``.

It returns arrays by name, as a ``.npz`` file holds them: ``x`` and ``y``, or ``x_train``, ``y_train`` and the same with
``_val`` and ``_test``; optionally ``groups``.  ``seed`` is [split] seed, ``options`` are the card's; a card with
[files] hands them over as ``files`` (role → path, found and checked like all others).  Optional: a tuple ``classes``,
and a function ``fingerprint() -> str`` for what else the result depends on (fonts, another library's version).

The file may import others of its own folder.  They, and the file, are part of the data set's digest.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
from pydantic import Field, JsonValue

from pipeline.data.checks import missing_shape
from pipeline.data.files import Found, locate_code
from pipeline.data.named_arrays import names_in_use, origins_in_one, parts_of
from pipeline.data.source import Parts, Wanted
from pipeline.declare import words
from pipeline.declare.card import DatasetCard
from pipeline.declare.words import OptionValue
from pipeline.errors import ConfigError, DataError, KaruiError
from pipeline.onboard.arrays import Arrays
from pipeline.runs.sources import code_digest, local_imports

_REMEDY = 'return {"x": samples, "y": labels}, or x_train, y_train, x_test, y_test'


class Spec(words.Spec):
    """What only a card of a Python file says."""

    file: str  # beside the card, or one of the shipped ones
    options: dict[str, OptionValue] = Field(default_factory=dict)  # for its load()


def missing(card: DatasetCard, own: Spec, wanted: Wanted | None) -> str:
    """Say what the card needs and has not; empty when it has all."""
    del own, wanted
    return missing_shape(card)


def content(card: DatasetCard, own: Spec, found: Found) -> JsonValue:
    """Return digests of the file's code and of what it imports from its folder, and what it says of itself.

    Comments and docstrings are not in them.  The file is run only if it has a ``fingerprint``.
    """
    path = locate_code(own.file, card, found.beside)
    code = {name: code_digest(file.read_bytes()) for name, file in {"": path, **local_imports(path)}.items()}
    says = ""
    if _defines(path, "fingerprint"):
        with _loaded(path) as module, _blamed_on(path, "fingerprint()"):
            says = str(module.fingerprint())
    return {"code": dict(code), "fingerprint": says}


def load(card: DatasetCard, own: Spec, found: Found, wanted: Wanted | None) -> Parts:
    """Return what the file's ``load`` returns, checked.

    Raises DataError naming the file and its line, or the array and sample; ConfigError for classes that differ.
    """
    path = locate_code(own.file, card, found.beside)
    given: dict[str, object] = dict(own.options)
    if found.files:
        given["files"] = dict(found.files)
    with _loaded(path) as module:
        declared = _with_classes(card, getattr(module, "classes", ()), path)
        if not callable(getattr(module, "load", None)):
            raise DataError("has no function 'load'", where=str(path), remedy="def load(*, seed, **options)")
        with _blamed_on(path, "load()"):
            returned = module.load(seed=card.split.seed, **given)
    arrays = _checked(returned, declared, path)
    held = sorted(map(str, returned))
    return parts_of(origins_in_one(arrays, declared, str(path), _REMEDY, held=held), declared, wanted)


def _with_classes(card: DatasetCard, classes: object, path: Path) -> DatasetCard:
    """Return the card with the classes that the file names, if it does."""
    if not classes:
        return card
    names = tuple(map(str, cast("tuple[object, ...]", classes)))
    if card.classes not in ((), names):
        raise ConfigError(
            f"classes = {list(card.classes)}: expected {list(names)}, as {path.name} has them",
            where=card.name,
            remedy="correct the list, or take it out of the card",
        )
    return card.model_copy(update={"classes": names})


def _checked(returned: object, card: DatasetCard, path: Path) -> Arrays:
    if not isinstance(returned, Mapping):
        raise DataError(
            f"load() returned {type(returned).__name__}, expected arrays by name", where=str(path), remedy=_REMEDY
        )
    return {name: np.asarray(returned[name]) for name in names_in_use(card) if name in returned}


# ── running a user's file ───────────────────────────────────────────────────────────────────────────────────────────


def _defines(path: Path, function: str) -> bool:
    """Tell whether a file has this function, without running it; one that does not parse is run, to hear why."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return True
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in body)


@contextlib.contextmanager
def _loaded(path: Path) -> Iterator[ModuleType]:
    """Run a file as a module; what stands in its folder can be imported inside the block, and is forgotten after it.

    Another folder may have modules of the same names, and the files may change before they are asked for again.
    """
    name = f"karui_data_{path.stem.replace('-', '_')}"
    own = {name, *local_imports(path)}
    before = {module: sys.modules.pop(module) for module in own if module in sys.modules}
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # no litter in the user's folder
    sys.path.insert(0, str(path.parent))
    importlib.invalidate_caches()
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise DataError("is no Python file", where=str(path), remedy="give it a name that ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look for it there
        with _blamed_on(path, "importing it"):
            spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        sys.dont_write_bytecode = writes_bytecode
        for module_name in own:
            sys.modules.pop(module_name, None)
        sys.modules.update(before)


@contextlib.contextmanager
def _blamed_on(path: Path, what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into a DataError that names its line."""
    try:
        yield
    except KaruiError:  # a generator's own words
        raise
    except Exception as error:
        raise DataError(
            f"{what} raised {type(error).__name__}: {error}", where=_line_of(error, path), remedy="correct the file"
        ) from error


def _line_of(error: Exception, path: Path) -> str:
    """Return file and line of the user's own code, innermost, where the error came from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve().is_relative_to(path.parent)
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else str(path)
