"""Data from a Python file: what it may do, what it may return, and whose line is to blame."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.load import load, reference
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError, DataError
from tests.data.kinds.test_idx import idx_bytes
from tests.data.sets import card, classes_in, loaded, samples

GENERATOR = '''
"""Points of two kinds."""
import numpy as np
from shapes import spread

classes = ("left", "right")

def load(*, seed, count=40, far=3.0):
    random = np.random.default_rng(seed)
    y = np.arange(count) % 2
    return {"x": (far * y[:, None] + spread(random, count)).astype("float32"), "y": y}
'''
HELPER = """
def spread(random, count):
    return random.normal(0, 0.1, (count, 2))
"""


def write(folder: Path, text: str = GENERATOR, helper: str = HELPER) -> Path:
    (folder / "points.py").write_text(text)
    (folder / "shapes.py").write_text(helper)
    return folder


def points(**more: Any) -> DatasetCard:
    return card("python", (2,), file="points.py", **more)


def test_a_file_with_a_helper_makes_the_data_set(tmp_path: Path) -> None:
    dataset = loaded(points(options={"far": 5.0}), write(tmp_path))
    assert dataset.classes == ("left", "right")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [24, 8, 8]
    assert np.array_equal(samples(dataset.train)[:, 0] > 2.5, classes_in(dataset.train) == 1)
    assert samples(dataset.train).max() > 4.5  # the card's option, not the default


def test_the_seed_is_that_of_the_split(tmp_path: Path) -> None:
    write(tmp_path)
    first, again, other = (
        samples(loaded(points(split={"seed": seed, "val": 8, "test": 8}), tmp_path).train) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_nothing_of_it_is_left_behind(tmp_path: Path) -> None:
    before, path = set(sys.modules), list(sys.path)
    loaded(points(), write(tmp_path))
    assert not {name for name in set(sys.modules) - before if name.startswith(("karui_data", "shapes"))}
    assert sys.path == path
    assert not list(tmp_path.rglob("__pycache__"))


def test_another_folder_may_have_a_helper_of_the_same_name(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        write(
            tmp_path / name, helper=f"def spread(random, count):\n    return {value} + 0 * random.random((count, 2))\n"
        )
    assert samples(loaded(points(), tmp_path / "a").train).min() == 1
    assert samples(loaded(points(), tmp_path / "b").train).min() == 2
    assert samples(loaded(points(), tmp_path / "a").train).min() == 1


def test_a_dataclass_in_the_file_works(tmp_path: Path) -> None:
    text = GENERATOR.replace(
        "classes =", "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int = 1\n\nclasses ="
    )
    assert len(loaded(points(), write(tmp_path, text)).train) == 24


# ── the digest ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_digest_is_of_code_options_and_seed(tmp_path: Path) -> None:
    write(tmp_path)
    digest = reference(points(), tmp_path).digest
    assert reference(points(), tmp_path).digest == digest
    assert reference(points(options={"far": 4.0}), tmp_path).digest != digest
    assert reference(points(split={"seed": 1}), tmp_path).digest != digest
    write(tmp_path, GENERATOR.replace("Points of two kinds", "Two clouds") + "# a comment\n")
    assert reference(points(), tmp_path).digest == digest
    write(tmp_path, GENERATOR.replace("far=3.0", "far=3.5"))
    assert reference(points(), tmp_path).digest != digest


def test_editing_a_helper_changes_the_digest_and_the_data(tmp_path: Path) -> None:
    write(tmp_path)
    before = reference(points(), tmp_path)
    first = samples(load(before).train)
    write(tmp_path, helper=HELPER.replace("0.1", "0.2"))
    with pytest.raises(DataError, match="the files changed while this run was using them"):
        load(before)
    assert not np.array_equal(samples(load(reference(points(), tmp_path)).train), first)


def test_moving_the_file_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    digest = reference(points(), tmp_path).digest
    (tmp_path / "code").mkdir()
    for name in ("points.py", "shapes.py"):
        (tmp_path / name).rename(tmp_path / "code" / name)
    assert reference(card("python", (2,), file="code/points.py"), tmp_path).digest == digest


def test_a_fingerprint_is_part_of_the_digest(tmp_path: Path) -> None:
    text = (
        GENERATOR
        + "\nfrom pathlib import Path\ndef fingerprint():\n    return Path(__file__).with_name('v').read_text()\n"
    )
    write(tmp_path, text)
    (tmp_path / "v").write_text("1")
    digest = reference(points(), tmp_path).digest
    (tmp_path / "v").write_text("2")
    assert reference(points(), tmp_path).digest != digest


def test_without_a_fingerprint_the_file_is_not_run_to_recall(tmp_path: Path) -> None:
    write(tmp_path, "print('running')\nraise SystemError('run')\n")
    assert reference(points(), tmp_path).digest


# ── other data ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_of_the_card_are_handed_over(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(idx_bytes((20, 2), bytes(range(40))))
    text = (
        "from pipeline.data.kinds.idx import read_idx\n"
        "def load(*, seed, files):\n    x = read_idx(files['raw'])\n    return {'x': x, 'y': x[:, 0] // 2 % 2}\n"
    )
    write(tmp_path, text)
    declared = points(files={"raw": {"path": "raw"}})
    before = reference(declared, tmp_path)
    assert samples(load(before).train).dtype == np.uint8
    (tmp_path / "raw").write_bytes(idx_bytes((20, 2), bytes(range(1, 41))))
    assert reference(declared, tmp_path).digest != before.digest


def test_own_splits_groups_and_masks(tmp_path: Path) -> None:
    text = """
