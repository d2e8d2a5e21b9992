"""What is measured: model files, and all files of runs, each in the runtimes that can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.artifacts.files import RUNTIME_OF_FORMAT
from pipeline.artifacts.networks import Digest
from pipeline.declare.words import RuntimeName
from pipeline.errors import ConfigError, nearest
from pipeline.paths import expanded
from pipeline.runs.finished import find_run, load_outcome, store_of
from pipeline.runs.store import sha256_of_file, storing
from pipeline.runtimes import RUNTIMES, unavailable

_WHERE = "bench"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A file in one runtime."""

    file: str  # its name, and its place where several are called alike
    path: Path
    sha256: Digest
    runtime: RuntimeName


def contenders(names: Sequence[str], runtime: str = "") -> tuple[Contender, ...]:
    """Return the files that are named, in their first usable runtime, and those of runs, in all of them.

    ``runtime``: that alone.  Raises ConfigError for what is neither, and where nothing can run a file.
    """
    if runtime and runtime not in RUNTIMES:
        raise ConfigError(f"there is no runtime '{runtime}'{nearest(runtime, RUNTIMES)}", where="--runtime")
    found = [each for name in names for each in _of_name(name, runtime)]
    places = Counter(file for file, _ in {(each.file, each.path) for each in found})
    return tuple(replace(each, file=str(each.path)) if places[each.file] > 1 else each for each in found)


def runtimes_of(path: Path) -> tuple[RuntimeName, ...]:
    """Return the runtimes of a file's format; none for a file of another kind."""
    kind = path.suffix.lower().removeprefix(".")
    return tuple(runtime for key, some in RUNTIME_OF_FORMAT.items() if key == kind for runtime in some)


def _of_name(name: str, runtime: str) -> Iterator[Contender]:
    path = expanded(name, where=_WHERE)
    if path.is_file():
        found = usable(path, runtime)
        yield Contender(file=path.name, path=path, sha256=_digest(path), runtime=found[0])
        return
    if runtimes_of(path):
        raise ConfigError("there is no such file", where=name)
    folder = find_run(str(path))
    outcome, store = load_outcome(folder), store_of(folder)
    files = [each for each in outcome.files if runtime in ("", *runtimes_of(Path(each.filename)))]
    if not files:
        raise ConfigError(f"has no files that {runtime or 'a runtime'} could run", where=str(folder))
    for each in files:
        for one in usable(Path(each.filename), runtime):
            yield Contender(file=each.filename, path=store.path(each.file), sha256=each.file, runtime=one)


def usable(path: Path, runtime: str) -> list[RuntimeName]:
    """Return the runtimes that can run a file here, that which is asked for alone.  Raises ConfigError for none."""
    runtimes = runtimes_of(path)
    if not runtimes:
        raise ConfigError(f"'{path}' is no .onnx or .tflite file", where=_WHERE, remedy="name a model file or a run")
    there = [each for each in runtimes if not unavailable(each)]
    wanted = [each for each in there if runtime in ("", each)]
    if not wanted:
        what = f"{runtime or ' and '.join(runtimes)} cannot run {path.name} here"
        raise ConfigError(what, where="--runtime", remedy=f"usable: {', '.join(there) or 'none'}")
    return wanted


def _digest(path: Path) -> Digest:
    with storing(path):
        return sha256_of_file(path)
