"""Imports of pipeline/ point one way, without cycles, and stand at the top of the file."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# lowest first; a unit is a file or a folder of pipeline/; what is not named here counts as WORK
WORK = frozenset(
    {"data", "source", "inspecting", "judging", "networks", "quant", "runtimes", "tasks", "tflite", "training"}
)
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"onboard"}),
    frozenset({"artifacts", "declare", "errors", "paths", "progress", "refusal", "shipped", "visible"}),
    frozenset({"catalog", "elsewhere", "graph", "host", "runs"}),
    WORK,
    frozenset({"instruments", "remote"}),
    frozenset({"benching", "console", "estimate", "report", "stages", "validating"}),
    frozenset({"flow"}),
    frozenset({"cli", "__main__"}),
)
MAX_DEPTH = 10  # units on the longest way from the command line down to the vocabulary; 6 is wanted
LAZY = "pipeline.commands."  # only these files may import inside functions: their start-up time
VOCABULARY = LAYERS[0] | LAYERS[1]
# a recalled run loads no torch, and yet a task is one file: torch is imported where it says how to train
TORCH_IN = "updates"

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "pipeline").rglob("*.py"))
    if "_shipped" not in path.parts
}


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the node and every statement in it; expressions, most of a file, hold none."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.expr | ast.expr_context | ast.arguments):
            yield from statements(child)


def imported(tree: ast.AST) -> set[str]:
    """Return the modules of pipeline/ that a piece of code imports."""
    found: set[str] = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in FILES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipeline":
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & FILES.keys()) or {str(node.module)}
    return found


IMPORTS = {module: imported(ast.parse(path.read_text(encoding="utf-8"))) for module, path in FILES.items()}


def unit(module: str) -> str:
    if module == "pipeline.data.source":  # what a data set looks like to all others: they share the words, not the unit
        return "source"
    name = module.split(".")[1] if "." in module else "__init__"
    return "cli" if name == "commands" else name


def layer(module: str) -> int:
    named = [rank for rank, units in enumerate(LAYERS) if unit(module) in units]
    return named[0] if named else LAYERS.index(WORK)


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_module_imports_from_its_layer_and_below(module: str) -> None:
    upward = {other for other in IMPORTS[module] if layer(other) > layer(module)}
    assert not upward, f"{module} imports from a higher layer (see LAYERS in this file)"


@pytest.mark.parametrize("module", sorted(m for m in FILES if unit(m) == "stages" and m != "pipeline.stages"))
def test_stages_never_import_each_other(module: str) -> None:
    assert not {other for other in IMPORTS[module] if unit(other) == "stages"}


@pytest.mark.parametrize("module", sorted(m for m in FILES if unit(m) == "onboard"))
def test_what_goes_to_the_device_stands_alone(module: str) -> None:
    assert not {other for other in IMPORTS[module] if unit(other) != "onboard"}


@pytest.mark.parametrize("module", sorted(module for module in FILES if not module.startswith(LAZY)))
def test_imports_stand_at_the_top(module: str) -> None:
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = [
        f"{FILES[module].name}:{node.lineno}"
        for function in functions
        if not (unit(module) == "tasks" and function.name == TORCH_IN)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not inside, "imports inside functions; only pipeline/commands/ may, and a task its torch"


def test_no_cycles() -> None:
    graphlib.TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which lists the modules


def test_the_longest_chain_of_units() -> None:
    below: dict[str, set[str]] = {}
    for module, others in IMPORTS.items():
        names = {"vocabulary" if unit(other) in VOCABULARY else unit(other) for other in others}
        below.setdefault("vocabulary" if unit(module) in VOCABULARY else unit(module), set()).update(names)
    chains: dict[str, tuple[str, ...]] = {}
    for name in graphlib.TopologicalSorter({name: others - {name} for name, others in below.items()}).static_order():
        lower = (chains[other] for other in below.get(name, ()) if other != name)
        chains[name] = (name, *max(lower, key=len, default=()))
    longest = max(chains.values(), key=len)
    assert len(longest) - 1 <= MAX_DEPTH, " → ".join(longest)
