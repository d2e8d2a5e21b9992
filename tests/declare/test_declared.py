"""What recipes, cards and targets say of themselves: short forms, what is left out, what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.declare.card import DatasetCard, InputSpec, SplitSpec, outside_name
from pipeline.declare.recipe import MetricLimits, NetworkSpec, RecipeLimits
from pipeline.declare.target import CpuSpec, MemorySpec, TargetLimits, TargetProfile


def card(**own: Any) -> DatasetCard:
    return DatasetCard.model_validate({"name": "c", "title": "C", "kind": "npz", **own})


def target(architecture: str, **own: Any) -> TargetProfile:
    isa = own.pop("isa", ())
    cpu = CpuSpec.model_validate(
        {"architecture": architecture, "model": "M", "isa": isa, "cores": 4, "clock_mhz": 1000}
    )
    memory = MemorySpec(size_bytes=1 << 30)
    return TargetProfile(name="t", title="T", cpu=cpu, memory=memory, os="Linux", python="3.11", **own)


# ── recipes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_word_for_a_network_is_its_file() -> None:
    assert NetworkSpec.model_validate("mlp") == NetworkSpec(file="mlp")


def test_short_limits_of_accuracy_stand_before_long_ones() -> None:
    long = {"accuracy": MetricLimits(min=0.1, max=0.99), "f1": MetricLimits(worse_by=0.01)}
    limits = RecipeLimits(accuracy_min=0.9, accuracy_drop_pp=2, metrics=long)
    assert limits.of("accuracy") == MetricLimits(min=0.9, max=0.99, worse_by=0.02)
    assert limits.of("f1").worse_by == 0.01
    assert limits.of("unheard") == MetricLimits()
    assert limits.named == ("accuracy", "f1")


def test_no_drop_at_all_is_a_limit() -> None:
    limits = RecipeLimits(accuracy_drop_pp=0)
    assert limits.of("accuracy").worse_by == 0
    assert limits.named == ("accuracy",)
    assert RecipeLimits().named == ()


# ── cards ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "normalize"),
    [
        ({}, "train"),
        ({"shape": [3]}, "train"),
        ({"divide": 255}, None),
        ({"mean": [0.5]}, None),
        ({"normalize": "none"}, "none"),
        ({"divide": 255, "normalize": "train"}, "train"),
    ],
)
def test_inputs_are_measured_unless_something_is_said(said: dict[str, object], normalize: str | None) -> None:
    assert InputSpec.model_validate(said).normalize == normalize


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"shape": [3, 8, 8], "mean": [0.1, 0.2]}, r"'mean' needs one value or one per channel \(3\)"),
        ({"shape": [3, 8, 8], "std": []}, r"'std' needs one value or one per channel \(3\)"),
        ({"mean": [0.5], "normalize": "train"}, "\"train\" measures 'mean' and 'std'; take them out"),
        ({"std": [0.5], "normalize": "none"}, "\"none\" leaves 'mean' and 'std' away; take them out"),
    ],
)
def test_inputs_that_contradict_themselves(said: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        InputSpec.model_validate(said)


@pytest.mark.parametrize("held", [0, 0.0, 0.2, 0.999, 1, 200])
def test_a_split_is_a_share_or_a_number_of_samples(held: float) -> None:
    assert SplitSpec(val=held, test=held).val == held


@pytest.mark.parametrize(
    ("held", "words"),
    [(1.0, "a share below 1"), (20.5, "a share below 1"), (-1, "than or equal to 0"), (-0.1, "equal to 0")],
)
def test_a_split_that_is_neither(held: float, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SplitSpec(val=held)


def test_keys_of_one_kind_of_data_are_kept_apart() -> None:
    found = card(label_column="y", since="1979-05-27", most=float("inf"))
    assert found.own == {"label_column": "y", "since": "1979-05-27", "most": "Infinity"}
    assert card(kind="printed-digits", samples=9).own == {"file": "printed_digits.py", "options": {"samples": 9}}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"inputs": {"a": {}}, "input": {"shape": [3]}}, r"\[input\] is for one input"),
        ({"inputs": {"y": {}}}, "no input can be called 'y'"),
        ({"steps": 3, "inputs": {"a": {}}}, "belong together"),
        ({"inputs": {"a": {}, "h": {"carried": "hn"}}}, "belong together"),
        ({"steps": 3, "inputs": {"h": {"carried": "hn"}}}, "all inputs are carried"),
    ],
)
def test_inputs_that_cannot_be_told_apart(said: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        card(**said)


def test_a_carried_state_is_stored_once_and_the_rest_for_each_step() -> None:
    found = card(steps=5, inputs={"a": {"shape": [3]}, "h": {"shape": [8], "carried": "hn"}})
    assert (found.stored_shape("a"), found.stored_shape("h")) == ((5, 3), (8,))
    assert found.carried == {"hn": "h"}
    assert card(input={"shape": [1, 8, 8]}).stored_shape("x") == (1, 8, 8)


def test_inputs_have_names_that_arrays_of_a_card_have_not() -> None:
    assert [outside_name(name) for name in ("x", "y", "groups", "side")] == ["x_in", "y_in", "groups_in", "side"]


# ── targets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("architecture", "isa", "saturates"),
    [("x86_64", ("avx2",), True), ("x86_64", ("avx2", "avx512_vnni"), False), ("aarch64", ("neon",), False)],
)
def test_which_processors_add_pairs_in_16_bits(architecture: str, isa: tuple[str, ...], saturates: bool) -> None:
    assert target(architecture, isa=isa).saturates_int16 == saturates


def test_a_machine_is_a_target_without_what_a_verdict_looks_at() -> None:
    one = target("aarch64", limits=TargetLimits(latency_p95_ms=3), threads=2, aliases=("pi",), sources=("sheet",))
    assert one.machine == target("aarch64").machine == target("aarch64")
    assert (one.judged_threads, one.machine.judged_threads) == (2, 1)
