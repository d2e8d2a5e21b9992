"""What the numbers of a run mean, in sentences; the same in the terminal and on the page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts import Comparison, ExecutedOp, Measurement, Outcome, PruneStep, SparsityTrial, Validated
from pipeline.report import words

SIGNIFICANT = 0.05


def headline(target: Validated) -> str:
    """Say what to ship: ``ship ONNX int8`` or ``not fit``."""
    return f"ship {words.artifact_title(target.verdict.ship)}" if target.verdict.ship else "not fit: ship nothing"


def margin_pp(target: Validated) -> float | None:
    """Return the accuracy that int8 may lose, from the target's checks; None where nobody set a limit."""
    return min((each.limit for each in target.verdict.checks if each.name.startswith("accuracy drop")), default=None)


def saturates(target: Validated) -> bool:
    """Tell whether the target adds products in 16 bits: only then the verdict has a check of it."""
    return any(check.name.startswith("layers that can overflow") for check in target.verdict.checks)


def comparison_line(found: Comparison) -> str:
    """All numbers of the comparison in one line."""
    low = words.points(found.low_pp, signed=True).removesuffix(" pp")
    return (
        f"int8 − float: {words.points(found.difference_pp, signed=True)} "
        f"[{low} … {words.points(found.high_pp, signed=True)}], "
        f"McNemar p {words.p_value(found.mcnemar_p)}, "
        f"same class on {words.percent(found.agreement)}; "
        f"{words.plural(found.samples, 'test input')} can show a gap of {words.points(found.detectable_pp)}"
    )


def comparison_sentences(found: Comparison, margin: float | None) -> tuple[str, ...]:
    """Say what was seen, whether chance explains it, what this test set can show, and what the margin makes of it."""
    said = (_difference(found), _significance(found), _power(found))
    return said if margin is None else (*said, _margin(found, margin))


def _difference(found: Comparison) -> str:
    interval = (
        f"95 % interval {words.points(found.low_pp, signed=True).removesuffix(' pp')} to "
        f"{words.points(found.high_pp, signed=True)}"
    )
    between = f"{words.percent(found.accuracy_float)} → {words.percent(found.accuracy_int8)}"
    if found.difference_pp == 0:
        return f"int8 is right exactly as often as float ({between}; {interval})."
    verb = "loses" if found.difference_pp < 0 else "gains"
    return f"int8 {verb} {words.points(abs(found.difference_pp))} against float ({between}; {interval})."


def _significance(found: Comparison) -> str:
    test = f"exact McNemar test, p {words.p_value(found.mcnemar_p)}"
    if found.mcnemar_p < SIGNIFICANT:
        return f"Chance does not explain this ({test})."
    return f"A difference like this, or a larger one, is what chance alone would give ({test})."


def _power(found: Comparison) -> str:
    return (
        f"With {words.plural(found.samples, 'test input')}, a true gap of {words.points(found.detectable_pp)} or more "
        "would show (80 % power); a smaller one may stay hidden."
    )


def _margin(found: Comparison, margin: float) -> str:
    allowed = f"The margin of {words.points(margin)}"
    if found.difference_pp < -margin:
        return f"{allowed} is missed."
    if found.low_pp < -margin:
        return f"{allowed} is met, though the interval does not rule out a larger loss on other inputs."
    return f"{allowed} is met, and the whole interval lies inside it."


def latency_note(target: Validated) -> str:
    """Say where the latencies come from and what is not known about the target."""
    timed = [each for each in target.measurements if each.what.startswith("latency") and each.value is not None]
    places = tuple(dict.fromkeys(f"{each.how} on {each.where}" for each in timed))
    note = f"latency {'; '.join(places)}" if places else "latency: not measured"
    if not target.machine_is_target and not any(each.where == target.target for each in timed):
        note += f". On {target.target}: not measured" if places else f" (neither here nor on {target.target})"
    return note


def not_measured(target: Validated) -> tuple[str, ...]:
    """List, in words, everything that could not be measured for ``target``, each once."""
    missing = [_missing(each) for each in target.measurements if each.value is None]
    limits = [f"limit on {check.name}" for check in target.verdict.checks if check.passed is None]
    skipped = [f"{runtime}: {why}" for runtime, why in target.skipped_runtimes]
    return tuple(dict.fromkeys([*missing, *limits, *skipped]))


def _missing(each: Measurement) -> str:
    what = each.what.replace("_", " ")
    return f"{what} of {words.artifact_title(each.artifact)} ({each.runtime}) on {each.where}"


def coverage(nodes: tuple[ExecutedOp, ...]) -> str:
    """``14 of 14 nodes run as integer kernels``."""
    return f"{sum(node.integer for node in nodes)} of {words.plural(len(nodes), 'node')} run as integer kernels"


def prune_result(steps: tuple[PruneStep, ...]) -> str:
    """Say what all kept steps together brought."""
    kept = [step for step in steps if step.kept]
    if not kept and len(steps) == 1:
        return "The one step that was tried was undone: the network stays as it was trained."
    if not kept:
        return f"None of the {words.plural(len(steps), 'step')} was kept: the network stays as it was trained."
    macs = 1 - kept[-1].macs_after / (kept[0].macs_before or 1)
    parameters = 1 - kept[-1].parameters_after / (kept[0].parameters_before or 1)
    return (
        f"{len(kept)} of {words.plural(len(steps), 'step')} kept: {words.percent(macs, 0)} of the MACs and "
        f"{words.percent(parameters, 0)} of the parameters are gone."
    )


def sparsity_result(trial: SparsityTrial) -> str:
    """Say what zeroing single weights would bring, the honest way."""
    return (
        f"Zeroing {words.percent(trial.sparsity, 0)} of the single weights was tried too: latency × "
        f"{trial.latency_ratio:.2f}, file × {trial.size_ratio:.2f} (× {trial.compressed_size_ratio:.2f} after "
        f"compression), validation accuracy {words.percent(trial.val_accuracy)}. Stock runtimes multiply the zeros "
        "like any other number, so this is reported and never shipped."
    )


def next_commands(outcome: Outcome, folder: Path, command: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Return commands worth typing next, each with what it does; ``command`` is the one that made the run."""
    typed = shlex.quote(str(folder))
    again = shlex.join(command or ("karui", "run", outcome.recipe))
    if not outcome.targets:
        return (
            (f"karui show {typed}", "stages and layers"),
            (shlex.join(command) if command else f"{again} --out {typed}", "go on to the verdict"),
        )
    commands = [
        (f"karui report {typed} --open", "the whole report in a browser"),
        (f"karui compare {typed} RUN", "beside another run"),
    ]
    if all(target.target != "host" for target in outcome.targets):
        commands.append((f"{again} --target host", "the verdict for this machine"))
    return tuple(commands)
