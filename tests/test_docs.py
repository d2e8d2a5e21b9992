"""Pages that are made from the code say what the code says."""

from __future__ import annotations

from pathlib import Path

from bench.list_operations import page

DOCS = Path(__file__).parents[1] / "docs"


def test_the_list_of_operations_is_made_from_the_tables() -> None:
    assert (DOCS / "operations.md").read_text() == page()
