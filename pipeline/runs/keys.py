"""What the result of a step depends on, as one sha256: what its code does, its inputs and the libraries it uses.

The code is found without importing anything: the stage's module and all modules of its own package and of ``pipeline``
that it imports, directly or through others, wherever the import stands.  Comments and docstrings do not count, nor does
what changes nobody's result (wording of errors, progress, this bookkeeping).  Of the modules that a registry lists only
those count that an input names: a new task is no news for runs of another one.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, JsonValue

from pipeline.artifacts.networks import Digest
from pipeline.runs.reading import Reader, Source
from pipeline.runs.sources import imported, parse, resolved, tree_digest

# import name → distribution, of the libraries whose version may change a result
_LIBRARIES = {
    "PIL": "Pillow",
    "ai_edge_litert": "ai-edge-litert",
    "flatbuffers": "flatbuffers",
    "matplotlib": "matplotlib",
    "ml_dtypes": "ml_dtypes",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "tflite_runtime": "tflite-runtime",
    "torch": "torch",
}
# package → its dict of what there is; an entry counts where an input's ``code_in_use`` names its module
_REGISTRIES = {
    "pipeline.data.kinds": "KINDS",
    "pipeline.instruments": "INSTRUMENTS",
    "pipeline.onboard.frontend": "STEPS",
    "pipeline.tasks": "TASKS",
}
# words for people, this bookkeeping, and the machine at hand: its name and what it can do are inputs
_NO_RESULT = ("pipeline.errors", "pipeline.host", "pipeline.progress", "pipeline.refusal", "pipeline.runs")
_ABSENT = "absent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingredients:
    """All that a step's result depends on; written into its record, so that people can see why a step ran again."""

    stage: str  # "pipeline.stages.train:train"
    inputs: JsonValue
    sources: dict[str, Digest]  # module → digest of what its code does
    libraries: dict[str, str]  # distribution → version

    @property
    def key(self) -> Digest:
        """The sha256 over all of it."""
        return hashlib.sha256(json.dumps(canonical(self), sort_keys=True).encode()).hexdigest()


def ingredients(module: str, function: str, inputs: Mapping[str, object]) -> Ingredients:
    """Gather what ``module:function(**inputs)`` depends on.  Raises TypeError for an input that has no stable form."""
    sources = _closure(module, _code_in_use(inputs))
    wanted = {name for source in sources.values() for name in source.imports if name in _LIBRARIES}
    return Ingredients(
        stage=f"{module}:{function}",
        inputs=canonical(inputs),
        sources={name: source.digest for name, source in sources.items()},
        libraries={"python": _python()} | {_LIBRARIES[name]: _version(_LIBRARIES[name]) for name in sorted(wanted)},
    )


