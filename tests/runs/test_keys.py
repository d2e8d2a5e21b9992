"""A step's key changes with what may change its result, and with nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.evidence import Place
from pipeline.artifacts.training import Epoch
from pipeline.declare.recipe import PruneSpec, TrainSpec
from pipeline.onboard.frontend import StepCall
from pipeline.runs.keys import canonical, ingredients, library_versions
from tests.runs.made import CARD, DATA, FACTS, NETWORK, SIGNATURE


def _key(**inputs: object) -> str:
    return ingredients("pipeline.declare.words", "put", inputs).key


def test_where_files_lie_is_not_in_the_key() -> None:
    assert _key(data=DATA) == _key(data=replace(DATA, folder=Path("/elsewhere")))
    assert _key(network=NETWORK) == _key(network=replace(NETWORK, path=Path("moved/net.py")))


def test_what_a_network_imports_is_in_the_key() -> None:
    helped = replace(NETWORK, imports={"helper": "1" * 64})
    assert _key(network=helped) != _key(network=NETWORK)
    assert _key(network=helped) != _key(network=replace(NETWORK, imports={"helper": "2" * 64}))


@pytest.mark.parametrize(
    "other",
    [
        {"data": replace(DATA, digest="c" * 64), "spec": TrainSpec(), "seed": 0},
        {"data": DATA, "spec": TrainSpec(epochs=11), "seed": 0},
        {"data": DATA, "spec": TrainSpec(), "seed": 1},
        {"data": DATA, "spec": TrainSpec(), "seed": 0, "more": None},
        {"data": DATA, "specs": TrainSpec(), "seed": 0},
    ],
)
def test_every_input_is_in_the_key(other: dict[str, object]) -> None:
    assert _key(data=DATA, spec=TrainSpec(), seed=0) == _key(seed=0, spec=TrainSpec(epochs=10), data=DATA)
    assert _key(data=DATA, spec=TrainSpec(), seed=0) != _key(**other)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(first=_values, second=_values)
def test_equal_values_and_only_those_share_a_key(first: object, second: object) -> None:
    assert _key(value=first) == _key(value=first)
    if canonical(first) != canonical(second):
        assert _key(value=first) != _key(value=second)


@pytest.mark.parametrize("value", [np.zeros(3), b"bytes", {1, 2}, object(), Epoch])
def test_what_has_no_stable_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a step's key"):
        _key(value=value)


def test_canonical_forms() -> None:
    assert canonical(PruneSpec(amount=0.5)) == canonical(PruneSpec().model_copy(update={"amount": 0.5}))
    assert canonical({8: (Path("a/b"), 1.5)}) == {"8": ["a/b", 1.5]}
    assert canonical(MappingProxyType({"a": 1})) == {"a": 1}
    assert canonical(SIGNATURE.output) == {"name": "output", "dtype": "float32", "shape": [3], "axes": "K"}


def test_versions_name_python_and_the_libraries() -> None:
    versions = library_versions()
    assert versions["python"].startswith("3.")
    assert versions["torch"] != "absent"


def test_an_artifact_names_the_code_that_it_needs() -> None:
    assert DATA.code_in_use == ("pipeline.data.kinds.npz", "pipeline.tasks.classification")
    other = replace(DATA, card=CARD.model_copy(update={"kind": "image-folder", "task": "two-words"}))
    assert other.code_in_use == ("pipeline.data.kinds.image_folder", "pipeline.tasks.two_words")
    assert Place(how="measured", name="a board").code_in_use == ("pipeline.instruments.here",)
    assert Place(how="estimated", name="MACs").code_in_use == ("pipeline.instruments.counts",)
    calls = (StepCall("log-mel"), StepCall("normalize"), StepCall("log-mel", {"bands": 3}))
    both = replace(FACTS, frontend={"input": calls, "second": calls[1:]})
    assert both.code_in_use == ("pipeline.onboard.frontend.log_mel", "pipeline.onboard.frontend.normalize")


# ── sources ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_FILES = {
    "__init__.py": "",
    "make.py": "from toy.parts import wheel\nfrom .deep import axle\n\ndef make(): ...\n",
    "parts/__init__.py": "",
    "parts/wheel.py": "def f():\n    import toy.parts.screw\n",
    "parts/screw.py": "import torch\nfrom pipeline import errors\nfrom pipeline.artifacts import training\n",
    "parts/unused.py": "import onnx\n",
    "deep.py": "import numpy\naxle = 1\nload = __import__('importlib').import_module('onnxruntime')\n",
}


# sources are read once per process: every question is answered by a fork that has read none yet
_ANSWERING = """
import importlib.util, json, os, sys, traceback
from pipeline.runs import keys
from tests.runs.made import *
for line in sys.stdin:
    folder, code = json.loads(line)
    if not os.fork():
        try:
            os.chdir(folder)
            sys.path.insert(0, folder)
            exec(code)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.wait()
    print("end", flush=True)
