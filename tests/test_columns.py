"""Running several ways over one source, and how far they agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.columns import TORCH_FLOAT, Ran, Way, agreement, column, per_class, run_all, torch_way
from pipeline.data.source import ArraySource
from pipeline.progress import Silent
from pipeline.spec import InputSpec
from pipeline.store import Store

Floats = NDArray[np.float32]
SPEC = InputSpec.model_validate({"shape": (3,), "divide": 2.0, "mean": (1.0,), "std": (0.5,)})


def ran(outputs: list[list[float]], *, scale: float | None = None, name: str = "onnx-int8") -> Ran:
    way = Way(artifact=name, runtime="r 1", output_scale=scale, run=lambda x: x)
    array = np.array(outputs, np.float32)
    return Ran(way=way, outputs=array, correct=array.argmax(1) == 0)


@pytest.mark.parametrize("samples", [1, 512, 1300])  # one, a whole portion, several and a part
def test_every_way_sees_every_normalized_sample_once_and_in_order(samples: int) -> None:
    raw = np.random.default_rng(0).integers(0, 255, (samples, 3)).astype(np.uint8)
    seen: list[Floats] = []

    def run(x: Floats) -> Floats:
        seen.append(x)
        return -x

    ways = {
        "a": Way(artifact="a", runtime="r", output_scale=None, run=run),
        "b": torch_way(TORCH_FLOAT, torch.nn.Identity()),
    }
    labels = np.zeros(samples, np.int64)
    got = run_all(ways, ArraySource(samples=raw, labels=labels), SPEC, Silent())
    wanted = (raw.astype(np.float32) / 2 - 1) / 0.5
    np.testing.assert_array_equal(np.concatenate(seen), wanted)
    np.testing.assert_array_equal(got["a"].outputs, -wanted)
    np.testing.assert_array_equal(got["b"].outputs, wanted)
    np.testing.assert_array_equal(got["b"].correct, wanted.argmax(1) == 0)
    assert all(len(part) <= 512 for part in seen)  # streamed


def test_torch_runs_in_evaluation_mode_without_gradients() -> None:
    way = torch_way(TORCH_FLOAT, torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(3, 2)).train())
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(way.run(x), way.run(x))
    assert way.runtime.startswith("torch 2.")


def test_agreement_counts_output_steps() -> None:
    first = ran([[0.0, 0.5], [1.0, 0.5]], scale=0.1, name="torch-fake-quant")
    second = ran([[0.0, 0.7000001], [0.4, 0.5]], scale=0.1)
    got = agreement(first, second)
    assert (got.first, got.second) == ("torch-fake-quant", "onnx-int8 in r 1")
    assert (got.same_class, got.max_steps) == (0.5, 6.0)


def test_without_a_scale_the_range_is_divided_by_255() -> None:
    got = agreement(ran([[0.0, 255.0]]), ran([[2.0, 255.0]]))
    assert got.max_steps == 2.0
    assert agreement(ran([[1.0, 1.0]]), ran([[1.0, 1.0]])).max_steps == 0.0


def test_a_column_keeps_its_outputs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = ran([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], scale=0.1)
    got = column(one, store)
    assert got.accuracy == 0.75
    assert got.low < 0.75 < got.high
    np.testing.assert_array_equal(store.get_array(got.outputs), one.outputs)


def test_recall_per_class() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    float_run = Ran(way=ran([[0.0]]).way, outputs=np.zeros((5, 3), np.float32), correct=np.array([1, 1, 1, 0, 0], bool))
    rows = per_class(("a", "b", "absent"), labels, float_run, None)
    assert rows == (("a", 2, 1.0, None), ("b", 3, 1 / 3, None), ("absent", 0, 0.0, None))
    assert per_class(("a", "b"), labels, float_run, float_run)[1][3] == pytest.approx(1 / 3)
