"""What a user of karui would have in a folder: recipes, cards, pictures, tables, networks; and karui run on it.

Shapes: N samples, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.cli import main
from pipeline.instruments import here

KARUI = (sys.executable, "-m", "pipeline.cli")
NO_COMPARISON = ("--set", "finetune.compare_labels_per_class=[]", "--set", "finetune.train.epochs=1")


def processor_s() -> float:
    """Return the processor time that all finished children of this process took together."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one command answered."""

    status: int
    out: str
    err: str

    def refused(self, status: int, *words: str) -> None:
        """Assert that this was a refusal with this status, in words for people: on stderr, and nothing else."""
        assert self.status == status, self.err
        assert self.out == ""
        assert "error: " in self.err
        missing = [word for word in words if word not in self.err]
        assert not missing, f"{missing} not in {self.err}"
        assert "Traceback" not in self.err
        assert "bug in karui" not in self.err


@dataclass(frozen=True, kw_only=True)
class Karui:
    """The command line in this process, in a folder of its own."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Said:
        self.capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return Said(status=status, out=out, err=err)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project, its folders included."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def recipe(self, name: str = "mine", *, data: str = "digits", network: str = "mlp", options: str = "") -> Path:
        """Write a recipe that trains for an epoch."""
        return self.write(
            f"{name}.toml",
            f'name = "{name}"\ndata = "{data}"\nthreads = 1\n[network]\nfile = "{network}"\noptions = {{ {options} }}\n'
            "[train]\nepochs = 1\nbatch_size = 32\n[quantize]\nepochs = 1\nmargin_pp = 100\n"
            "[limits]\naccuracy_drop_pp = 100\n",
        )

    def npz_card(self, arrays: Mapping[str, NDArray[np.generic]], *, name: str = "set", more: str = "") -> Path:
        """Write arrays of pictures (N, 1, 8, 8) and their card."""
        np.savez(self.folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]  # NumPy's stubs take any keyword for allow_pickle
        return self.write(
            f"{name}-card.toml",
            f'name = "{name}"\ntitle = "A set"\nkind = "npz"\n{more}[files.all]\npath = "{name}.npz"\n'
            "[input]\nshape = [1, 8, 8]\ndivide = 255\n",
        )

    def picture_card(self, *, name: str = "pictures", side: int = 32, title: str = "Pictures") -> Path:
        """Write the card of a folder of RGB pictures."""
        return self.write(
            f"{name}-card.toml",
            f'name = "{name}"\ntitle = \'{title}\'\nkind = "image-folder"\nfolder = "{name}"\n'
            f"[input]\nshape = [3, {side}, {side}]\ndivide = 255\n",
        )


@pytest.fixture
def karui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Karui:
    """Run karui in an empty working folder; how fast files are is measured in two sessions of each."""
    monkeypatch.setattr(here, "SESSIONS", 2)
    monkeypatch.chdir(tmp_path)
    return Karui(folder=tmp_path, capsys=capsys)


def squares(count: int, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pictures (N, 1, 8, 8) whose class shows in where the bright pixels are, and labels (N,)."""
    labels = np.arange(count) % classes
    pictures = np.random.default_rng(0).integers(0, 90, (count, 1, 8, 8)).astype(np.uint8)
    for number, label in enumerate(labels):
        pictures[number, 0].reshape(64)[label * 64 // classes : label * 64 // classes + 8] = 250
    return pictures, labels


def draw(folder: Path, classes: Sequence[str], count: int, *, side: int = 32) -> None:
    """Draw ``count`` RGB pictures per class, each class with its bright patch in another place."""
    random = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random.integers(0, 120, (side, side, 3)).astype(np.uint8)  # (H, W, C)
            pixels[4 * number : 4 * number + 4, 4 * number : 4 * number + 4] = 250
            Image.fromarray(pixels).save(folder / name / f"{index:03}.png")


def in_a_process(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, limit_kib: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own; ``limit_kib``: no file may become larger."""
    command = subprocess.list2cmdline([*KARUI, *arguments]) if limit_kib else [*KARUI, *arguments]
    return subprocess.run(
        ["bash", "-c", f"ulimit -f {limit_kib}; exec {command}"] if limit_kib else list(command),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
