"""A recipe, a card and a target in a working folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

RECIPE = """\
name = "mine"
data = "mine.toml"
[network]
file = "net.py"
[network.options]
width = 8
[train]
epochs = 2
"""

CARD = """\
name = "mine"
title = "Mine"
kind = "npz"
[input]
shape = [1, 8, 8]
[files.all]
path = "mine.npz"
"""

TARGET = """\
name = "rpi4"
title = "A board"
aliases = ["board"]
os = "Debian 12"
python = "3.11"
[cpu]
architecture = "aarch64"
model = "Cortex-A72"
cores = 4
clock_mhz = 1500
[memory]
size_bytes = "1 GiB"
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
