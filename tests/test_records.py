"""Every artifact comes back from JSON as it went in."""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import artifacts
from pipeline.artifacts import (
    Checkpoint,
    DataRef,
    Epoch,
    Finetuned,
    LayerQuality,
    NetworkRef,
    Outcome,
    Pruned,
    PruneStep,
    Quantized,
    SparsityTrial,
    StageNote,
)
from pipeline.records import digests_in, from_json, refreshed, summary_of, to_json
from pipeline.spec import DatasetCard, InputSpec, SplitSpec

CARD = DatasetCard(
    name="dots",
    title="Punkte ・ dots",
    kind="npz",
    input=InputSpec(shape=(3, 4, 4), mean=(0.5, 0.25, 0.0), std=(1.0, 2.0, 1 / 3)),
    split=SplitSpec(val=500, test=0.25),
)
NETWORK = NetworkRef(sha256="b" * 64, options={"width": 8}, input_shape=(3, 4, 4), classes=3, path=Path("net.py"))
CHECKPOINT = Checkpoint(network=NETWORK, weights="c" * 64, val_accuracy=0.975)
EPOCH = Epoch(phase="", index=1, learning_rate=0.1, train_loss=1.0, val_accuracy=0.5, duration_s=0.1)
QUANTIZED = Quantized(
    checkpoint=CHECKPOINT,
    method="qat",
    weight_bits=8,
    ptq_val_accuracy=0.9,
    layers=(),
    float_layers=("fc",),
)

KINDS = [kind for _, kind in inspect.getmembers(artifacts, inspect.isclass) if dataclasses.is_dataclass(kind)]

st.register_type_strategy(Path, st.text("abc/.- é", min_size=1).map(Path))
st.register_type_strategy(DatasetCard, st.just(CARD))
st.register_type_strategy(float, st.floats(allow_nan=False))  # nan is equal to nothing; it has its own test


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Outcome], ids=lambda kind: kind.__name__)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(data=st.data())
def test_every_artifact_survives_json(kind: type[Any], data: st.DataObject) -> None:
    artifact = data.draw(st.from_type(kind))
    assert from_json(kind, to_json(artifact)) == artifact
    assert to_json(from_json(kind, to_json(artifact))) == to_json(artifact)


def test_a_whole_outcome_survives_json() -> None:
    outcome = Outcome(
        run="dots",
        recipe="dots",
        summary="",
        data=DataRef(card=CARD, digest="a" * 64, folder=Path("/data")),
        network=NETWORK,
        trained=CHECKPOINT,
        finetuned=None,
        pruned=Pruned(checkpoint=CHECKPOINT),
        quantized={7: QUANTIZED, 8: QUANTIZED},
        exports={},
        targets=(),
        target_bits={"board": 8},
        notes=(StageNote(stage="train", recalled=True, duration_s=1.5, summary="done"),),
        versions={"python": "3.11"},
    )
    back = from_json(Outcome, to_json(outcome))
    assert back == outcome
    assert list(back.quantized) == [7, 8]  # numbers again, not text


def test_all_artifacts_are_covered() -> None:
    assert {DataRef, Checkpoint, Quantized, Outcome} <= set(KINDS)
    assert len(KINDS) > 25


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 5e-324, 0.1 + 0.2])
def test_numbers_keep_every_bit(number: float) -> None:
    quality = LayerQuality(
        layer="conv", weight_sqnr_db=None, activation_sqnr_db=number, output_sqnr_db=number, precision="int8"
    )
    back = from_json(LayerQuality, to_json(quality))
    assert repr(back) == repr(quality)


@pytest.mark.parametrize("wrong", [{"val_accuracy": np.float32(1)}, {"edits": [1]}, {"weights": 7}])
def test_a_value_that_would_not_come_back_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"[Ss]eriali"):
        to_json(replace(CHECKPOINT, **wrong))


def test_digests_are_found_wherever_they_are() -> None:
    first, second = "0" * 64, "f" * 64
    assert digests_in({"a": [first, {"b": second}], "c": f"{first}0", "d": first, "e": 3}) == (first, second)


def test_what_came_from_the_inputs_takes_their_place_on_this_machine() -> None:
    moved = replace(NETWORK, path=Path("/moved/net.py"))
    pruned = Pruned(checkpoint=CHECKPOINT)
    assert refreshed(pruned, {"start": replace(CHECKPOINT, network=moved)}).checkpoint.network.path == moved.path
    ours = replace(pruned, checkpoint=replace(CHECKPOINT, history=(EPOCH,)))  # not in the key either, but no place
    assert refreshed(ours, {"start": CHECKPOINT}) == ours
    other = replace(moved, sha256="d" * 64)
    assert refreshed(pruned, {"network": other}) == pruned
    assert refreshed(pruned, {"nothing": 1}) is pruned


_STEP = PruneStep(
    index=1,
    macs_before=1000,
    macs_after=600,
    parameters_before=10,
    parameters_after=6,
    latency_ratio=0.7,
    latency_ratio_low=0.6,
    latency_ratio_high=0.8,
    val_accuracy_before=0.98,
    val_accuracy_after=0.97,
    kept=True,
    why="",
)


@pytest.mark.parametrize(
    ("artifact", "summary"),
    [
        (CHECKPOINT, "97.5 % validation accuracy"),
        (
            Finetuned(checkpoint=CHECKPOINT, start="recipe:printed", replaced_head=(), transfer=()),
            "97.5 % validation accuracy, from recipe:printed",
        ),
        (Pruned(checkpoint=CHECKPOINT), "nothing to prune"),
        (
            Pruned(checkpoint=CHECKPOINT, steps=(_STEP, replace(_STEP, index=2, macs_before=600, kept=False))),
            "1 of 2 steps kept, 60 % of the MACs left, 97.5 % validation accuracy",
        ),
        (
            QUANTIZED,
            "qat, 8-bit weights, 97.5 % validation accuracy, 1 layers stay float",
        ),
        (SparsityTrial(sparsity=0.5, val_accuracy=1, latency_ratio=1, size_ratio=1, compressed_size_ratio=1), ""),
    ],
)
def test_summaries(artifact: object, summary: str) -> None:
    assert summary_of(artifact) == summary
