"""Python files as what they do: digests that comments and docstrings do not change, and what a file imports.

Nothing is imported here: files are found by their path and read as syntax trees.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

from pipeline.artifacts.networks import Digest

_OWN_PACKAGE = __name__.partition(".")[0]
_IMPORTING = (ast.Import, ast.ImportFrom, ast.Call)  # nodes that may import something
_LEAVES = (ast.Name, ast.Constant, ast.alias, ast.expr_context, ast.operator, ast.cmpop, ast.unaryop, ast.boolop)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes.  Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(source: bytes) -> Digest:
    """Return the sha256 over what Python code does: its syntax tree without comments, layout and docstrings.

    Code that does not parse is digested as it stands.
    """
    try:
        return tree_digest(parse(source))
    except (SyntaxError, ValueError, RecursionError):  # no Python, a zero byte, nested too deeply
        return hashlib.sha256(source).hexdigest()


def parse(source: bytes) -> ast.Module:
    """Return the syntax tree.  Raises SyntaxError and ValueError."""
    return ast.parse(source)


def tree_digest(tree: ast.Module) -> Digest:
    """Return the sha256 over a syntax tree: nodes and their fields, without places in the file and docstrings."""
    words: list[str] = []
    _write(tree, words)
    return hashlib.sha256("".join(words).encode()).hexdigest()


def _write(value: object, words: list[str]) -> None:
    """Append ``value`` so that two trees give the same text only when they are equal (``ast.dump`` is slower)."""
    if isinstance(value, ast.AST):
        words.append(f"{type(value).__name__}(")
        for name in value._fields:
            _write(getattr(value, name, None), words)
        words.append(")")
    elif isinstance(value, list):
        words.append("[")
        for item in value:
            if not _is_docstring(item):
                _write(item, words)
        words.append("]")
    else:
        words.append(f"{value!r},")


def _is_docstring(item: object) -> bool:
    """Tell whether a statement is text alone, at the head of a body or under an attribute: it does nothing."""
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)


# ── imports ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names of all modules that running the code may import, wherever the import stands.

    ``from a import b`` gives both a and a.b, which may be no module.  ``package``: the one that the code is in, for
    relative imports; "" at the top.  What only type checkers see is left out.
    """
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _IMPORTING):
            yield from _named(node, package)
        waiting += node.orelse if _is_for_type_checkers(node) else _children(node)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Give what stands below a node, in order (``ast.iter_child_nodes`` is slower)."""
    if isinstance(node, _LEAVES):
        return
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            yield value
        elif isinstance(value, list):
            yield from (item for item in value if isinstance(item, ast.AST))


def _named(node: ast.AST, package: str) -> Iterable[str]:
    match node:
        case ast.Import():
            return (alias.name for alias in node.names)
        case ast.ImportFrom():
            origin = resolved(node.module or "", node.level, package)
            names = (alias.name for alias in node.names if alias.name != "*")
            return () if origin is None else filter(None, (origin, *(_joined(origin, name) for name in names)))
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            found = resolved(name.lstrip("."), len(name) - len(name.lstrip(".")), package)
            return filter(None, (found,))
    return ()


def _is_for_type_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    if not isinstance(node, ast.If):
        return False
    asked = node.test
    return (asked.attr if isinstance(asked, ast.Attribute) else getattr(asked, "id", "")) == "TYPE_CHECKING"


def resolved(module: str, level: int, package: str) -> str | None:
    """Return the full name of what an import with ``level`` dots in ``package`` means; None above the top."""
    if not level:
        return module
    parents = package.split(".") if package else []
    if level - 1 > len(parents):
        return None
    return _joined(".".join(parents[: len(parents) - level + 1]), module)


def _joined(package: str, name: str) -> str:
    return ".".join(filter(None, (package, name)))


def local_imports(file: Path) -> dict[str, Path]:
    """Return what a Python file imports from its own folder, directly or through others: full name → file, by name.

    A name counts when its file lies in the folder of ``file``, which is importable; all others belong to the standard
    library and to installed packages.  A package's ``__init__.py`` counts with each of its modules.  Raises OSError
    when a file cannot be read.
    """
    found = _followed(file.parent, _imports_of(file, ""))
    return {name: place for name, place in found.items() if place != file}


def module_imports(root: Path, module: str, *, inside: str = "") -> dict[str, Path]:
    """Return a module below ``root`` and what it imports from there, as ``local_imports`` does; {} where it is none.

    ``inside``: only modules of this package count, where others of ``root`` are other people's.
    """
    if _file_below(root, module) is None:
        return {}
    return _followed(root, [module], inside)


def _followed(root: Path, names: Iterable[str], inside: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        for module in _with_parents(name):
            place = _file_below(root, module)
            if place is None or module in found or inside not in ("", module.partition(".")[0]):
                continue
            found[module] = place
            package = module if place.name == "__init__.py" else module.rpartition(".")[0]
            waiting += _imports_of(place, package)
    return dict(sorted(found.items()))


def _imports_of(file: Path, package: str) -> Iterator[str]:
    """All names that a file imports; none when it does not parse: whoever runs it will say so."""
    try:
        tree = parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return iter(())
    return imported(tree, package)


def _with_parents(name: str) -> Iterator[str]:
    """``a.b.c`` → ``a``, ``a.b``, ``a.b.c``: importing the last runs them all."""
    parts = name.split(".")
    return (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


def _file_below(root: Path, module: str) -> Path | None:
    """Find a module's file below ``root``; a folder without ``__init__.py`` is a package without a file of its own."""
    parts = module.split(".")
    if parts[0] == _OWN_PACKAGE or not all(part.isidentifier() for part in parts):
        return None
    place = root.joinpath(*parts)
    return next((file for file in (place / "__init__.py", place.with_name(f"{place.name}.py")) if file.is_file()), None)
