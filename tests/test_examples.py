"""Every example runs as its README says: the data are made, the recipe ends with a file that ships, predict answers."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline import catalog
from pipeline.data.kinds import KINDS
from pipeline.instruments import here
from pipeline.runs.finished import load_outcome
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

EXAMPLES = Path(__file__).parents[1] / "examples"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/recipe.toml"))


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What an example is asked for, and what it must say."""

    inputs: str  # of its folder; .npy files are written by the test
    answer: str  # a key of each answer
    value_min: float  # of the metric of the task


EXPECTED = {
    "arrays": Expected(inputs="sensors.npz", answer="class", value_min=0.9),
    "generated": Expected(inputs="points.npy", answer="class", value_min=0.95),
    "idx": Expected(inputs="pictures.npy", answer="class", value_min=0.9),
    "masks": Expected(inputs="scenes/images", answer="shares", value_min=0.6),
    "named-arrays": Expected(inputs="rows.npy", answer="numbers", value_min=0.0),
    "pictures": Expected(inputs="shapes", answer="class", value_min=0.75),
    "table": Expected(inputs="plants.csv", answer="class", value_min=0.8),
}
SAMPLES = {"points.npy": (5, 2), "pictures.npy": (5, 12, 12), "rows.npy": (5, 12)}


def test_the_index_names_every_example() -> None:
    index = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in FOLDERS] == sorted(EXPECTED)
    for path in FOLDERS:
        assert f"[`{path.name}/`]({path.name}/)" in index
        assert f"examples/{path.name}/recipe.toml" in (path / "README.md").read_text()


def test_there_is_an_example_of_every_kind_of_data() -> None:
    assert {catalog.load_card(str(path / "data.toml"))[0].kind for path in FOLDERS} == set(KINDS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_example_runs_to_a_file_that_ships(folder: Path, karui: Karui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "SESSIONS", 2)  # what is measured does not matter here
    at = shutil.copytree(
        folder, karui.folder / "examples" / folder.name, ignore=shutil.ignore_patterns("*.npz", "*.gz")
    )
    if (at / "make_data.py").is_file():
        runpy.run_path(str(at / "make_data.py"), run_name="__main__")
    said = karui("run", f"examples/{folder.name}/recipe.toml", "--quiet", "--target", "host", "--set", "threads=1")
    assert said.status == 0, said.out + said.err
    name = f"example-{folder.name}"
    outcome = load_outcome(Path("runs") / name)
    wanted = EXPECTED[folder.name]
    assert outcome.predicted[0].answered.value >= wanted.value_min
    if wanted.inputs in SAMPLES:
        np.save(at / wanted.inputs, np.random.default_rng(0).uniform(0, 1, SAMPLES[wanted.inputs]).astype(np.float32))
    answered = karui("predict", name, at / wanted.inputs, "--json")
    assert answered.status == 0, answered.err
    answers = json.loads(answered.out)
    assert answers
    assert all(wanted.answer in each for each in answers)


def test_every_command_of_the_readmes_is_known(karui: Karui) -> None:
    for readme in (EXAMPLES / "README.md", *(path / "README.md" for path in FOLDERS)):
        for command in re.findall(r"^(python|karui) (\S+)", readme.read_text(), re.MULTILINE):
            if command[0] == "python":
                assert (EXAMPLES.parent / command[1]).is_file(), command
            else:
                assert karui(command[1], "--help").status == 0
