"""The code of a network: its file and the modules of the same folder that it imports, run as they were when read.

A network that is a function of a module is loaded in the same way; what is installed is imported as usual.

Two networks, or two versions of one, may import modules of the same name: each has modules of its own, which nobody
else sees.  They stand in ``sys.modules`` only while an import statement of that network is carried out.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.abc
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.artifacts.networks import Digest, NetworkRef
from pipeline.elsewhere import modules_of
from pipeline.errors import ModelError
from pipeline.runs.sources import code_digest, local_imports


@dataclass(frozen=True, kw_only=True)
class OwnCode:
    """A network's module and what it imports, ready to be called."""

    module: ModuleType
    helpers: _Helpers

    @contextlib.contextmanager
    def importable(self) -> Iterator[None]:
        """Let whatever runs meanwhile import the modules of the network's folder, however it does."""
        with self.helpers.visible():
            yield


def load_code(ref: NetworkRef) -> OwnCode:
    """Run the network's file as a module of its own, or import the module that a named network is a function of.

    Raises ModelError with the user's line for whatever goes wrong in it, and when one of its files is no longer the one
    of ``ref``.
    """
    if ref.name:
        return _load_module(ref)
    source = _checked(ref.path, ref.sha256)
    helpers = _Helpers(folder=ref.path.parent, sources=_checked_imports(ref))
    name = f"karui_network_{ref.path.stem}_{ref.sha256[:12]}"
    spec = importlib.util.spec_from_loader(name, _BytesLoader(ref.path, source, helpers), origin=str(ref.path))
    if spec is None or spec.loader is None:
        raise ModelError("cannot be loaded as a Python module", where=str(ref.path))
    linecache.checkcache(str(ref.path))  # lines of an older version of the file must not stand in an error
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before exec: dataclasses look themselves up there
    try:
        with helpers.visible():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise user_error(error, ref, "importing the file raised") from error
    return OwnCode(module=module, helpers=helpers)


def _load_module(ref: NetworkRef) -> OwnCode:
    module, found = ref.name.partition(":")[0], _checked_imports(ref)
    helpers = _Helpers(folder=ref.path.parent, sources={} if ref.version else found)
    try:
        with helpers.visible():
            return OwnCode(module=importlib.import_module(module), helpers=helpers)
    except (Exception, SystemExit) as error:
        raise user_error(error, ref, f"importing {module} raised") from error


# ── the files, as they were read ────────────────────────────────────────────────────────────────────────────────────


def _checked_imports(ref: NetworkRef) -> dict[str, tuple[Path, bytes]]:
    """Return name → (file, its bytes) of all modules that the network imports from its own folder."""
    found = modules_of(ref.name, ref.path.parent, ref.version) if ref.name else local_imports(ref.path)
    for name in sorted(ref.imports.keys() - found.keys()):
        raise _changed(ref.path.parent.joinpath(*name.split(".")), "is gone since it was read")
    return {name: (file, _checked(file, ref.imports.get(name))) for name, file in found.items()}


def _checked(file: Path, digest: Digest | None) -> bytes:
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(file)) from error
    found = code_digest(source)
    if digest is None:
        raise _changed(file, "was not there, or not imported, when the network file was read")
    if found != digest:
        what = f"has changed since it was read: digest of its code {digest[:12]}… then, {found[:12]}… now"
        raise _changed(file, what)
    return source


def _changed(file: Path, what: str) -> ModelError:
    return ModelError(
        f"the network file {what}",
        where=str(file),
        remedy="run again; stages that depend on the file will be redone",
    )


class _BytesLoader(importlib.abc.SourceLoader):
    """Runs exactly the bytes that were checked; reads and writes no bytecode cache."""

    def __init__(self, path: Path, source: bytes, helpers: _Helpers) -> None:
        self.path, self.source, self.helpers = path, source, helpers

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002  (importlib's signature)
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:  # noqa: ARG002  (importlib's signature)
        return self.source

    def exec_module(self, module: ModuleType) -> None:
        # import statements of this code look __import__ up here, in forward() as well, long after the file was run
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self.helpers.do_import}
        super().exec_module(module)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Helpers(importlib.abc.MetaPathFinder):
    """The modules of one network's folder."""

    folder: Path
    sources: Mapping[str, tuple[Path, bytes]]  # full name → file and its bytes
    loaded: dict[str, ModuleType] = field(default_factory=dict)

    @property
    def packages(self) -> frozenset[str]:
        """Return the first parts of all names."""
        return frozenset(name.partition(".")[0] for name in self.sources)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  (importlib's signature)
        target: ModuleType | None = None,  # noqa: ARG002  (importlib's signature)
    ) -> ModuleSpec | None:
        """Find one of these modules, or a folder without ``__init__.py`` that holds some (PEP 420)."""
        if fullname in self.sources:
            file, source = self.sources[fullname]
            linecache.checkcache(str(file))
            return importlib.util.spec_from_loader(fullname, _BytesLoader(file, source, self), origin=str(file))
        if any(name.startswith(f"{fullname}.") for name in self.sources):
            return ModuleSpec(fullname, None, is_package=True)
        return None

    def do_import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  (signature of __import__)
        locals: Mapping[str, Any] | None = None,  # noqa: A002  (signature of __import__)
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Import as Python does; these modules come first."""
        if not level and name.partition(".")[0] not in self.packages:
            return builtins.__import__(name, globals, locals, fromlist, level)
        with self.visible():
            return builtins.__import__(name, globals, locals, fromlist, level)

    @contextlib.contextmanager
    def visible(self) -> Iterator[None]:
        """Put these modules where Python looks for modules, and take them away again."""
        if self in sys.meta_path:  # a helper imports another one
            yield
            return
        others = self._taken_away()
        sys.modules.update(self.loaded)
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            self.loaded.update(self._taken_away())
            sys.modules.update(others)

    def _taken_away(self) -> dict[str, ModuleType]:
        packages = self.packages
        names = [name for name in sys.modules if name.partition(".")[0] in packages]
        return {name: sys.modules.pop(name) for name in names}


# ── errors in the user's code ───────────────────────────────────────────────────────────────────────────────────────


def line_in(error: BaseException, path: Path) -> tuple[int | None, str]:
    """Return the number and text of the last line of ``path`` that the error came through; (None, "") if none."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (own[-1].lineno, own[-1].line or "") if own else (None, "")


def user_error(error: BaseException, ref: NetworkRef, what: str, *, expected: str = "") -> ModelError:
    """Return the error with the line of the user's own file, or of one that it imports, in which it arose."""
    own = _own_files(ref)
    if isinstance(error, SyntaxError) and error.filename in own:
        place, line = f"{error.filename}:{error.lineno}", (error.text or "").strip()
        message = error.msg
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
        place, line = (f"{frames[-1].filename}:{frames[-1].lineno}", frames[-1].line or "") if frames else ("", "")
        message = str(error)
    return ModelError(
        f"{what} {type(error).__name__}: {message}",
        where=place or str(ref.path),
        remedy="\n  ".join(text for text in (line, expected) if text),
    )


def _own_files(ref: NetworkRef) -> set[str]:
    """Return the names of the network's file and of those that it imports, as tracebacks name them."""
    places = [ref.path.parent.joinpath(*name.split(".")) for name in ref.imports]
    return {str(ref.path), *(f"{place}.py" for place in places), *(str(place / "__init__.py") for place in places)}
