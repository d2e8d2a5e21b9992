"""ARCHITECTURE.md names every file of the package, and only files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_has_its_line_and_every_line_its_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"^- `(pipeline/[\w/]+\.py)`: \S", text, re.MULTILINE))
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pipeline").rglob("*.py")
        if path.name != "__init__.py" and "_shipped" not in path.parts
    }
    assert named == there
