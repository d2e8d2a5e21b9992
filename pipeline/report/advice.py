"""What to try where a limit is not met, from what the run itself shows; every line names the setting to change."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.artifacts.outcome import Check, Judged, Outcome
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.judging.limits import FAILS, OVERFLOW, SAME_AS_FLOAT, SAME_DECISION
from pipeline.report import words
from pipeline.report.rows import worst_layers

_STILL_LEARNING = 0.1  # share of the epochs, at the end: the best one among them means that more would help
_MOST = 4


def advice(outcome: Outcome, target: Judged) -> tuple[str, ...]:
    """Return at most four things to try, those first that cost the least; () where every limit is met."""
    unmet = [check for check in target.verdict.checks if check.holds is not True or check.state != "met"]
    return tuple(dict.fromkeys(_lines(outcome, target, unmet)))[:_MOST]


def _lines(outcome: Outcome, target: Judged, unmet: list[Check]) -> Iterator[str]:
    missed = [check for check in unmet if check.holds is False]
    if any(_is_about_metric(check, outcome) and check.variant.precision == "fp32" for check in missed):
        yield from _for_float(outcome)
    elif any(_is_about_int8(check, outcome) for check in missed):
        yield from _for_int8(outcome, target)
    for check in missed:
        if check.quantity == "file size":
            yield "a smaller file: take channels away with prune.amount, or give the network fewer in [network.options]"
        elif check.quantity == "latency p95":
            yield 'less time: prune.amount with prune.of = "latency", or another runtime in the target\'s profile'
        elif check.quantity == FAILS:
            yield "a file that runs there: a network that takes less memory, or another runtime in the target's profile"
        elif check.quantity == OVERFLOW:
            yield "weight_bits = 7 in the target's profile: no sum of two products overflows 16 bits then"
    for check in unmet:
        if check.state == "uncertain" and check.settled_by:
            yield f"a test split of about {words.count(check.settled_by)} samples would settle {check.name}"
    if any(check.state == "open" for check in unmet):
        yield "what is open was measured nowhere: run karui there with --target host, or say --allow-open"


def _is_about_metric(check: Check, outcome: Outcome) -> bool:
    return check.quantity == outcome.metric.name or check.quantity.startswith(
        (f"{outcome.metric.name} above", f"{outcome.metric.name} below")
    )


def _is_about_int8(check: Check, outcome: Outcome) -> bool:
    agreeing = check.quantity in (SAME_AS_FLOAT, SAME_DECISION)
    return check.variant.precision == "int8" and (agreeing or check.quantity.startswith(outcome.metric.name))


def _for_float(outcome: Outcome) -> Iterator[str]:
    """Say what to do where the float network itself falls short."""
    last = outcome.finetuned.checkpoint if outcome.finetuned else outcome.trained
    stage = "finetune.train" if outcome.finetuned else "train"
    if last and _was_still_learning(last):
        name = outcome.metric.name
        yield f"more epochs ({stage}.epochs): the validation {name} was still getting better when training ended"
    if outcome.pruned and last and any(step.kept for step in outcome.pruned.steps):
        lost = outcome.metric.worse_by(outcome.pruned.checkpoint.val_metric, last.val_metric)
        if lost > 0:
            yield (
                f"less pruning (prune.amount): it cost {words.change(outcome.metric, lost, signed=False)} of the "
                f"validation {outcome.metric.name}"
            )
    count = outcome.facts.samples.get("train", 0)
    yield f"more training data than {words.plural(count, 'sample')}, or a larger network ([network.options])"


def _was_still_learning(checkpoint: Checkpoint) -> bool:
    epochs = [epoch for epoch in checkpoint.history if epoch.phase == checkpoint.history[-1].phase]
    if not epochs:
        return False
    higher = checkpoint.metric.higher_is_better
    best = max(epochs, key=lambda epoch: epoch.val_metric if higher else -epoch.val_metric)
    return best.index > (1 - _STILL_LEARNING) * len(epochs)


def _for_int8(outcome: Outcome, target: Judged) -> Iterator[str]:
    """Say what to do where float is good enough and int8 is not."""
    quantized = outcome.quantized.get(target.weight_bits)
    if quantized is None:
        return
    if quantized.method == "ptq":
        yield 'quantize.method = "qat": training with rounding in the network'
    else:
        yield "more epochs of quantization-aware training (quantize.epochs), or quantize.distill = 0.5"
    worst = _worst(quantized)
    if worst:
        yield f"a smaller quantize.margin_pp: layers go back to float then, {worst} first"
    yield 'another calibration: quantize.calibration = "percentile" or "min-max"'


def _worst(quantized: Quantized) -> str:
    found = [layer for layer in quantized.layers if layer.precision == "int8"]
    return worst_layers(found, 1)[0].layer if found else ""
