"""What to try follows from what a run that really happened shows."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.artifacts.files import Variant
from pipeline.artifacts.outcome import Check, Judged, Outcome
from pipeline.report.advice import advice
from tests.judging.cases import INT8_ONNX
from tests.report.recorded import Recorded
from tests.report.variations import target_of

PI = "raspberry-pi-4b"
FLOAT = Variant(format="onnx", precision="fp32")
replace = dataclasses.replace


def missed(quantity: str, variant: Variant = INT8_ONNX) -> Check:
    return Check(quantity=quantity, variant=variant, bound="at least", limit=1, unit="", got=0, low=0, high=0)


def with_only(outcome: Outcome, *checks: Check) -> Judged:
    found = target_of(outcome, PI)
    return replace(found, verdict=replace(found.verdict, checks=checks))


def test_nothing_to_try_where_all_is_met(digits: Recorded) -> None:
    assert advice(digits.outcome, with_only(digits.outcome)) == ()


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (missed("accuracy", FLOAT), "more training data than"),
        (missed("accuracy above most frequent class", FLOAT), "more training data than"),
        (missed("accuracy drop"), "more epochs of quantization-aware training"),
        (missed("same decision as float"), "quantize.calibration"),
        (missed("file size"), "prune.amount"),
        (missed("latency p95"), 'prune.of = "latency"'),
        (missed("layers that can overflow 16 bits"), "weight_bits = 7"),
        (replace(missed("latency p95"), got=None, low=None, high=None), "--allow-open"),
        (replace(missed("accuracy"), got=1.5, high=3, samples=100), "about 900 samples would settle accuracy (int8)"),
    ],
)
def test_each_kind_of_limit_names_a_setting(digits: Recorded, check: Check, said: str) -> None:
    lines = advice(digits.outcome, with_only(digits.outcome, check))
    assert any(said in line for line in lines), lines


def test_a_curve_that_still_rises_asks_for_epochs(digits: Recorded) -> None:
    assert digits.outcome.finetuned is not None
    last = digits.outcome.finetuned.checkpoint
    rising = tuple(replace(epoch, val_metric=0.5 + 0.01 * epoch.index) for epoch in last.history)
    falling = tuple(replace(epoch, val_metric=0.9 - 0.01 * epoch.index) for epoch in last.history)
    for history, asked in ((rising, True), (falling, False)):
        changed = replace(digits.outcome.finetuned, checkpoint=replace(last, history=history))
        outcome = replace(digits.outcome, finetuned=changed)
        lines = advice(outcome, with_only(outcome, missed("accuracy", FLOAT)))
        assert any("finetune.train.epochs" in line for line in lines) == asked


def test_calibration_alone_asks_for_training(digits: Recorded) -> None:
    calibrated = {bits: replace(each, method="ptq") for bits, each in digits.outcome.quantized.items()}
    outcome = replace(digits.outcome, quantized=calibrated)
    assert advice(outcome, with_only(outcome, missed("accuracy drop")))[0].startswith('quantize.method = "qat"')
