"""What the numbers of a run mean, in sentences; the same in the terminal and on the page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.artifacts.evidence import Comparison, ExecutedOp, Measurement, Metric, Place
from pipeline.artifacts.outcome import Check, Judged, Outcome
from pipeline.artifacts.training import PruneStep, SparsityTrial
from pipeline.judging.limits import OVERFLOW, drop_name
from pipeline.report import words
from pipeline.report.rows import LATENCIES, answers_of, emulated_of, is_of, observed_for, shown, since_training

SIGNIFICANT = 0.05


def headline(target: Judged) -> str:
    """Say what to ship: ``ship ONNX int8`` or ``not fit``."""
    ship = target.verdict.ship
    return f"ship {words.artifact_title(ship.variant)}" if ship else "not fit: ship nothing"


def margins(target: Judged, metric: Metric) -> tuple[Check, ...]:
    """Return the checks of what int8 may lose in the task's metric; none where nobody set a limit."""
    name = drop_name(metric.name, higher_is_better=metric.higher_is_better)
    return tuple(each for each in target.verdict.checks if each.quantity == name)


def margin_in_unit(target: Judged, metric: Metric, found: Comparison) -> float | None:
    """Return the strictest of these limits in the metric's own unit."""
    factors = {"pp": 1 / 100, "%": abs(found.value_float) / 100}
    return min((factors.get(each.unit, 1.0) * each.limit for each in margins(target, metric)), default=None)


def saturates(target: Judged) -> bool:
    """Tell whether the target adds products in 16 bits: only then the verdict has a check of it."""
    return any(check.quantity == OVERFLOW for check in target.verdict.checks)


# ── float against int8 ──────────────────────────────────────────────────────────────────────────────────────────────


def comparison_line(metric: Metric, found: Comparison) -> str:
    """All numbers of the comparison in one line."""
    return f"int8 − float: {difference_line(metric, found)}"


def difference_line(metric: Metric, found: Comparison) -> str:
    """Return the difference with its interval, the test, and what this test could show."""
    return (
        f"{words.change(metric, found.difference)} [{_interval(metric, found, ' … ')}], "
        f"{found.method}, p {words.p_value(found.p)}, same decision on {words.percent(found.agreement)}"
    ) + (f"; {_power(metric, found)}" if math.isfinite(found.detectable) else "")


def _power(metric: Metric, found: Comparison) -> str:
    inputs = words.plural(found.samples, "test input")
    return f"{inputs} can show a gap of {words.change(metric, found.detectable, signed=False)}"


def _interval(metric: Metric, found: Comparison, between: str) -> str:
    unit = " pp" if metric.unit == "share" else f" {metric.unit}" if metric.unit else ""
    low = words.change(metric, found.low).removesuffix(unit)
    return f"{low}{between}{words.change(metric, found.high)}"


def comparison_sentences(metric: Metric, found: Comparison, limits: Iterable[Check]) -> tuple[str, ...]:
    """Say what was seen, whether chance explains it, what this test set can show, and what the limits make of it."""
    said = [_difference(metric, found), _significance(found)]
    if math.isfinite(found.detectable):
        gap = words.change(metric, found.detectable, signed=False)
        said.append(
            f"With {words.plural(found.samples, 'test input')}, a true gap of {gap} or more would show (80 % power); "
            "a smaller one may stay hidden."
        )
    return (*said, *(_margin(check) for check in limits))


def since_training_line(outcome: Outcome, target: Judged) -> str:
    """Say how far what ships is from the network before pruning; empty where nothing was pruned."""
    compared = since_training(outcome, target)
    if compared is None:
        return ""
    title = words.way_title(compared.second)
    return f"{title} − before pruning: {difference_line(outcome.metric, compared.comparison)}"


def _difference(metric: Metric, found: Comparison) -> str:
    between = f"{words.metric_value(metric, found.value_float)} → {words.metric_value(metric, found.value_int8)}"
    numbers = f"({between}; 95 % interval {_interval(metric, found, ' to ')})"
    worse = metric.worse_by(found.value_int8, found.value_float)
    if worse == 0:
        return f"int8 reaches exactly the {metric.name} of float {numbers}."
    amount = words.change(metric, abs(worse), signed=False)
    return f"int8 is {amount} {'worse' if worse > 0 else 'better'} than float in {metric.name} {numbers}."


def _significance(found: Comparison) -> str:
    test = f"({found.method}, p {words.p_value(found.p)})"
    if found.p < SIGNIFICANT:
        return f"Chance does not explain this {test}."
    return f"A difference like this, or a larger one, is what chance alone would give {test}."


