"""What was read out of Python files, kept beside their compiled code: a file is parsed once, not at every start.

An entry is found by the sha256 of what the file holds, so none is ever out of date, whatever a clock says.  Whether
anything is kept follows Python's own rules for compiled code (``-B``, ``PYTHONPYCACHEPREFIX``, folders that cannot be
written to).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.networks import Digest
from pipeline.runs import sources

_MOST_KEPT = 2000  # a checkout has some 300 files; what they held before is kept, for another branch, up to here


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a Python file does, as a digest, and the modules that it may import."""

    digest: Digest
    imports: frozenset[str]  # own modules by their full name, libraries by their first


class Reader:
    """Reads Python files with ``read`` (content, module → Source), or recalls what it said of the same content."""

    def __init__(self, read: Callable[[bytes, str], Source], made_by: str) -> None:
        """``made_by``: file of the module that ``read`` stands in; with another content it may say something else."""
        self.read = read
        self.file = Path(importlib.util.cache_from_source(made_by)).with_suffix(".sources.json")
        code = b"".join(Path(each).read_bytes() for each in (made_by, sources.__file__, __file__))
        self.version = hashlib.sha256(sys.version.encode() + code).hexdigest()
        self.kept = self._load()
        self.is_new = False

    def source(self, content: bytes, module: str) -> Source:
        """Return what the code of a module does.  Raises SyntaxError and ValueError."""
        name = hashlib.sha256(module.encode() + b"\0" + content).hexdigest()
        if name not in self.kept:
            self.kept[name] = self.read(content, module)
            self.is_new = True
        return self.kept[name]

    def keep(self) -> None:
        """Write down what was read; where that cannot be done, it is read again at the next start."""
        if not self.is_new or sys.dont_write_bytecode:
            return
        latest = list(self.kept.items())[-_MOST_KEPT:]
        entries = {name: [each.digest, *sorted(each.imports)] for name, each in latest}
        try:
            self.file.parent.mkdir(exist_ok=True)
            writing = self.file.with_suffix(f".{os.getpid()}")
            with writing.open("x", encoding="utf-8") as file:
                json.dump(_sealed(self.version, entries), file)
            writing.replace(self.file)
        except OSError:
            return
        self.is_new = False

    def _load(self) -> dict[str, Source]:
        try:
            found = json.loads(self.file.read_bytes())
            if found != _sealed(self.version, found["entries"]):
                return {}
            return {
                name: Source(digest=digest, imports=frozenset(imports))
                for name, (digest, *imports) in found["entries"].items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none, or somebody else wrote it
            return {}


def _sealed(version: str, entries: dict[str, list[str]]) -> dict[str, object]:
    text = json.dumps([version, entries], sort_keys=True)
    return {"seal": hashlib.sha256(text.encode()).hexdigest(), "entries": entries}
