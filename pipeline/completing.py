"""What the shell offers at the press of a key: names of the catalogue, runs, and files."""

from __future__ import annotations

from pathlib import Path

from pipeline.catalog import Kind, names
from pipeline.runs.finished import RUNS
from pipeline.runs.run import RUN_FILE
from pipeline.visible import shown_text


def entries(kind: Kind, begun: str) -> list[str]:
    """Return the names of a kind, and the .toml files beside, that begin like this."""
    files = [f"{file.parent / file.name}" for file in _beside(begun).glob("*.toml")]
    return _usable([*names(kind), *sorted(files)], begun)


def runs(begun: str) -> list[str]:
    """Return the runs under ``runs/`` that begin like this."""
    return _usable(sorted(file.parent.name for file in RUNS.glob(f"*/{RUN_FILE}")), begun)


def models(begun: str) -> list[str]:
    """Return the runs, and the model files beside, that begin like this."""
    files = [f"{file.parent / file.name}" for kind in ("onnx", "tflite") for file in _beside(begun).glob(f"*.{kind}")]
    return [*runs(begun), *_usable(sorted(files), begun)]


def _beside(begun: str) -> Path:
    folder = Path(begun.rpartition("/")[0] or ("/" if begun.startswith("/") else "."))
    return folder if folder.is_dir() else Path()


def _usable(words: list[str], begun: str) -> list[str]:
    # a name with a line feed or an escape in it would be more than one word to the shell, or act on the terminal
    return [word for word in words if word.startswith(begun) and word == shown_text(word) and "\n" not in word]