def canonical(value: object) -> JsonValue:
    """Return ``value`` as JSON that is equal for equal values: what dataclasses mark ``in_key=False`` is left out.

    Takes dataclasses, pydantic models, paths, numbers, text, None, and tuples, lists and mappings of them.
    Raises TypeError for anything else; arrays belong into the store, their digest into the key.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
        case BaseModel():
            return {name: canonical(getattr(value, name)) for name in type(value).model_fields}
        case tuple() | list():
            return [canonical(item) for item in value]
        case Mapping():
            return {str(key): canonical(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field for field in dataclasses.fields(value) if field.metadata.get("in_key", True))
        return {field.name: canonical(getattr(value, field.name)) for field in fields}
    raise TypeError(f"a {type(value).__name__} cannot be part of a step's key")


def dataclasses_in(value: object) -> Iterator[object]:
    """Every dataclass in ``value``, itself included."""
    match value:
        case tuple() | list():
            for item in value:
                yield from dataclasses_in(item)
        case Mapping():
            for item in value.values():
                yield from dataclasses_in(item)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            yield from dataclasses_in(getattr(value, field.name))


def library_versions() -> dict[str, str]:
    """Return the versions of Python, karui and the libraries that may change a result ("absent": not installed)."""
    distributions = ("karui", *_LIBRARIES.values())
    return {"python": platform.python_version()} | {name: _version(name) for name in distributions}


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return _ABSENT


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


# ── sources ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _code_in_use(inputs: Mapping[str, object]) -> frozenset[str]:
    return frozenset(name for part in dataclasses_in(inputs) for name in getattr(part, "code_in_use", ()))


@functools.cache  # for the life of the process: modules that are imported already do not change either
def _closure(module: str, code_in_use: frozenset[str]) -> dict[str, Source]:
    """All own modules that ``module`` runs, itself included, sorted by name."""
    if _file_of(module) is None:
        raise ModuleNotFoundError(f"no source file of the stage module {module}")
    found: dict[str, Source] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or name in found or _changes_no_result(name):
            continue
        found[name] = source = _source(file, name)
        parents = (name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1))
        entries = (entry for entry in code_in_use if name in _REGISTRIES and entry.rpartition(".")[0] == name)
        waiting += [other for other in (*source.imports, *parents, *entries) if _is_own(other, module)]
    _reader().keep()
    return dict(sorted(found.items()))


def _changes_no_result(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _NO_RESULT)


def _is_own(name: str, stage_module: str) -> bool:
    return _top(name) in {"pipeline", _top(stage_module)}


def _top(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def _reader() -> Reader:
    return Reader(_read, made_by=__file__)


@functools.cache
def _source(file: Path, module: str) -> Source:
    package = f"{module}.__init__" if file.name == "__init__.py" else module
    source = _reader().source(file.read_bytes(), package)
    if file.name == "__init__.py":  # what a package shows people is made from its templates
        shown = b"".join(template.read_bytes() for template in sorted(file.parent.glob("templates/*")))
        digest = hashlib.sha256(source.digest.encode() + shown).hexdigest() if shown else source.digest
        return dataclasses.replace(source, digest=digest)
    return source


def _read(content: bytes, module: str) -> Source:
    """Read what a module does; the file of a package is called ``package.__init__``."""
    tree = parse(content)
    package, _, last = module.rpartition(".")
    if last == "__init__" and package in _REGISTRIES:
        tree = _without_entries(tree, package, _REGISTRIES[package])
    imports: set[str] = set()
    for name in imported(tree, package):
        imports |= {name, _top(name)}
    return Source(digest=tree_digest(tree), imports=frozenset(imports))


def _without_entries(tree: ast.Module, package: str, dict_name: str) -> ast.Module:
    """Return a registry without its dict, and without the imports of its own modules that only the dict needs."""
    listing = [statement for statement in tree.body if dict_name in _assigned(statement)]
    rest = [statement for statement in tree.body if statement not in listing]
    entries = _names_in(listing) - _names_in(rest)
    body = (_without_imports(statement, package, entries) for statement in rest)
    return ast.Module(body=[statement for statement in body if statement is not None], type_ignores=[])


def _assigned(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _names_in(statements: list[ast.stmt]) -> set[str]:
    return {node.id for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _without_imports(statement: ast.stmt, package: str, entries: set[str]) -> ast.stmt | None:
    """Return an import without those of the package's own modules that are bound to ``entries``; None: none is left."""
    if not isinstance(statement, ast.ImportFrom):
        return statement
    origin = resolved(statement.module or "", statement.level, package) or ""
    if origin != package and not origin.startswith(f"{package}."):
        return statement
    names = [alias for alias in statement.names if (alias.asname or alias.name) not in entries]
    return ast.ImportFrom(module=statement.module, names=names, level=statement.level) if names else None


@functools.cache
def _file_of(module: str) -> Path | None:
    """Find the file of a module by its path alone: importing its parent packages might load torch."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not spec.submodule_search_locations:
        return Path(spec.origin) if spec.origin and not rest else None
    for folder in spec.submodule_search_locations:
        place = Path(folder, *rest)
        for file in (place / "__init__.py", place.parent / f"{place.name}.py"):
            if file.is_file():
                return file
    return None
