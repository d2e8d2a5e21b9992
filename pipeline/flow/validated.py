"""What the files are worth: torch's references once per weights, every file once, a verdict per target."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipeline.artifacts.evidence import Observed, Predicted, Spread
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, Way
from pipeline.artifacts.outcome import Judged
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import RuntimeName
from pipeline.errors import EmulationError
from pipeline.estimating.table import own_version
from pipeline.flow.job import Job, measured_here, runtimes_here
from pipeline.flow.made import Network, int8_of, narrow_suffix
from pipeline.flow.stages import bring, emulate, estimate, judge, model, observe, predict, spread, weigh
from pipeline.host import is_this_machine, usable_cores
from pipeline.instruments import brought, counted, emulated, weighed
from pipeline.instruments.known import kernels_of
from pipeline.instruments.modelled import Kernels


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What was found out about the files."""

    predicted: tuple[Predicted, ...] = ()
    observed: tuple[Observed, ...] = ()
    targets: tuple[Judged, ...] = ()
    hints: tuple[str, ...] = ()  # what could not be found out, and why


def validate(job: Job, network: Network) -> Validated:
    """Run the torch references once per weights and every file once; judge per target."""
    predicted = _predict(job, network)
    observed = job.run.step(
        "observe",
        observe,
        data=job.asked.data,
        facts=job.facts,
        files=(*_unpruned_files(job, network), *(file for each in network.exports for file in each.files)),
        references=(*predicted, *_predict_unpruned(job, network.unpruned)),
        threads=_thread_counts(job.asked.targets),
        place=measured_here(),
        runtimes=runtimes_here(),
    )
    there, hints = dict[str, list[Observed]](), list[str]()
    for target in job.asked.targets:
        found = [] if is_this_machine(target) else _not_at_hand(job, network, target, observed, predicted, hints=hints)
        there[target.name] = [*found, *_bring(job, network, target, hints)]
    judged = [
        job.run.step(
            f"judge-{target.name}",
            judge,
            target=target,
            limits=job.recipe.limits,
            exports=network.exports,
            predicted=predicted,
            observed=(_as_seen_from(target, observed), *there.get(target.name, ())),
        )
        for target in job.asked.targets
    ]
    targets = tuple(_with_threads(job, network, judged))
    observations = (observed, *itertools.chain(*there.values()))
    return Validated(predicted=predicted, observed=observations, targets=targets, hints=tuple(hints))


def _not_at_hand(
    job: Job,
    network: Network,
    target: TargetProfile,
    here: Observed,
    predicted: tuple[Predicted, ...],
    *,
    hints: list[str],
) -> list[Observed]:
    """Find out about a target by emulating it, where that is asked for and can be done, and by a model of its kernels.

    ``hints``: takes down what could not be found out, and why.
    """
    asked: dict[str, Callable[[], Observed]] = {}
    if job.asked.emulation_s:
        asked["emulated"] = partial(_emulate, job, network, target, here, predicted)
        asked["estimated"] = partial(_estimate, job, network, target)
        if target.cpu.architecture == "aarch64":
            asked["booted"] = partial(_weigh, job, network, target)
    found: dict[str, Observed] = {}
    for what, find in asked.items():
        try:
            found[what] = find()
        except EmulationError as error:  # the rest stands without it
            hints.append(f"{target.name} was not {what}: {' '.join(str(error).split())}")
    kernels = None if "estimated" in found else kernels_of(target)
    return [*found.values(), *([_model(job, network, target, kernels)] if kernels and kernels.tells_times else [])]


def _emulate(
    job: Job, network: Network, target: TargetProfile, here: Observed, predicted: tuple[Predicted, ...]
) -> Observed:
    """Let the target's own processor answer.  Raises EmulationError where none can be had."""
    return job.run.step(
        f"emulate-{target.name}",
        emulate,
        data=job.asked.data,
        facts=job.facts,
        files=_files_for(network, target),
        references=predicted,
        here=here,
        target=target.machine,
        place=emulated.place(target),
        budget_s=job.asked.emulation_s or 0.0,
        seed=job.recipe.seed,
        runtimes=runtimes_here(),
    )


def _estimate(job: Job, network: Network, target: TargetProfile) -> Observed:
    """Count what the target's own processor executes.  Raises EmulationError where that tells no time."""
    return job.run.step(
        f"estimate-{target.name}",
        estimate,
        data=job.asked.data,
        files=(*_unpruned_files(job, network), *_files_that_may_ship(network, target)),
        target=target.machine,
        place=counted.place(target),
        runtimes=runtimes_here() | _own_times(),
    )


def _model(job: Job, network: Network, target: TargetProfile, kernels: Kernels) -> Observed:
    """Estimate the files' time from what they have to do."""
    return job.run.step(
        f"model-{target.name}",
        model,
        data=job.asked.data,
        files=(*_unpruned_files(job, network), *_files_that_may_ship(network, target)),
        kernels=kernels,
        place=kernels.place,
        runtimes=runtimes_here(),
    )


def _own_times() -> dict[str, str]:
    """Return what tells the times that the user added to those that estimates rest on; {} where there are none."""
    version = own_version()
    return {"own times": version} if version else {}