"""


class Asked:
    """A process that looks at folders with fresh eyes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, folder: Path, code: str) -> str:
        """Run ``code`` in ``folder``; return the line it prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(folder), code]) + "\n")
        self.process.stdin.flush()
        lines = list(iter(self.process.stdout.readline, "end\n"))
        assert len(lines) == 1, "it failed: see what it wrote"
        return lines[0].strip()


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    command = [sys.executable, "-c", _ANSWERING]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Asked(process)
        assert process.stdin is not None
        process.stdin.close()


def _look(asked: Asked, folder: Path, expression: str) -> str:
    return asked.run(folder, f"i = keys.ingredients('toy.make', 'make', {{}}); print({expression})")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in _FILES.items():
        file = tmp_path / "toy" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_sources_are_all_that_is_imported_and_nothing_is_loaded(toy: Path, asked: Asked) -> None:
    shown = _look(asked, toy, "sorted(i.sources), sorted(i.libraries), 'torch' in __import__('sys').modules")
    own = ["toy", "toy.deep", "toy.make", "toy.parts", "toy.parts.screw", "toy.parts.wheel"]
    assert all(f"'{name}'" in shown for name in own)
    assert "'pipeline.artifacts.training'" in shown
    assert "'pipeline.declare.words'" in shown  # through the artifacts
    assert "unused" not in shown
    assert "pipeline.errors" not in shown  # wording changes no result
    assert "pipeline.runs" not in shown
    assert shown.endswith("['numpy', 'onnxruntime', 'python', 'torch'] False")


@pytest.mark.parametrize(
    ("file", "text", "same"),
    [
        ("parts/unused.py", "changed = True\n", True),
        ("parts/screw.py", "changed = True\n", False),
        ("parts/wheel.py", '"""Wheels."""\n# import\ndef f():\n    """Turn."""\n    import toy.parts.screw\n', True),
        ("parts/wheel.py", "def f(x):\n    import toy.parts.screw\n", False),
        ("parts/wheel.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.parts.unused\n", False),
        ("parts/templates/page.html", "<html>", False),
        ("parts/page.html", "<html>", True),
    ],
)
def test_only_what_runs_changes_the_key(toy: Path, asked: Asked, file: str, text: str, same: bool) -> None:
    before = _look(asked, toy, "i.key")
    (toy / "toy" / file).parent.mkdir(exist_ok=True)
    (toy / "toy" / file).write_text(text)
    assert (_look(asked, toy, "i.key") == before) == same


def test_a_stage_without_a_file_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"nowhere\.stage"):
        ingredients("nowhere.stage", "make", {})


# ── registries: a small package called pipeline, in the place of the real one ───────────────────────────────────────

_REGISTRY = '''"""Tasks."""
from collections.abc import Mapping
from pipeline.tasks import classification
from pipeline.tasks.protocol import Task

TASKS: Mapping[str, Task] = {"classification": classification}

def named(name: str) -> Task:
    return TASKS[name]
'''
_OWN = {
    "stages/make.py": "from pipeline.tasks import named\nfrom pipeline.data.kinds import KINDS\n"
    "from pipeline.onboard.frontend import STEPS\n\ndef make(): ...\n",
    "stages/bare.py": "def bare(): ...\n",
    "stages/direct.py": "from pipeline.tasks import classification\n\ndef direct(): ...\n",
    "tasks/__init__.py": _REGISTRY,
    "tasks/protocol.py": "class Task: ...\n",
    "tasks/classification.py": "from pipeline.tasks import counting\n",
    "tasks/counting.py": "count = 1\n",
    "tasks/regression.py": "mean = 1\n",
    "data/kinds/__init__.py": "from . import npz, csv as table\nKINDS = {'npz': npz.load, 'csv': table}\n",
    "data/kinds/npz.py": "def load(): ...\n",
    "data/kinds/csv.py": "def load(): ...\n",
    "onboard/frontend/__init__.py": "from pipeline.onboard.frontend import normalize\nSTEPS = {'n': normalize.apply}\n",
    "onboard/frontend/normalize.py": "def apply(): ...\n",
    "onboard/frontend/mel.py": "def apply(): ...\n",
}
# the real keys, which find modules by path alone, with the finder looking at the small package
_SMALL = """
file, folders = "pipeline/__init__.py", ["pipeline"]
small = importlib.util.spec_from_file_location("pipeline", file, submodule_search_locations=folders)
importlib.util.find_spec = lambda name: small
i = keys.ingredients("pipeline.stages.{stage}", "make", {inputs})
print(i.key, *i.sources)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for name, text in _OWN.items():
        file = tmp_path / "pipeline" / name
        for folder in reversed(file.relative_to(tmp_path).parents[:-1]):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / "__init__.py").touch()
        file.write_text(text)
    return tmp_path


