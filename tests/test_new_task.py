"""A new task is one new file and one line: shown on a copy of the package, run to a verdict by the command line.

Runs of other tasks take no notice of it: they are recalled whole.

Shapes: N samples, n of a batch, H height, W width.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
LEVELS = 5
PICTURES = 1600  # 480 to test with: enough to show that int8 loses less than the target allows

ORDINAL = '''"""Levels in an order (calm, breezy, stormy): one number, rounded; judged by how many levels it is off.

Shapes: N samples, n of a batch, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.artifacts.evidence import Answers, Comparison, Figure, Metric
from pipeline.data.source import Source, Wanted
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import TrainSpec
from pipeline.judging import stats
from pipeline.artifacts.evidence import Interval
from pipeline.judging.stats import Floats
from pipeline.onboard.about import Output
from pipeline.onboard.arrays import Predict, Signature
from pipeline.tasks.confusion import confusion, matrices
from pipeline.tasks.protocol import (
    OUTPUT,
    Prepare,
    Put,
    Update,
    all_parameters,
    batched,
    input_spec,
    labels_of,
    mean_of,
    output_spec,
)

METRIC = Metric(name="MAE", unit="", higher_is_better=False)
OTHERS: tuple[Metric, ...] = (Metric(name="worst", unit="", higher_is_better=False),)
WANTED: Wanted = "class"


def signature(card: DatasetCard, classes: tuple[str, ...], wanted: tuple[int, ...], /) -> Signature:
    """Ask for one number."""
    return Signature(inputs=(input_spec(card),), outputs=(output_spec((1,), "T"),))


def updates(plan: TrainSpec, /, *, teacher: Any = None, weight: float = 0.0) -> tuple[Update, ...]:
    """Absolute distance to the level, mixed with that to the teacher's number."""
    import torch  # noqa: PLC0415

    def loss(network: Any, inputs: Any, wanted: Mapping[str, Any]) -> Any:
        numbers = network(inputs)[:, 0]  # (n,)
        hard = (numbers - wanted[WANTED]).abs().mean()
        if teacher is None:
            return hard
        with torch.no_grad():
            aim = teacher(inputs)[:, 0]
        return weight * (numbers - aim).abs().mean() + (1 - weight) * hard

    return (Update(parameters=all_parameters, loss=loss),)


def exported(network: Any, /) -> Any:
    """Ship the whole network."""
    return network


def answer(
    predict: Predict, source: Source, prepare: Prepare, /, *, chosen: Mapping[str, float] | None = None
) -> Answers:
    """Decide for the nearest level; score: levels off."""
    outputs, labels = batched(predict, source, prepare), labels_of(source, WANTED)
    levels = np.rint(np.clip(outputs[OUTPUT][:, 0], 0, LEVELS - 1)).astype(np.int64)  # (N,)
    off = np.abs(levels - labels).astype(np.float64)
    others = {"worst": float(off.max())}
    return Answers(outputs=outputs, decisions=levels, score=off, value=float(off.mean()), others=others)


def choose(answers: Answers, source: Source, /) -> Mapping[str, float]:
    """Return nothing."""
    return {}


def interval(answers: Answers, source: Source, /) -> Interval:
    """Return the mean with its bootstrap interval."""
    return stats.bootstrap_interval(lambda n: mean_of(answers.score, n), len(answers.score), groups=source.groups)


def baselines(source: Source, /) -> Mapping[str, float]:
    """Return how far off naming the middle level is."""
    return {"middle level": float(np.abs(labels_of(source, WANTED) - 2).mean())}


def legacy_names(comparison: Comparison, /) -> Mapping[str, float]:
    """Return no further names."""
    return {}


def compare(first: Answers, second: Answers, source: Source, /) -> Comparison:
    """Compare the levels off, samples resampled for both together."""

    def both(counts: Floats) -> tuple[Floats, Floats]:
        return mean_of(first.score, counts), mean_of(second.score, counts)

    same = float(np.mean(first.decisions == second.decisions))
    return stats.paired_bootstrap(both, len(first.score), agreement=same, groups=source.groups)


def figures(
    answers: Mapping[str, Answers], source: Source, classes: tuple[str, ...], put: Put, /
) -> tuple[Figure, ...]:
    """Return which level is taken for which."""
    labels = labels_of(source, WANTED)
    counts = {title: confusion(labels, each.decisions, len(classes)) for title, each in answers.items()}
    return matrices(counts, classes, put)