def _bring(job: Job, network: Network, target: TargetProfile, hints: list[str]) -> Iterator[Observed]:
    """Take in what was measured on the target itself.  Raises ConfigError where it is of other files."""
    files = tuple(file for each in network.exports for file in each.files)
    own = [each for each in job.asked.brought if each.place.profile == target.name]
    for number, found in enumerate(own, 1):
        _, others = brought.of_files(found, files)
        if others:
            hints.append(others)
        yield job.run.step(
            f"bring-{target.name}{f'-{number}' if number > 1 else ''}",
            bring,
            data=job.asked.data,
            files=files,
            found=found,
            target=target.machine,
            place=brought.place(found, target),
        )


def _weigh(job: Job, network: Network, target: TargetProfile) -> Observed:
    """Let the files be run in a machine with the target's memory.  Raises EmulationError where none can be had."""
    return job.run.step(
        f"weigh-{target.name}",
        weigh,
        data=job.asked.data,
        files=_files_that_may_ship(network, target),
        target=target.machine,
        place=weighed.place(target),
        programs=_programs_of(target),
        threads=target.judged_threads,
        budget_s=job.asked.emulation_s or 0.0,
        runtimes=runtimes_here(),
    )


def _programs_of(target: TargetProfile) -> tuple[RuntimeName, ...]:
    """Return the runtime of each format that runs a target's files where all are usable."""
    if target.runtime != "auto":
        return (target.runtime,)
    there = [[each for each in some if each in target.runtimes] for some in RUNTIME_OF_FORMAT.values()]
    return tuple(some[0] for some in there if some)


def _files_that_may_ship(network: Network, target: TargetProfile) -> tuple[Exported, ...]:
    """Return the float files and those of the target's width."""
    return tuple(each for each in _files_for(network, target) if each.variant.weight_bits in (32, target.weight_bits))


def _files_for(network: Network, target: TargetProfile) -> tuple[Exported, ...]:
    """Return the files to be tried: float, of the target's width, and of 8 bits, which show what fewer are for."""
    files = (file for each in network.exports for file in each.files)
    return tuple(each for each in files if each.variant.weight_bits in (32, 8, target.weight_bits))


def _with_threads(job: Job, network: Network, judged: Sequence[Judged]) -> Iterator[Judged]:
    """Settle the threads of every file that ships, once for all targets alike, unless the target says how many."""
    found: dict[tuple[Way, int], Spread] = {}
    for target, each in zip(job.asked.targets, judged, strict=True):
        ship, cores = each.verdict.ship, min(target.cpu.cores, usable_cores())
        if target.threads != "auto" or ship is None:
            yield each
            continue
        if (ship, cores) not in found:
            found[ship, cores] = job.run.step(
                f"spread-{ship.variant.key}",
                spread,
                data=job.asked.data,
                file=next(file for some in network.exports for file in some.files if file.variant == ship.variant),
                program=ship.program,
                version=runtimes_here()[ship.program],
                cores=cores,
                place=measured_here(),
            )
        yield _told(each, found[ship, cores])


def _told(judged: Judged, found: Spread) -> Judged:
    """Say in the verdict what more threads win."""
    won = [each for each in found.tried if each.threads == found.threads]
    times = [f"{each.threads} threads take {each.ratio.value:.2f} times as long as {each.than}" for each in won]
    why = "; ".join([judged.verdict.why, *(f"{said} ({found.place.text})" for said in times)])
    return replace(judged, spread=found, verdict=replace(judged.verdict, why=why))


def _predict(job: Job, network: Network) -> tuple[Predicted, ...]:
    """Float first: what is chosen on its validation split (a threshold) holds for int8 too."""
    assert network.pruned is not None  # noqa: S101  validated after pruning

    def step(name: str, weights: Checkpoint | Quantized, chosen: dict[str, float] | None) -> Predicted:
        return job.run.step(
            name,
            predict,
            data=job.asked.data,
            facts=job.facts,
            weights=weights,
            chosen=chosen,
            threads=job.threads.count,
        )

    first = step("predict", network.pruned.checkpoint, None)
    rest = (step(f"predict-int8{narrow_suffix(each.weight_bits)}", each, first.chosen) for each in int8_of(network))
    return (first, *rest)


def _unpruned_files(job: Job, network: Network) -> tuple[Exported, ...]:
    """Return the file before pruning that is ONNX, and that of the targets' format: timing all would take longer."""
    asked = {target.runtime for target in job.asked.targets}
    wanted = {"onnx", *(each for each, names in RUNTIME_OF_FORMAT.items() if asked & {"auto", *names})}
    before = network.unpruned_export
    return tuple(file for file in before.files if file.variant.format in wanted) if before else ()


def _predict_unpruned(job: Job, before: Checkpoint | None) -> tuple[Predicted, ...]:
    """Run the network before pruning, whose decisions follow from what is chosen on the validation split for it."""
    if before is None:
        return ()
    found = job.run.step(
        "predict-unpruned",
        predict,
        data=job.asked.data,
        facts=job.facts,
        weights=before,
        chosen=None,
        threads=job.threads.count,
        unpruned=True,
    )
    return (found,)


def _thread_counts(targets: Sequence[TargetProfile]) -> tuple[int, ...]:
    """Return the thread counts to time with: those of the targets, as far as this machine has the cores."""
    return tuple(sorted({min(target.judged_threads, usable_cores()) for target in targets}))


def _as_seen_from(target: TargetProfile, observed: Observed) -> Observed:
    """Return what was observed here with the target's name on it, where this machine is that target."""
    if not is_this_machine(target):
        return observed
    place = replace(observed.place, profile=target.name)
    measurements = tuple(replace(each, place=place) for each in observed.measurements)
    return replace(observed, place=place, measurements=measurements)