def _own(
    asked: Asked, folder: Path, inputs: str = "{'data': DATA, 'facts': FACTS}", stage: str = "make"
) -> tuple[str, set[str]]:
    key, *sources = asked.run(folder, _SMALL.format(stage=stage, inputs=inputs)).split()
    return key, {name.removeprefix("pipeline.") for name in sources}


def test_of_a_registry_only_what_inputs_name_is_followed(own: Path, asked: Asked) -> None:
    _, sources = _own(asked, own)
    assert {"tasks", "tasks.protocol", "tasks.classification", "tasks.counting"} < sources
    assert {"data.kinds.npz", "onboard.frontend.normalize"} < sources
    assert not {"tasks.regression", "data.kinds.csv", "onboard.frontend.mel"} & sources
    _, sources = _own(asked, own, "{}")
    assert {"tasks", "tasks.protocol", "data.kinds", "onboard.frontend"} < sources
    assert not {"tasks.classification", "data.kinds.npz", "onboard.frontend.normalize"} & sources
    _, sources = _own(asked, own, stage="bare")  # it uses no registry, whatever its inputs name
    assert sources == {"pipeline", "stages", "stages.bare"}
    _, sources = _own(asked, own, "{}", stage="direct")  # a use of its own, not through the registry
    assert {"tasks.classification", "tasks.counting"} < sources


@pytest.mark.parametrize(
    "edits",
    [
        [
            ("tasks/__init__.py", "import classification", "import classification, regression"),
            ("tasks/__init__.py", "classification}", 'classification, "regression": regression}'),
        ],
        [
            ("data/kinds/__init__.py", "npz, csv", "idx, npz, csv"),
            ("data/kinds/__init__.py", "'csv': table", "'csv': table, 'idx': idx.load"),
        ],
        [
            ("onboard/frontend/__init__.py", "import normalize", "import mel, normalize"),
            ("onboard/frontend/__init__.py", "normalize.apply", "normalize.apply, 'm': mel.apply"),
        ],
        [("tasks/regression.py", "mean = 1", "mean = 2")],
        [("data/kinds/csv.py", "load()", "load(file)")],
        [("onboard/frontend/mel.py", "apply()", "apply(raw)")],
        [("tasks/classification.py", "from", "# counts\nfrom")],
        [("tasks/__init__.py", "Tasks.", "What is asked.")],
    ],
)
def test_a_new_entry_is_no_news_for_others(own: Path, asked: Asked, edits: list[tuple[str, str, str]]) -> None:
    (own / "pipeline/data/kinds/idx.py").write_text("def load(): ...\n")
    before = _own(asked, own)
    for file, old, new in edits:
        _replace(own / "pipeline" / file, old, new)
    assert _own(asked, own) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("tasks/__init__.py", "TASKS[name]", "TASKS[name.lower()]"),
        ("tasks/protocol.py", "...", "METRIC = 1"),
        ("tasks/classification.py", "counting", "counting as c"),
        ("tasks/counting.py", "1", "2"),
        ("data/kinds/npz.py", "load()", "load(file)"),
        ("onboard/frontend/normalize.py", "apply()", "apply(raw)"),
    ],
)
def test_what_is_in_use_is_news(own: Path, asked: Asked, file: str, old: str, new: str) -> None:
    before, _ = _own(asked, own)
    _replace(own / "pipeline" / file, old, new)
    after, _ = _own(asked, own)
    assert after != before


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# ── the stages as they are ──────────────────────────────────────────────────────────────────────────────────────────

_HERE = Place(how="measured", name="a board")


def _sources(stage: str, **inputs: object) -> set[str]:
    return set(ingredients(f"pipeline.stages.{stage}", stage, inputs).sources)


@pytest.mark.parametrize("stage", ["describe", "threads", "check", "train", "finetune", "prune", "quantize", "export"])
def test_a_new_target_key_makes_no_network_anew(stage: str) -> None:
    assert "pipeline.declare.target" not in _sources(stage, data=DATA, facts=FACTS, place=_HERE)


@pytest.mark.parametrize("stage", ["train", "finetune", "quantize", "predict", "observe"])
def test_stages_need_the_code_of_their_data_and_task_alone(stage: str) -> None:
    sources = _sources(stage, data=DATA, facts=FACTS)
    assert {*DATA.code_in_use, *FACTS.code_in_use} <= sources
    assert not {"pipeline.data.kinds.csv", "pipeline.tasks.regression", "pipeline.tasks.segmentation"} & sources


def test_pruning_needs_the_code_of_the_instrument_that_it_is_handed() -> None:
    assert "pipeline.instruments.here" in _sources("prune", data=DATA, place=_HERE)
    assert "pipeline.instruments.here" not in _sources("prune", data=DATA, place=Place(how="estimated", name="MACs"))


def test_judging_opens_no_data() -> None:
    sources = _sources("judge")
    assert not [name for name in sources if name.startswith(("pipeline.data", "pipeline.runtimes", "pipeline.tasks"))]
