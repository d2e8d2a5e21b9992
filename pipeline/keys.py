"""What the result of a step depends on, as one sha256: the stage's sources, its inputs and the libraries it uses.

The sources are found without importing anything: the stage's module and all modules of its own package and of
``pipeline`` that it imports, directly or through others, wherever the import stands.  What changes nobody's result
(wording of errors, progress, this bookkeeping) is left out.
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

from pipeline.artifacts import Digest

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
    "torch_pruning": "torch-pruning",
}
_NO_RESULT = {f"pipeline.{name}" for name in ("errors", "progress", "keys", "records", "run")}
_ABSENT = "absent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingredients:
    """All that a step's result depends on; written into its record, so that people can see why a step ran again."""

    stage: str  # "pipeline.stages.train:train"
    inputs: JsonValue
    sources: dict[str, Digest]  # module → sha256 of its file
    libraries: dict[str, str]  # distribution → version

    @property
    def key(self) -> Digest:
        """The sha256 over all of it."""
        return hashlib.sha256(json.dumps(canonical(self), sort_keys=True).encode()).hexdigest()


def ingredients(module: str, function: str, inputs: Mapping[str, object]) -> Ingredients:
    """Gather what ``module:function(**inputs)`` depends on.  Raises TypeError for an input that has no stable form."""
    sources = _closure(module)
    wanted = {name for source in sources.values() for name in source.imports if name in _LIBRARIES}
    return Ingredients(
        stage=f"{module}:{function}",
        inputs=canonical(dict(inputs)),
        sources={name: source.digest for name, source in sources.items()},
        libraries={"python": _python()} | {_LIBRARIES[name]: _version(_LIBRARIES[name]) for name in sorted(wanted)},
    )


def canonical(value: object) -> JsonValue:
    """Return ``value`` as JSON that is equal for equal values: what dataclasses mark ``in_key=False`` is left out.

    Takes dataclasses, pydantic models, paths, numbers, text, None, and tuples, lists and dicts of them.  Raises
    TypeError for anything else; arrays belong into the store, their digest into the key.
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
        case dict():
            return {str(key): canonical(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field for field in dataclasses.fields(value) if field.metadata.get("in_key", True))
        return {field.name: canonical(getattr(value, field.name)) for field in fields}
    raise TypeError(f"a {type(value).__name__} cannot be part of a step's key")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
    digest: Digest
    imports: frozenset[str]  # own modules by their full name, libraries by their first


@functools.cache  # for the life of the process: modules that are imported already do not change either
def _closure(module: str) -> dict[str, _Source]:
    """All own modules that ``module`` runs, itself included, sorted by name."""
    if _file_of(module) is None:
        raise ModuleNotFoundError(f"no source file of the stage module {module}")
    found: dict[str, _Source] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or name in found or name in _NO_RESULT:
            continue
        found[name] = source = _source(file, name)
        parents = (name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1))
        waiting += [imported for imported in (*source.imports, *parents) if _is_own(imported, module)]
    return dict(sorted(found.items()))


def _is_own(name: str, stage_module: str) -> bool:
    return _top(name) in {"pipeline", _top(stage_module)}


def _top(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def _source(file: Path, module: str) -> _Source:
    data = file.read_bytes()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    imports: set[str] = set()
    for name in _imported(ast.parse(data, filename=str(file)), package):
        imports |= {name, _top(name)}
    if file.name == "__init__.py":  # what a package shows people is made from these
        data += b"".join(template.read_bytes() for template in sorted(file.parent.glob("templates/*")))
    return _Source(digest=hashlib.sha256(data).hexdigest(), imports=frozenset(imports))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names of all modules that may be imported; ``from a import b`` gives both a and a.b, which may be no module."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                start = ".".join(package.split(".")[: package.count(".") + 2 - node.level]) if node.level else ""
                origin = ".".join(filter(None, (start, node.module)))
                yield from (origin, *(f"{origin}.{alias.name}" for alias in node.names))
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


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
