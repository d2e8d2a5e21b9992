"""Every artifact comes back from JSON as it went in, and says so when it was altered on the way."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import math
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import artifacts
from pipeline.artifacts.evidence import Answers
from pipeline.artifacts.networks import DataRef
from pipeline.artifacts.outcome import Outcome, Verdict
from pipeline.artifacts.training import Checkpoint, LayerQuality, Pruned, Quantized
from pipeline.declare.card import DatasetCard
from pipeline.onboard.frontend import StepCall
from pipeline.runs.keys import Ingredients
from pipeline.runs.records import (
    SEAL,
    AlteredError,
    Record,
    artifact_from,
    digests_in,
    from_json,
    from_sealed_json,
    kind_of,
    refreshed,
    to_json,
    to_sealed_json,
)
from tests.runs.made import CARD, CHECKPOINT, EPOCH, NETWORK, OUTCOME, RECIPE

MODULES = [
    importlib.import_module(f"pipeline.artifacts.{found.name}") for found in pkgutil.iter_modules(artifacts.__path__)
]
KINDS = [
    kind
    for module in MODULES
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__ and kind is not Answers  # lives in memory
]

st.register_type_strategy(Path, st.text("abc/.- é", min_size=1).map(Path))
st.register_type_strategy(DatasetCard, st.just(CARD))
st.register_type_strategy(StepCall, st.builds(StepCall, st.just("normalize"), st.just({"mean": [0.5, 1.0]})))
st.register_type_strategy(float, st.floats(allow_nan=False))  # nan is equal to nothing; it has its own test


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Outcome], ids=lambda kind: kind.__name__)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(data=st.data())
def test_every_artifact_survives_json(kind: type[Any], data: st.DataObject) -> None:
    artifact = data.draw(st.from_type(kind))
    assert from_json(kind, to_json(artifact)) == artifact
    assert to_json(from_json(kind, to_json(artifact))) == to_json(artifact)


def test_a_whole_outcome_survives_json() -> None:
    back = from_json(Outcome, to_json(OUTCOME))
    assert back == OUTCOME
    assert list(back.quantized) == [7, 8]  # numbers again, not text


def test_all_artifacts_are_covered() -> None:
    assert {DataRef, Checkpoint, Quantized, Verdict, Outcome} <= set(KINDS)
    assert len(KINDS) > 40


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 5e-324, 0.1 + 0.2])
def test_numbers_keep_every_bit(number: float) -> None:
    quality = LayerQuality(
        layer="conv", weight_sqnr_db=None, activation_sqnr_db=number, output_sqnr_db=number, precision="int8"
    )
    back = from_json(LayerQuality, to_json(quality))
    assert repr(back) == repr(quality)
    assert repr(from_sealed_json(LayerQuality, to_sealed_json(quality))) == repr(quality)


@pytest.mark.parametrize("wrong", [{"val_metric": np.float32(1)}, {"edits": [1]}, {"weights": 7}])
def test_a_value_that_would_not_come_back_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"[Ss]eriali"):
        to_json(replace(CHECKPOINT, **wrong))


# ── seals ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sealed_artifact_is_the_artifact_and_its_digest() -> None:
    sealed = to_sealed_json(OUTCOME)
    assert from_sealed_json(Outcome, sealed) == OUTCOME
    assert {name: value for name, value in json.loads(sealed).items() if name != SEAL} == json.loads(to_json(OUTCOME))


def test_layout_and_order_may_change() -> None:
    plain = json.loads(to_sealed_json(CHECKPOINT))
    for text in (json.dumps(plain, indent=4), json.dumps(plain, sort_keys=True), to_sealed_json(CHECKPOINT, indent=1)):
        assert from_sealed_json(Checkpoint, text if isinstance(text, bytes) else text.encode()) == CHECKPOINT


@pytest.mark.parametrize(
    "alter",
    [
        lambda plain: plain.update(val_metric=0.976),
        lambda plain: plain["network"].update(sha256="d" * 64),
        lambda plain: plain["network"]["options"].update(width=9),
        lambda plain: plain.update(more=1),
        lambda plain: plain.update({SEAL: "0" * 64}),
        lambda plain: plain.pop(SEAL),
    ],
)
def test_any_other_change_is_seen(alter: Callable[[dict[str, Any]], object]) -> None:
    plain = json.loads(to_sealed_json(CHECKPOINT))
    alter(plain)
    with pytest.raises(AlteredError, match="it was altered after karui wrote it"):
        from_sealed_json(Checkpoint, json.dumps(plain).encode())


def test_what_has_a_digest_of_its_own_cannot_be_sealed() -> None:
    with pytest.raises(TypeError, match="a DataRef has a field of its own called 'digest'"):
        to_sealed_json(OUTCOME.data)


# ── artifacts of records ────────────────────────────────────────────────────────────────────────────────────────────


def _record(artifact: object, kind: str = "") -> Record:
    return Record(
        step="train",
        key="e" * 64,
        finished="2026-01-01T00:00:00.000+00:00",
        duration_s=1.0,
        summary="",
        artifact_type=kind or kind_of(artifact),
        artifact=json.loads(to_json(artifact)),
        files=(),
        made_of=Ingredients(stage="s", inputs={}, sources={}, libraries={}),
    )


@pytest.mark.parametrize("artifact", [CHECKPOINT, Pruned(checkpoint=CHECKPOINT), OUTCOME.facts], ids=kind_of)
def test_the_artifact_of_a_record_is_found_in_its_module(artifact: object) -> None:
    assert artifact_from(_record(artifact)) == artifact


@pytest.mark.parametrize(
    "kind",
    [
        "Checkpoint",
        "training.Path",
        "training.Nothing",
        "nothing.Checkpoint",
        "os.path",
        "..training.Checkpoint",
        "training.Epoch",  # it has no summary: no stage returns it
    ],
)
def test_what_is_no_artifact_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"pipeline\.artifacts has no"):
        artifact_from(_record(CHECKPOINT, kind))
    with pytest.raises(ValueError, match=r"pipeline\.artifacts has no pipeline\.declare\.recipe\.Recipe"):
        artifact_from(_record(RECIPE))


def test_every_stage_result_has_a_line_for_people() -> None:
    assert artifact_from(_record(CHECKPOINT)).summary == "validation accuracy 97.5 %"


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
