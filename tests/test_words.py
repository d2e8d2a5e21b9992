"""One word for one thing: what only some tasks have is not named where every task passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OF_SOME_TASKS = re.compile(r"accurac|logit|classes per sample", re.IGNORECASE)
EXAMPLE = re.compile(r"``[^`]*``|#.*")  # a comment or docstring may name one for example
# where users write the short names of limits on accuracy, which are older than the other tasks
WRITTEN_BY_USERS = re.compile(r"accuracy_(min|drop_pp)|\"accuracy\"|metrics\.accuracy")
ALLOWED = ("pipeline/tasks/", "pipeline/onboard/decode.py")

FILES = [
    path
    for path in sorted((ROOT / "pipeline").rglob("*"))
    if path.suffix in (".py", ".html") and "_shipped" not in path.parts
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_task_is_taken_for_granted(path: Path) -> None:
    if path.relative_to(ROOT).as_posix().startswith(ALLOWED):
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for number, line in enumerate(lines, 1)
        if OF_SOME_TASKS.search(WRITTEN_BY_USERS.sub("", EXAMPLE.sub("", line)))
    ]
    assert not found, "say metric, value, outputs or decisions"
