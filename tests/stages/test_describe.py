"""The step ``data``: what networks for a data set take and give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.data.load import reference
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.arrays import TensorSpec
from pipeline.onboard.frontend import StepCall
from pipeline.progress import Silent
from pipeline.runs.records import from_json, to_json
from pipeline.runs.run import Work
from pipeline.runs.store import Store
from pipeline.stages.describe import describe
from tests.data.sets import all_of, labels, pictures, write_npz

SHAPE = (1, 4, 4)


def described(folder: Path, **more: Any) -> DataFacts:
    keys = {"kind": "npz", "files": all_of("s.npz"), "split": {"val": 0.2, "test": 0.2}, **more}
    return facts_of(reference(DatasetCard.model_validate({"name": "set", "title": "", **keys}), folder), folder)


def facts_of(data: DataRef, folder: Path) -> DataFacts:
    work = Work(store=Store(folder / "store"), scratch=folder, progress=Silent())
    return describe(work, data=data)


def test_pictures_of_classes(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30), y=labels(30))
    facts = described(tmp_path, input={"shape": SHAPE, "divide": 255, "mean": [0.5]})
    assert facts.samples == {"train": 18, "val": 6, "test": 6}
    assert facts.classes == ("0", "1", "2")
    assert facts.signature.input == TensorSpec("input", "float32", SHAPE, "CHW")
    assert facts.signature.output == TensorSpec("output", "float32", (3,), "K")
    assert facts.frontend == {"input": (StepCall("normalize", {"divide": 255.0, "mean": [0.5], "std": [1.0]}),)}
    assert facts.summary == "18 train, 6 val, 6 test; 3 classes"
    assert not list(tmp_path.glob("store/*"))


def test_facts_survive_being_written_down(tmp_path: Path) -> None:
    rows = ["size,place,price", *(f"{'' if i % 7 == 3 else i},{'ab'[i % 2]},{i}" for i in range(40))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    facts = described(
        tmp_path,
        kind="csv",
        task="regression",
        files=all_of("t.csv"),
        target_columns=["price"],
        missing="median",
        categories={"place": "auto"},
        input={"normalize": "train", "clip": 4},
    )
    assert from_json(DataFacts, to_json(facts)) == facts
    assert [call.step for call in facts.frontend["input"]] == ["fill", "one_hot", "normalize", "clip"]
    assert facts.signature.input == TensorSpec("input", "float32", (3,), "F")
    assert facts.signature.output == TensorSpec("output", "float32", (1,), "T")
    assert facts.summary == "24 train, 8 val, 8 test"


def test_masks_ask_for_a_map_per_class(tmp_path: Path) -> None:
    masks = np.arange(30 * 16).reshape(30, 4, 4) % 3
    write_npz(tmp_path / "s.npz", x=pictures(30), y=masks)
    facts = described(tmp_path, task="segmentation", input={"shape": SHAPE})
    assert facts.signature.output.shape == (3, 4, 4)
    assert facts.classes == ("0", "1", "2")


def test_several_inputs_are_in_the_signature(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", camera=pictures(30), speed=np.arange(60.0).reshape(30, 2), y=labels(30))
    facts = described(tmp_path, inputs={"camera": {"shape": SHAPE}, "speed": {"shape": [2], "normalize": "train"}})
    assert facts.signature.inputs == (
        TensorSpec("camera", "float32", SHAPE, "CHW"),
        TensorSpec("speed", "float32", (2,), "F"),
    )
    assert facts.signature.output.shape == (3,)
    assert set(facts.frontend) == {"camera", "speed"}


def test_measured_numbers_are_the_same_each_time(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(3, 2, (3000, 5)).astype(np.float32)
    write_npz(tmp_path / "s.npz", x=x, y=labels(3000))
    first = described(tmp_path, input={"shape": [5], "normalize": "train"})
    assert described(tmp_path, input={"shape": [5], "normalize": "train"}) == first
    settings = first.frontend["input"][0].settings
    # of 1,800 samples: 2 / sqrt(1800) = 0.05 is one standard error of a mean
    assert np.abs(np.array(settings["mean"]) - 3).max() < 0.25
    assert np.abs(np.array(settings["std"]) - 2).max() < 0.25


def test_measuring_in_portions_is_measuring_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # far from zero beside its spread: the sum of squares would have lost all digits in float32
    x = np.random.default_rng(0).normal(1e5, 1, (1000, 1, 2, 2)).astype(np.float32)
    write_npz(
        tmp_path / "s.npz", x_train=x, y_train=labels(1000), x_val=x, y_val=labels(1000), x_test=x, y_test=labels(1000)
    )
    monkeypatch.setattr("pipeline.data.frontend._AT_ONCE", 33)
    settings = described(tmp_path, input={"shape": [1, 2, 2], "normalize": "train"}).frontend["input"][0].settings
    assert settings["mean"] == [float(np.float32(x.astype(np.float64).mean()))]
    assert settings["std"] == pytest.approx([x.astype(np.float64).std()], rel=1e-6)


@pytest.mark.parametrize("divide", [1, 16, 255])
def test_bytes_are_measured_as_the_numbers_that_they_are(tmp_path: Path, divide: int) -> None:
    x = pictures(300, (3, 5, 4))
    x[:, 1], x[:, 2] = x[:, 1] % 2, 7  # 0 and 1 alone, and one value alone
    write_npz(tmp_path / "s.npz", x=x, y=labels(300))
    write_npz(tmp_path / "wide.npz", x=x.astype(np.int32), y=labels(300))
    found, wide = (
        described(tmp_path, files=all_of(name), input={"shape": [3, 5, 4], "divide": divide, "normalize": "train"})
        for name in ("s.npz", "wide.npz")
    )
    assert found.frontend == wide.frontend
    settings = found.frontend["input"][0].settings
    assert settings["mean"][2] == float(np.float32(np.float32(7) / np.float32(divide)))
    assert settings["std"][2] == 1
    assert ((settings["mean"][1], settings["std"][1]) == (0, 1)) == (divide == 1)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_values_that_preprocessing_makes_infinite(tmp_path: Path, split: str) -> None:
    arrays: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        arrays |= {f"x_{name}": np.ones((3000, 2), np.float32), f"y_{name}": labels(3000)}
    arrays[f"x_{split}"][2999, 1] = 1e38  # finite as it is stored, not when it is divided by a thousandth
    write_npz(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=r"sample 2999 is inf at \(1,\) of 'input' after preprocessing") as caught:
        described(tmp_path, input={"shape": [2], "divide": 0.001})
    assert caught.value.where == f"{tmp_path / 's.npz'} ({split})"


def test_bytes_that_preprocessing_makes_infinite(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30), y=labels(30))
    with pytest.raises(DataError, match="a sample is inf at"):
        described(tmp_path, input={"shape": SHAPE, "std": [1e-38]})


def test_a_task_that_the_card_cannot_mean(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30), y=labels(30))
    with pytest.raises(ConfigError, match="task binary needs one of exactly two classes"):
        described(tmp_path, task="binary", input={"shape": SHAPE})