def _margin(check: Check) -> str:
    allowed = f"The margin of {words.quantity(check.limit, check.unit)}"
    if check.holds is None:
        return f"{allowed} could not be checked."
    if check.state == "uncertain":
        rest = "a larger" if check.holds else "a smaller"
        return (
            f"{allowed} is {'met' if check.holds else 'missed'}, though {rest} loss on other inputs is not ruled out."
        )
    return f"{allowed} is met, with 95 % confidence on other inputs too." if check.holds else f"{allowed} is missed."


# ── where numbers come from ─────────────────────────────────────────────────────────────────────────────────────────


def place_text(place: Place, target: Judged) -> str:
    """Write ``measured on raspberry-pi-4b``; of another machine also that it is not the target."""
    return place.text if place.profile == target.target else f"{place.text}, not on {target.target}"


def latency_note(outcome: Outcome, target: Judged) -> str:
    """Say where the latencies that are shown come from, and that they are not the target's where that is so."""
    numbers = [each for quantity in LATENCIES for each in shown(outcome, target, quantity).values()]
    if not numbers:
        return f"latency: not measured (neither here nor on {target.target})"
    said = dict.fromkeys(place_text(each.place, target) for each in numbers)
    basis = dict.fromkeys(each.basis for each in numbers if each.basis)
    note = f"latency {'; '.join(said)}" + (f" ({'; '.join(basis)})" if basis else "")
    return "; ".join((note, *beside_estimates(outcome, target)))


def beside_estimates(outcome: Outcome, target: Judged) -> tuple[str, ...]:
    """Say how times that were measured on the target stand to those that were estimated for it."""
    own = [each for each in target.measurements if each.quantity == LATENCIES[0] and each.place.how == "measured"]
    estimated = {
        each.way: each
        for one in outcome.observed
        for each in one.measurements
        if each.quantity == LATENCIES[0] and each.place.how == "estimated" and each.place.profile == target.target
    }
    return tuple(
        f"{words.full_way(each.way)} takes {each.value / estimated[each.way].value:.2f} times its estimate of "
        f"{words.estimated(estimated[each.way], words.milliseconds)} ms"
        for each in own
        if each.way in estimated and estimated[each.way].value > 0
    )


def emulated_note(outcome: Outcome, target: Judged) -> str:
    """Say which answers were given by the target's processor, emulated, and to how many samples; or ""."""
    found = emulated_of(outcome, target)
    if found is None or not found.beside:
        return ""
    one, metric = found.beside[0], outcome.metric.name
    part = f"all {one.samples:,}" if one.samples == one.of else f"{one.samples:,} of {one.of:,} (drawn)"
    told = [each.way for each in answers_of(outcome, target) if each.place == found.place]
    if len(told) == sum(is_of(each.way.variant, target) for each in found.beside):
        return f"{metric} of the files {found.place.text}, {part} test inputs"
    if told:
        return f"{metric} of {', '.join(map(words.full_way, told))} {found.place.text}, {part} test inputs"
    return f"{metric} of the files as it is here: {found.place.text} they decide alike, {part} test inputs"


def memory_note(outcome: Outcome, target: Judged) -> str:
    """Say the same of the peak memory; empty where there is none."""
    numbers = shown(outcome, target, "peak_memory_bytes").values()
    said = dict.fromkeys(place_text(each.place, target) for each in numbers)
    return f"memory {'; '.join(said)}" if said else ""


def common_how(numbers: Iterable[Measurement | None]) -> str:
    """Return the word that all numbers share (``measured``); empty where they differ or there are none."""
    found = {each.place.how for each in numbers if each}
    return found.pop() if len(found) == 1 else ""


def not_measured(outcome: Outcome, target: Judged) -> tuple[str, ...]:
    """List, in words, everything that could not be measured for ``target``, each once."""
    known = {(each.quantity, each.way) for each in target.measurements}
    missing = [
        f"{name} of {words.artifact_title(way.variant)} ({way.program}) on {target.target}"
        for way in target.candidates
        for name, quantity in zip(("latency p50", "latency p95"), LATENCIES, strict=True)
        if (quantity, way) not in known
    ]
    limits = [f"limit on {check.name}" for check in target.verdict.checks if check.state == "open"]
    skipped = [f"{runtime}: {why}" for runtime, why in left_out(outcome, target)]
    return tuple(dict.fromkeys([*missing, *limits, *skipped]))