import numpy as np
def load(*, seed):
    made = {"groups_train": np.array(list("aaabbbccc")), "unknown": 3}
    for split, n in (("train", 9), ("val", 4), ("test", 5)):
        made[f"x_{split}"] = np.zeros((n, 1, 4, 4), "uint8")
        made[f"y_{split}"] = np.full((n, 4, 4), n % 3)
    return made
"""
    declared = card("python", (1, 4, 4), file="points.py", task="segmentation", classes=["a", "b", "c"])
    dataset = loaded(declared, write(tmp_path, text))
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [9, 4, 5]
    assert (dataset.test.wanted(np.arange(5))["mask"] == 2).all()
    assert dataset.train.groups is not None
    assert dataset.train.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.train.strata is None


def test_numbers_to_predict(tmp_path: Path) -> None:
    text = "import numpy as np\ndef load(*, seed):\n    return {'x': np.ones((20, 2)), 'y': np.arange(20.0) * 10}\n"
    dataset = loaded(points(task="regression", target_divide=10), write(tmp_path, text))
    found = [dataset.train, dataset.val, dataset.test]
    numbers = np.concatenate([split.wanted(np.arange(len(split)))["number"] for split in found])
    assert (numbers.dtype.str, numbers.shape) == ("<f4", (20, 1))
    assert sorted(numbers[:, 0].tolist()) == list(range(20))
    assert dataset.classes == ()


# ── mistakes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "helper", "says"),
    [
        (GENERATOR.replace("count) % 2", "count).kind"), HELPER, r"points\.py:10: load\(\) raised Attr.*'kind'"),
        (GENERATOR, "def spread(*_):\n    raise ValueError('far')\n", r"shapes\.py:2: load\(\) raised ValueError: far"),
        (GENERATOR, "1 / 0\n", r"shapes\.py:1: importing it raised ZeroDivisionError"),
        ("import nowhere\n", HELPER, r"points\.py:1: importing it raised .*: No module named 'nowhere'"),
        ("def load(*, seed):\n    return [1, 2\n", HELPER, r"points\.py:2: importing it raised SyntaxError"),
        ("a = 1\n", HELPER, r"points\.py: has no function 'load'"),
        ("def load(*, seed):\n    return [1, 2]\n", HELPER, r"points\.py: load\(\) returned list, expected arrays"),
        ("def load(*, seed):\n    return {'x': [[1, 2]] * 20}\n", HELPER, r"points\.py: holds no array 'y', found x"),
        (
            "def load(*, seed):\n    return {'x': [[1, 2, 3]] * 20, 'y': [0, 1] * 10}\n",
            HELPER,
            r"points\.py: x: samples have the shape \(3,\), expected \(2,\)",
        ),
        (
            "def load(*, seed):\n    return {'x': [[1, float('nan')]] * 20, 'y': [0, 1] * 10}\n",
            HELPER,
            r"points\.py: x: sample 0 holds nan",
        ),
        ("def load(*, seed):\n    return {'x': [['a', 'b']] * 20, 'y': [0, 1] * 10}\n", HELPER, "expected numbers"),
        ("def load(*, seed, speed):\n    return {}\n", HELPER, r"load\(\) raised TypeError: .*'speed'"),
    ],
    ids=range(12),
)  # fmt: skip
def test_the_line_to_blame_is_named(tmp_path: Path, text: str, helper: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        loaded(points(), write(tmp_path, text, helper))
    assert caught.value.remedy


def test_a_file_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'points\.py' of the data set 'set' is missing") as caught:
        reference(points(), tmp_path)
    assert str(tmp_path / "points.py") in caught.value.remedy
    assert "calibration_data" in caught.value.remedy


def test_keys_of_the_card(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match="set: the top level needs 'file'"):
        reference(card("python", (2,)), tmp_path)
    with pytest.raises(ConfigError, match="the top level has no 'fil'; did you mean 'file'"):
        reference(card("python", (2,), fil="points.py"), tmp_path)
    with pytest.raises(ConfigError, match=r"classes = \['up', 'down'\]: expected \['left', 'right'\]"):
        loaded(points(classes=["up", "down"]), tmp_path)
    with pytest.raises(ConfigError, match=r"\[input\] needs 'shape'"):
        reference(
            DatasetCard.model_validate({"name": "set", "title": "", "kind": "python", "file": "points.py"}), tmp_path
        )