def printing(output: Output, chosen: Mapping[str, float], /) -> tuple[str, ...]:
    """Print the nearest level."""
    return ("print(labels[int(np.rint(np.clip(y[0, 0], 0, LEVELS - 1)))])",)
'''.replace("LEVELS - 1", f"{LEVELS} - 1")

CARD = """
name = "{task}-levels"
title = "Pictures of five brightnesses"
kind = "npz"
task = "{task}"
classes = ["night", "dusk", "cloud", "day", "noon"]
[files.all]
path = "levels.npz"
[input]
shape = [1, 4, 4]
divide = 255
[split]
test = 0.3
[calibration]
samples = 64
"""
RECIPE = """
name = "{task}-levels"
data = "{task}-levels"
threads = 1
[network]
file = "mlp"
options = {{ hidden = "16" }}
[train]
epochs = 10
batch_size = 16
learning_rate = 0.02
[quantize]
epochs = 1
margin_pp = 100
[limits.metrics.{limits}
"""


class Copy:
    """A copy of the project, and a user's folder with pictures to work on."""

    def __init__(self, folder: Path) -> None:
        self.project, self.work = folder / "project", folder / "work"
        for name in ("pipeline", "models", "targets", "calibration_data"):
            shutil.copytree(ROOT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("models", "calibration_data"):
            (self.work / name).mkdir(parents=True)
        rng = np.random.default_rng(0)
        levels = np.arange(PICTURES) % LEVELS
        pictures = 40 + 40 * levels[:, None, None, None] + rng.integers(-20, 21, (PICTURES, 1, 4, 4))  # (N, 1, H, W)
        np.savez(self.work / "calibration_data" / "levels.npz", x=pictures.astype(np.uint8), y=levels)

    def declare(self, task: str, limits: str) -> None:
        """Write a card and a recipe for this task on the same pictures."""
        (self.work / "calibration_data" / f"{task}-levels.toml").write_text(CARD.format(task=task))
        (self.work / "models" / f"{task}-levels.toml").write_text(RECIPE.format(task=task, limits=limits))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the copy's command line in the user's folder."""
        env = {**os.environ, "PYTHONPATH": str(self.project), "KARUI_TFLITE_RUNTIME": "no-such-python"}
        command = (sys.executable, "-m", "pipeline.cli", "run", *arguments, "--target", "raspberry-pi-4")
        return subprocess.run(command, cwd=self.work, env=env, capture_output=True, text=True, check=False)

    def add_ordinal(self) -> list[str]:
        """Add the task; return the lines of the registry that are new."""
        (self.project / "pipeline" / "tasks" / "ordinal.py").write_text(ORDINAL)
        registry = self.project / "pipeline" / "tasks" / "__init__.py"
        before = registry.read_text()
        after = before.replace("binary, classification,", "binary, classification, ordinal,").replace(
            '    "regression": regression,\n', '    "ordinal": ordinal,\n    "regression": regression,\n'
        )
        registry.write_text(after)
        return sorted(set(after.splitlines()) - set(before.splitlines()))


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


def test_a_task_is_one_file_and_one_line_and_reruns_nobody(copy: Copy) -> None:
    copy.declare("classification", "accuracy]\nmin = 0.3")
    copy.declare("ordinal", "MAE]\nmax = 1.0\nworse_by = 0.5\n[limits.metrics.worst]\nmax = 4")
    first = document(copy.run("classification-levels", "--json"))
    unknown = copy.run("ordinal-levels")
    assert unknown.returncode == 2
    assert "there is no task 'ordinal'" in unknown.stderr

    new = copy.add_ordinal()
    assert len(new) == 2  # its name in the import and its entry in TASKS
    assert all("ordinal" in line for line in new)
    made = document(copy.run("ordinal-levels", "--json"))
    assert made["metric"] == {"name": "MAE", "unit": "", "higher_is_better": False}
    assert {"MAE (fp32)", "MAE (int8)"} <= {check["name"] for check in made["targets"][0]["checks"]}
    assert all(check["state"] == "met" for check in made["targets"][0]["checks"] if "MAE" in check["name"])
    assert made["targets"][0]["ship"]["artifact"] is not None
    assert made["comparison"]["value_float"] < 0.5  # chance is 1.6 levels
    page = (copy.work / "runs" / "ordinal-levels" / "report.html").read_text(encoding="utf-8")
    assert "MAE" in page
    assert "Confusion" in page

    again = copy.run("classification-levels", "--json")
    assert document(again) == first
    stages = [line for line in again.stderr.splitlines() if "recalled" in line or " s  " in line]
    assert len(stages) >= 10
    assert not [line for line in stages if "recalled" not in line]