def left_out(outcome: Outcome, target: Judged) -> tuple[tuple[str, str], ...]:
    """Return the runtimes that could not be used, and the files that the target itself does not run, and why."""
    seen = observed_for(outcome, target)
    why = {name: why for one in seen for name, why in one.not_usable.items()}
    there = (each for one in seen if one.place.profile == target.target for each in one.cannot_run)
    return tuple((why | {f"{each.way.key} on {target.target}": each.said for each in there}).items())


def coverage(nodes: tuple[ExecutedOp, ...]) -> str:
    """``14 of 14 nodes run as integer kernels``."""
    return f"{sum(node.integer for node in nodes)} of {words.plural(len(nodes), 'node')} run as integer kernels"


# ── pruning ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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


def prune_decided(steps: tuple[PruneStep, ...]) -> str:
    """Say what told that a step paid, and where."""
    told = dict.fromkeys((each.paid.of, each.paid.place) for each in steps if each.paid)
    said = (f"latency {place.text}" if of == "latency" else "a count of MACs" for of, place in told)
    return f"Whether a step paid was decided by {' and '.join(said)}." if told else ""


def sparsity_result(trial: SparsityTrial, metric: Metric) -> str:
    """Say what zeroing single weights would bring, the honest way."""
    counted = trial.place is not None and trial.place.how != "measured"
    where = f" ({trial.place.text})" if trial.place and not counted else ""
    return (
        f"Zeroing {words.percent(trial.sparsity, 0)} of the single weights was tried too: "
        f"{'MACs' if counted else 'latency'} × {trial.latency_ratio:.2f}{where}, file × {trial.size_ratio:.2f} "
        f"(× {trial.compressed_size_ratio:.2f} after compression), validation {metric.name} "
        f"{words.metric_value(metric, trial.val_metric)}. Stock runtimes multiply the zeros like any other number, so "
        "this is reported and never shipped."
    )


def repeat_command(outcome: Outcome, command: Sequence[str]) -> str:
    """Return the command that makes this run again, with the number of threads that its weights depend on."""
    targets = [part for target in outcome.targets for part in ("--target", target.target)]
    typed = tuple(command) or ("karui", "run", outcome.recipe, *targets)
    if any(part == "--threads" or part.startswith("--threads=") for part in typed):
        return shlex.join(typed)
    return shlex.join((*typed, "--threads", str(outcome.threads.count)))


def repeat_sentences(outcome: Outcome) -> tuple[str, ...]:
    """Say what the same command gives, and what may come out differently when everything is computed anew."""
    threads = words.plural(outcome.threads.count, "thread")
    anew = (
        f"The same command recalls what is there. With --fresh it computes everything anew: on the same kind of "
        f"processor, with {threads} and the same versions, training and quantization end with the same bytes."
    )
    steps = outcome.pruned.steps if outcome.pruned else ()
    by_clock = [each.index for each in steps if each.paid and each.paid.place.how == "measured"]
    if not by_clock:
        return (anew,)
    which = f"step {by_clock[0]}" if len(by_clock) == 1 else f"steps {', '.join(map(str, by_clock))}"
    perhaps = (
        f"One thing may differ then: whether pruning {which} paid was decided by a measured time, so that a fresh run "
        'may keep or undo another step and go on with another network. With prune.decide_by = "macs" a count decides.'
    )
    return (anew, perhaps)


def made_line(outcome: Outcome) -> str:
    """Say when a run was made, how much work it was, and from what."""
    took_s = sum(note.duration_s for note in outcome.notes)
    said = [f"{outcome.started[:16].replace('T', ' ')} UTC"] if outcome.started else []
    said += [f"{words.duration(took_s)} of work"] if outcome.notes else []
    said += [f"seed {outcome.settings['seed']}"] if "seed" in outcome.settings else []
    return ", ".join([*said, *([outcome.commit.text] if outcome.commit else [])])


def settings_lines(outcome: Outcome) -> tuple[tuple[str, str], ...]:
    """Return stage → its settings in one line; what stands above all stages comes first."""
    found: dict[str, list[str]] = {}
    for name, value in sorted(outcome.settings.items(), key=lambda each: "." in each[0]):
        stage, _, key = name.partition(".")
        found.setdefault(stage if key else "all stages", []).append(f"{key or name} = {value}")
    return tuple((stage, ", ".join(values)) for stage, values in found.items())


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
    elsewhere = all(target.target != "host" for target in outcome.targets)
    if elsewhere and not any(each.place.how == "emulated" for each in outcome.observed):
        commands.append((f"{again} --emulate", "let the target's own processor answer, emulated"))
    if elsewhere:
        commands.append((f"{again} --target host", "the verdict for this machine"))
    return tuple(commands)
