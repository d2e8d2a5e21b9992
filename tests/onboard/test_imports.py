"""onboard/ is the lowest floor: it imports the standard library, numpy, one runtime, and itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline.onboard

FOLDER = Path(pipeline.onboard.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
# a device needs Pillow only where its inputs are picture files
RUNTIMES_OF = {
    "onnx_session.py": {"onnxruntime"},
    "pictures.py": {"PIL"},
}  # the TFLite packages are imported by name, when a file is opened


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively"
            yield from (
                [f"pipeline.{each.name}" for each in node.names] if node.module == "pipeline" else [node.module or ""]
            )


def test_every_file_is_seen() -> None:
    assert {"session.py", "worker.py", "normalize.py"} <= {file.name for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_it_imports_nothing_from_above(file: Path) -> None:
    allowed = sys.stdlib_module_names | {"numpy"} | RUNTIMES_OF.get(file.name, set())
    for name in imported(file):
        own = name == "pipeline.onboard" or name.startswith("pipeline.onboard.")
        assert own or name.split(".")[0] in allowed, f"{file.name} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_its_syntax_is_that_of_python_3_9(file: Path) -> None:
    ast.parse(file.read_text("utf-8"), feature_version=(3, 9))


def test_loading_it_loads_no_more() -> None:
    modules = [f"pipeline.onboard.{'.'.join(file.relative_to(FOLDER).with_suffix('').parts)}" for file in FILES]
    load = "; ".join(f"import {name.removesuffix('.__init__')}" for name in modules if "onnx" not in name)
    told = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{load}; {told}"], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split()) - sys.stdlib_module_names
    heavy = {"torch", "onnx", "onnxruntime", "pydantic", "scipy", "ai_edge_litert", "rich", "click"}
    assert "numpy" in loaded
    assert not loaded & heavy
