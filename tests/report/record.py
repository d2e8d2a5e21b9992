"""Make recordings anew: ``python -m tests.report.record [NAME …]`` runs karui and keeps what a report reads.

``digits``: three targets (8 bits, 7 bits, this machine), fine-tuning, pruning by measured time.
``plane``: numbers from a table; a metric that should be low.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.networks import Digest, NetworkRef
from pipeline.artifacts.outcome import Outcome
from pipeline.data.load import load
from pipeline.report.looked import look
from pipeline.report.page import render
from pipeline.runs.finished import load_outcome, store_of
from pipeline.runs.records import to_json
from pipeline.runs.store import Store
from tests.report.recorded import FOLDER, OUTCOME, RECORDINGS, STORE

_DIGITS = (
    *("digits", "--target", "raspberry-pi-4b", "--target", "x86-laptop-avx2", "--target", "host", "--threads", "1"),
    *("--set", "train.epochs=12", "--set", "finetune.train.epochs=12", "--set", "prune.recovery_epochs=4"),
    *("--set", "finetune.compare_labels_per_class=[10, 100]", "--set", "prune.round_to=8"),
)
_PLANE_CARD = """
name = "plane"
title = "A bent plane with noise"
kind = "csv"
task = "regression"
target_columns = ["height"]
[files.all]
path = "plane.csv"
[input]
shape = [3]
"""
_PLANE_RECIPE = """
name = "plane"
summary = "Height of a bent plane over three numbers"
data = "plane-card.toml"
threads = 1
[network]
file = "mlp"
[train]
epochs = 60
batch_size = 32
learning_rate = 5e-3
schedule = "one-cycle"
[limits.metrics.RMSE]
max = 0.4
worse_by_percent = 20
"""


class _Watched(Store):
    """A store that remembers what was read from it and not written to it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: set[Digest] = set()
        self.written: set[Digest] = set()

    def get_array(self, digest: Digest) -> NDArray[Any]:
        """Return the array, and remember that it was asked for."""
        self.read.add(digest)
        return super().get_array(digest)

    def put_array(self, array: NDArray[Any]) -> Digest:
        """Keep an array that need not be recorded."""
        digest = super().put_array(array)
        self.written.add(digest)
        return digest


def main(names: Sequence[str]) -> None:
    """Run what is named, or everything, and write the recordings."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in names or _RECORDERS:
            _RECORDERS[name](folder)


def _digits(folder: Path) -> None:
    _record("digits", _run(folder, _DIGITS), folder)


def _plane(folder: Path) -> None:
    _write_plane(folder)
    run = _run(folder, (str(folder / "plane.toml"), "--target", "raspberry-pi-4b"))
    _record("plane", run, folder)
    own = RECORDINGS / "plane" / "data"
    own.mkdir()
    shutil.copy(folder / "plane.csv", own)


_RECORDERS = {"digits": _digits, "plane": _plane}


def _run(folder: Path, arguments: Sequence[str]) -> Path:
    out = folder / f"run-{len(list(folder.iterdir()))}"
    command = (sys.executable, "-m", "pipeline.cli", "run", *arguments, "--out", str(out))
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=_environment(folder), check=False)
    if done.returncode not in (0, 3):  # 3: a limit was missed, which is as good a report
        raise SystemExit(f"karui ended with status {done.returncode}")
    return out


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"KARUI_CACHE": str(folder / "cache")}


def _write_plane(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (500, 3))
    height = x[:, 0] - 0.5 * x[:, 1] + np.sin(2 * x[:, 2]) + rng.normal(0, 0.1, 500)
    rows = (",".join(f"{value:.4f}" for value in (*row, high)) for row, high in zip(x, height, strict=True))
    (folder / "plane.csv").write_text("\n".join(["a,b,c,height", *rows]) + "\n")
    (folder / "plane-card.toml").write_text(_PLANE_CARD)
    (folder / "plane.toml").write_text(_PLANE_RECIPE)


def _record(name: str, run: Path, folder: Path) -> None:
    outcome = load_outcome(run)
    watched = _Watched(folder / f"watched-{name}")
    shutil.copytree(store_of(run).root, watched.root)
    looked = look(outcome, load(outcome.data).test, outcome.facts.classes, watched)
    render(outcome, watched, FOLDER, looked)
    shutil.rmtree(RECORDINGS / name, ignore_errors=True)
    kept = Store(RECORDINGS / name / STORE)
    for digest in sorted(watched.read - watched.written):
        kept.put(watched.get(digest))
    (RECORDINGS / name / OUTCOME).write_bytes(to_json(_anywhere(outcome, name), indent=1) + b"\n")


def _anywhere(outcome: Outcome, name: str) -> Outcome:
    """Return the outcome without the folders of the machine that it was recorded on."""
    network = _moved(outcome.network)
    found = dataclasses.replace(
        outcome,
        run=name,
        data=dataclasses.replace(outcome.data, folder=Path("calibration_data")),
        network=network,
        trained=_with_network(outcome.trained),
        pruned=_with_checkpoint(outcome.pruned),
        finetuned=_with_checkpoint(outcome.finetuned),
        quantized={bits: _with_checkpoint(each) for bits, each in outcome.quantized.items()},
    )
    left = str(Path(__file__).parents[2]).encode()
    if left in to_json(found):
        raise SystemExit(f"{name}: the recording still names {left.decode()}")
    return found


def _moved(network: NetworkRef) -> NetworkRef:
    return dataclasses.replace(network, path=Path("models/networks") / network.path.name)


def _with_network(checkpoint: Any) -> Any:
    return checkpoint and dataclasses.replace(checkpoint, network=_moved(checkpoint.network))


def _with_checkpoint(found: Any) -> Any:
    return found and dataclasses.replace(found, checkpoint=_with_network(found.checkpoint))


if __name__ == "__main__":
    main(sys.argv[1:])
