"""Shared by all tests: one torch thread (the suite runs in parallel), and small recipes that use every stage."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

PRINTED = """
name = "tiny-printed"
data = "printed-digits"
threads = 1
[network]
file = "cnn"
options = { width = 16, stages = 2, convs_per_stage = 1 }
[train]
epochs = 1
batch_size = 128
"""

TINY = """
name = "tiny"
data = "digits"
threads = 1
[network]
file = "cnn"
options = { width = 16, stages = 2, convs_per_stage = 1 }
[finetune]
start = "recipe:tiny-printed.toml"
compare_labels_per_class = [10]
[finetune.train]
epochs = 2
batch_size = 64
[train]
epochs = 2
batch_size = 64
[prune]
amount = 0.5
decide_by = "macs"
recovery_epochs = 1
margin_pp = 100
[quantize]
epochs = 1
margin_pp = 100
[limits]
accuracy_min = 0.1
accuracy_drop_pp = 100
"""


# the processes that tests start are many, and each would compile the package anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# a shell lets what it starts in the background ignore Ctrl-C, and nohup SIGHUP; tests send these to processes of theirs
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# files whose tests take minutes start first, so that no worker is left alone with one at the end
LONG = (
    "test_must_hold.py",
    "test_flow.py",
    "test_recipes.py",
    "test_own_files.py",
    "test_bad_input.py",
    "test_interrupted.py",
    "test_streams.py",
    "test_new_task.py",
    "test_examples.py",
    "test_integers.py",
    "test_pruning.py",
    "test_alone.py",
    "test_fuzz.py",
    "test_predict.py",  # makes the runs of tests/handed, for which others would wait
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the long files first."""
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONG)))


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Keep tests that run beside each other from fighting for the cores, in child processes too."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def no_shared_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what other runs on this machine have done out of the tests."""
    monkeypatch.delenv("KARUI_CACHE", raising=False)


@pytest.fixture(autouse=True, scope="session")
def no_own_times(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the times of boards that somebody has added for estimates out of the tests, in child processes too."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("user-data"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Write a recipe that goes through every stage in seconds; return its path."""
    (tmp_path / "tiny-printed.toml").write_text(PRINTED)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    return recipe
