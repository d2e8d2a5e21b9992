"""A step's key changes with what may change its result, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import DataRef, Epoch, NetworkRef
from pipeline.keys import canonical, ingredients, library_versions
from pipeline.spec import DatasetCard, InputSpec, PruneSpec, TrainSpec

CARD = DatasetCard(name="dots", title="Dots", kind="npz", input=InputSpec(shape=(1, 4, 4)))
DATA = DataRef(card=CARD, digest="a" * 64, folder=Path("/data"))
NETWORK = NetworkRef(sha256="b" * 64, options={"width": 8}, input_shape=(1, 4, 4), classes=3, path=Path("net.py"))


def _key(**inputs: object) -> str:
    return ingredients("pipeline.store", "put", inputs).key


def test_where_files_lie_is_not_in_the_key() -> None:
    assert _key(data=DATA) == _key(data=replace(DATA, folder=Path("/elsewhere")))
    assert _key(network=NETWORK) == _key(network=replace(NETWORK, path=Path("moved/net.py")))


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


def test_versions_name_python_and_the_libraries() -> None:
    versions = library_versions()
    assert versions["python"].startswith("3.")
    assert versions["torch"] != "absent"


# ── sources, in a process of its own each time: sources are read once per process ───────────────────────────────────

_FILES = {
    "__init__.py": "",
    "make.py": "from toy.parts import wheel\nfrom .deep import axle\n\ndef make(): ...\n",
    "parts/__init__.py": "",
    "parts/wheel.py": "def f():\n    import toy.parts.screw\n",
    "parts/screw.py": "import torch\nfrom pipeline import errors, store\n",
    "parts/unused.py": "import onnx\n",
    "deep.py": "axle = 1\nload = __import__('importlib').import_module('onnxruntime')\n",
}


def _look(folder: Path, expression: str) -> str:
    code = f"from pipeline.keys import ingredients; i = ingredients('toy.make', 'make', {{}}); print({expression})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder, env={"PYTHONPATH": "."}
    )
    return done.stdout.strip()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in _FILES.items():
        file = tmp_path / "toy" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_sources_are_all_that_is_imported_and_nothing_is_loaded(toy: Path) -> None:
    shown = _look(toy, "sorted(i.sources), sorted(i.libraries), 'torch' in __import__('sys').modules")
    own = ["toy", "toy.deep", "toy.make", "toy.parts", "toy.parts.screw", "toy.parts.wheel"]
    assert all(f"'{name}'" in shown for name in own)
    assert "'pipeline.store'" in shown
    assert "'pipeline.artifacts'" in shown  # through the store
    assert "unused" not in shown
    assert "pipeline.errors" not in shown  # wording changes no result
    assert shown.endswith("['numpy', 'onnxruntime', 'python', 'torch'] False")


def test_only_sources_that_are_imported_change_the_key(toy: Path) -> None:
    before = _look(toy, "i.key")
    (toy / "toy/parts/unused.py").write_text("changed = True\n")
    assert _look(toy, "i.key") == before
    (toy / "toy/parts/screw.py").write_text("changed = True\n")
    assert _look(toy, "i.key") != before


def test_a_stage_without_a_file_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"nowhere\.stage"):
        ingredients("nowhere.stage", "make", {})
