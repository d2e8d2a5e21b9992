"""The pipeline on one screen: stage after stage, each recalled or run; it fans out over weight widths and targets.

Stages are named, not imported (``deferred``): a run that is recalled whole never loads torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline import catalog
from pipeline.artifacts.evidence import Observed, Place, Predicted
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, ExportSet
from pipeline.artifacts.handover import MODEL_FILE, handover_of
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkCheck, NetworkRef, Threads, WeightsFile
from pipeline.artifacts.outcome import Commit, Judged, Outcome
from pipeline.artifacts.training import Checkpoint, Finetuned, Pruned, Quantized, Start
from pipeline.data.files import sha256_of
from pipeline.data.kinds import own_spec
from pipeline.data.load import reference
from pipeline.declare.recipe import Recipe, TrainSpec
from pipeline.declare.settings import settings_of
from pipeline.declare.target import TargetProfile
from pipeline.elsewhere import is_elsewhere
from pipeline.errors import ConfigError, ModelError, nearest
from pipeline.git import commit_of
from pipeline.host import is_this_machine, machine_name, training_device, usable_cores
from pipeline.instruments import counts
from pipeline.onboard.about import LABELS_FILE, labels_text
from pipeline.progress import Progress
from pipeline.runs.cache import cache_folder
from pipeline.runs.finished import (
    REPORT_FILE,
    REPORT_JSON_FILE,
    RUNS,
    find_run,
    load_outcome,
    store_of,
    write_outcome,
)
from pipeline.runs.journal import now
from pipeline.runs.keys import library_versions
from pipeline.runs.records import to_json
from pipeline.runs.run import Run, deferred, open_run, repeatable
from pipeline.runs.store import Store, write_atomic
from pipeline.runtimes import RUNTIMES, version
from pipeline.shipped import shipped_folder
from pipeline.tasks import Task, named

if TYPE_CHECKING:
    from pipeline.stages.check import check
    from pipeline.stages.describe import describe
    from pipeline.stages.export import export
    from pipeline.stages.finetune import finetune
    from pipeline.stages.importing import import_weights
    from pipeline.stages.judge import judge
    from pipeline.stages.observe import observe
    from pipeline.stages.predict import predict
    from pipeline.stages.prune import prune
    from pipeline.stages.quantize import quantize
    from pipeline.stages.report import report
    from pipeline.stages.threads import choose_threads
    from pipeline.stages.train import train
else:
    describe = deferred("pipeline.stages.describe", "describe")
    choose_threads = deferred("pipeline.stages.threads", "choose_threads")
    check = deferred("pipeline.stages.check", "check")
    train = deferred("pipeline.stages.train", "train")
    import_weights = deferred("pipeline.stages.importing", "import_weights")
    finetune = deferred("pipeline.stages.finetune", "finetune")
    prune = deferred("pipeline.stages.prune", "prune")
    quantize = deferred("pipeline.stages.quantize", "quantize")
    export = deferred("pipeline.stages.export", "export")
    predict = deferred("pipeline.stages.predict", "predict")
    observe = deferred("pipeline.stages.observe", "observe")
    judge = deferred("pipeline.stages.judge", "judge")
    report = deferred("pipeline.stages.report", "report")

# "validate" is predict, observe and judge
StageName = Literal["train", "finetune", "prune", "quantize", "export", "validate", "report"]
STAGES: tuple[StageName, ...] = ("train", "finetune", "prune", "quantize", "export", "validate", "report")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What ``karui run`` was asked for."""

    recipe: str = "digits"
    targets: tuple[str, ...] = ("raspberry-pi-4",)
    overrides: tuple[str, ...] = ()
    until: StageName | None = None
    out: Path | None = None  # default: runs/<recipe name>
    fresh: bool = False
    device: str = "auto"
    threads: int | None = None  # instead of the recipe's
    tensorboard: bool = False  # write curves for it
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A request with everything in it found, before anything is done for it."""

    recipe: Recipe
    recipe_file: Path
    start: Path | None  # what fine-tuning begins with: a recipe, a run folder or a weights file
    data: DataRef
    task: Task
    targets: tuple[TargetProfile, ...]
    device: str  # "cpu" or "cuda"
    wanted: tuple[StageName, ...]
    command: tuple[str, ...]
    overrides: tuple[str, ...]
    started: str  # ISO 8601, UTC
    commit: Commit | None


@dataclass(frozen=True, kw_only=True)
class _ToTrain:
    """What is trained from scratch here: the recipe's own network, or the one that fine-tuning starts from."""

    recipe: Recipe
    data: DataRef
    facts: DataFacts
    network: NetworkRef


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A run in progress and what it works on."""

    run: Run
    asked: _Asked
    facts: DataFacts
    network: NetworkRef
    threads: Threads
    checked: NetworkCheck
    scratch: _ToTrain | None  # None where the start comes from a run or a weights file

    @property
    def recipe(self) -> Recipe:
        return self.asked.recipe

    @property
    def plan(self) -> TrainSpec:
        """How the network that ships is trained: batch size, optimizer and augmentation of all later training."""
        return self.recipe.finetune.train if self.recipe.finetune else self.recipe.train

    def wants(self, stage: StageName) -> bool:
        return stage in self.asked.wanted


@dataclass(frozen=True, kw_only=True)
class _Network:
    """What became of the network up to its files."""

    trained: Checkpoint | None = None
    finetuned: Finetuned | None = None
    pruned: Pruned | None = None
    unpruned: Checkpoint | None = None  # before pruning; None where no channel went
    quantized: tuple[Quantized, ...] = ()
    exports: tuple[ExportSet, ...] = ()
    unpruned_export: ExportSet | None = None


@dataclass(frozen=True, kw_only=True)
class _Validated:
    """What was found out about the files."""

    predicted: tuple[Predicted, ...] = ()
    observed: tuple[Observed, ...] = ()
    targets: tuple[Judged, ...] = ()


def run_recipe(request: RunRequest, progress: Progress) -> Outcome:
    """Run a recipe for its targets, up to ``request.until``, and return all that was found out.

    Raises ConfigError, DataError, ModelError … as the stages do; what was done before is recalled next time.
    """
    progress.start("looking at the data", 1)  # to know a large folder again takes a while
    asked = _asked(request, progress)
    folder = request.out or RUNS / asked.recipe.name
    with open_run(
        folder,
        progress=progress,
        fresh=request.fresh,
        recipe=asked.recipe,
        command=request.command,
        tensorboard=request.tensorboard,
    ) as run:
        job = _job(run, asked)
        network = _make(job)
        outcome = _outcome(job, network, _validate(job, network) if job.wants("validate") else _Validated())
        _hand_over(job, outcome)
        if job.wants("report"):
            _report(job, outcome)
        outcome = replace(outcome, notes=tuple(run.notes))
        write_outcome(run.folder, outcome)
        return outcome


# ── what was asked for ──────────────────────────────────────────────────────────────────────────────────────────────


def _asked(request: RunRequest, progress: Progress) -> _Asked:
    recipe, _ = catalog.load_recipe(request.recipe, request.overrides)
    if request.threads is not None:
        recipe = recipe.model_copy(update={"threads": request.threads})
    file = catalog.find("recipe", request.recipe)
    data = _data(recipe, file, request.overrides, progress)
    with catalog.said_in(file, "network.file", recipe.network.file, request.overrides):
        if not is_elsewhere(recipe.network.file):
            catalog.find("network", recipe.network.file, beside=file.parent)
    task = named(data.card.task)
    _check_limits(recipe, task, file)
    until = request.until or STAGES[-1]
    return _Asked(
        recipe=recipe,
        recipe_file=file,
        start=_find_start(recipe, file, request.overrides),
        data=data,
        task=task,
        targets=_targets(request.targets),
        device=training_device(request.device),
        wanted=STAGES[: STAGES.index(until) + 1],
        command=repeatable(request.command),
        overrides=request.overrides,
        started=now(),
        commit=commit_of(_own_folder(file), without=(RUNS, request.out or RUNS, cache_folder())),
    )


def _own_folder(recipe_file: Path) -> Path:
    """Return the folder whose history says what was run: the recipe's, or of one that comes with karui the current."""
    shipped = shipped_folder("models")
    return Path.cwd() if recipe_file.is_relative_to(shipped) else recipe_file.parent


def _data(recipe: Recipe, file: Path, overrides: Sequence[str], progress: Progress | None = None) -> DataRef:
    with catalog.said_in(file, "data", recipe.data, overrides):
        card, folder = catalog.load_card(recipe.data, beside=file.parent)
    own_spec(card, where=catalog.shown(catalog.find("data", recipe.data, beside=file.parent)))
    return reference(card, folder, progress)


def _check_limits(recipe: Recipe, task: Task, file: Path) -> None:
    """Refuse a limit on a metric that the task does not have: it would never be looked at."""
    known = [metric.name for metric in (task.METRIC, *task.OTHERS)]
    for name in recipe.limits.named:
        if name not in known:
            raise ConfigError(
                f"[limits] is about '{name}', which this task does not measure{nearest(name, known)}",
                where=catalog.shown(file),
                remedy=f"name one of its metrics: {', '.join(known)}",
            )


def _find_start(recipe: Recipe, file: Path, overrides: Sequence[str]) -> Path | None:
    """Find what fine-tuning begins with, before anything is trained for it."""
    if recipe.finetune is None:
        return None
    kind, _, name = recipe.finetune.start.partition(":")
    with catalog.said_in(file, "finetune.start", recipe.finetune.start, overrides):
        if kind == "recipe":
            return catalog.find("recipe", name, beside=file.parent)
        return find_run(name) if kind == "run" else catalog.find_file(name, beside=file.parent)


def _targets(names: Iterable[str]) -> tuple[TargetProfile, ...]:
    """Load the profiles; naming one twice (or by its alias) counts once."""
    profiles: dict[str, TargetProfile] = {}
    for profile in map(catalog.load_target, names):
        if profiles.setdefault(profile.name, profile) != profile:
            raise ConfigError(
                f"two different targets are called '{profile.name}'",
                where="--target",
                remedy="give one of them another name, in the first lines of its file",
            )
    return tuple(profiles.values())


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _job(run: Run, asked: _Asked) -> _Job:
    """Look at the data, build the reference to the network, settle the threads, and check all of it."""
    recipe = asked.recipe
    own = _to_train(run, "data", recipe, file=asked.recipe_file, data=asked.data, overrides=asked.overrides)
    scratch = own if recipe.finetune is None else _start_recipe(run, asked)
    threads = _threads(run, asked, own)
    checked = run.step(
        "check",
        check,
        data=asked.data,
        facts=own.facts,
        network=own.network,
        pruned=recipe.prune.amount > 0,
        quantized=recipe.quantize.method != "none",
        start_network=scratch.network if scratch and recipe.finetune else None,
    )
    return _Job(
        run=run,
        asked=asked,
        facts=own.facts,
        network=own.network,
        threads=threads,
        checked=checked,
        scratch=scratch,
    )


def _to_train(
    run: Run, step: str, recipe: Recipe, *, file: Path, data: DataRef, overrides: Sequence[str] = ()
) -> _ToTrain:
    facts = run.step(step, describe, data=data)
    with catalog.said_in(file, "network.file", recipe.network.file, overrides):
        network = catalog.network_ref(recipe.network, beside=file.parent, signature=facts.signature)
    return _ToTrain(recipe=recipe, data=data, facts=facts, network=network)


def _start_recipe(run: Run, asked: _Asked) -> _ToTrain | None:
    """Load the recipe that trains the start, where there is one."""
    if asked.start is None or not asked.recipe.finetune or not asked.recipe.finetune.start.startswith("recipe:"):
        return None
    recipe, _ = catalog.load_recipe(str(asked.start))
    return _to_train(run, "data-of-start", recipe, file=asked.start, data=_data(recipe, asked.start, ()))


def _threads(run: Run, asked: _Asked, own: _ToTrain) -> Threads:
    if asked.recipe.threads != "auto":
        return Threads(count=asked.recipe.threads)
    return run.step(
        "threads",
        choose_threads,
        data=own.data,
        facts=own.facts,
        network=own.network,
        batch_size=asked.recipe.train.batch_size,
        cores=usable_cores(),
        machine=machine_name(),
    )


def _make(job: _Job) -> _Network:
    """Train once, quantize and export once per weight width."""
    trained, finetuned = _train(job)
    latest = finetuned.checkpoint if finetuned else trained
    network = _Network(trained=trained, finetuned=finetuned)
    if latest is None or not job.wants("prune"):
        return network
    pruned = _prune(job, latest)
    unpruned = latest if pruned.checkpoint.weights != latest.weights else None
    network = replace(network, pruned=pruned, unpruned=unpruned)
    if job.wants("quantize"):
        widths = sorted({target.weight_bits for target in job.asked.targets}, reverse=True)
        network = replace(network, quantized=tuple(_quantize(job, network, bits) for bits in widths))
    if job.wants("export"):
        network = replace(
            network, exports=tuple(_export(job, network)), unpruned_export=_export_unpruned(job, network.unpruned)
        )
    return network


def _train(job: _Job) -> tuple[Checkpoint | None, Finetuned | None]:
    """Train from scratch, or get the start's weights and fine-tune."""
    recipe, asked = job.recipe, job.asked
    trained = _train_from_scratch(job, job.scratch) if job.scratch else None
    if recipe.finetune is None or asked.start is None:
        return trained, None
    start = _start(job, recipe.finetune.start, asked.start, trained)
    if not job.wants("finetune"):
        return trained, None
    finetuned = job.run.step(
        "finetune",
        finetune,
        data=asked.data,
        facts=job.facts,
        network=job.network,
        start=start,
        spec=recipe.finetune,
        scratch=recipe.train,
        seed=recipe.seed,
        threads=job.threads.count,
        device=asked.device,
    )
    return trained, finetuned


def _train_from_scratch(job: _Job, what: _ToTrain) -> Checkpoint:
    return job.run.step(
        "train",
        train,
        data=what.data,
        facts=what.facts,
        network=what.network,
        spec=what.recipe.train,
        seed=what.recipe.seed,
        threads=job.threads.count,
        device=job.asked.device,
    )


def _start(job: _Job, where: str, found: Path, trained: Checkpoint | None) -> Start:
    """Weights to begin with: those of the recipe that was trained here, of another run, or of a file."""
    if trained:
        return Start(label=where, weights=trained.weights, edits=trained.edits)
    if where.startswith("run:"):
        checkpoint, store = _float_checkpoint(found)
        weights = job.run.store.put(store.get(checkpoint.weights))
        return Start(label=where, weights=weights, edits=checkpoint.edits)
    return job.run.step("start", import_weights, file=WeightsFile(sha256=sha256_of(found), path=found))


def _float_checkpoint(folder: Path) -> tuple[Checkpoint, Store]:
    outcome = load_outcome(folder)
    for checkpoint in (
        outcome.pruned and outcome.pruned.checkpoint,
        outcome.finetuned and outcome.finetuned.checkpoint,
        outcome.trained,
    ):
        if checkpoint:
            return checkpoint, store_of(folder)
    raise ModelError("this run has no trained network yet", where=str(folder), remedy="finish it first")


def _prune(job: _Job, latest: Checkpoint) -> Pruned:
    return job.run.step(
        "prune",
        prune,
        data=job.asked.data,
        facts=job.facts,
        checkpoint=latest,
        spec=job.recipe.prune,
        train=job.plan,
        seed=job.recipe.seed,
        threads=job.threads.count,
        device=job.asked.device,
        place=counts.PLACE if job.recipe.prune.decide_by == "macs" else _here(),
    )


def _quantize(job: _Job, network: _Network, bits: int) -> Quantized:
    assert network.pruned is not None  # noqa: S101  quantized after pruning
    return job.run.step(
        f"quantize{_narrow(bits)}",
        quantize,
        data=job.asked.data,
        facts=job.facts,
        checkpoint=network.pruned.checkpoint,
        spec=job.recipe.quantize,
        train=job.plan,
        weight_bits=bits,
        seed=job.recipe.seed,
        threads=job.threads.count,
        device=job.asked.device,
    )


def _export(job: _Job, network: _Network) -> list[ExportSet]:
    """Write the files and put copies beside run.json under names that people can read."""
    assert network.pruned is not None  # noqa: S101  exported after pruning
    weights: dict[str, Checkpoint | Quantized] = {"export": network.pruned.checkpoint}
    weights |= {f"export-int8{_narrow(each.weight_bits)}": each for each in _int8(network)}
    exports = [
        job.run.step(
            step,
            export,
            name=job.recipe.name,
            data=job.asked.data,
            facts=job.facts,
            weights=each,
            runtimes=_runtimes(),
            spec=job.recipe.export,
        )
        for step, each in weights.items()
    ]
    for file in (file for each in exports for file in each.files):
        write_atomic(job.run.folder / file.filename, job.run.store.get(file.file))
    return exports


def _export_unpruned(job: _Job, before: Checkpoint | None) -> ExportSet | None:
    """Write the files of the network before pruning, which every comparison starts from; they stay in the store."""
    if before is None:
        return None
    return job.run.step(
        "export-unpruned",
        export,
        name=job.recipe.name,
        data=job.asked.data,
        facts=job.facts,
        weights=before,
        runtimes=_runtimes(),
        unpruned=True,
    )


def _runtimes() -> dict[str, str]:
    """Return which version of each runtime is here: what was checked without one is checked again once it is there."""
    return {name: version(name) for name in RUNTIMES}


def _int8(network: _Network) -> tuple[Quantized, ...]:
    return tuple(each for each in network.quantized if each.method != "none")


def _narrow(bits: int) -> str:
    return "" if bits == 8 else f"-w{bits}"


# ── what it is worth ────────────────────────────────────────────────────────────────────────────────────────────────


def _validate(job: _Job, network: _Network) -> _Validated:
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
        place=_here(),
        runtimes=_runtimes(),
    )
    targets = tuple(
        job.run.step(
            f"judge-{target.name}",
            judge,
            target=target,
            limits=job.recipe.limits,
            exports=network.exports,
            predicted=predicted,
            observed=(_as_seen_from(target, observed),),
        )
        for target in job.asked.targets
    )
    return _Validated(predicted=predicted, observed=(observed,), targets=targets)


def _predict(job: _Job, network: _Network) -> tuple[Predicted, ...]:
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
    rest = (step(f"predict-int8{_narrow(each.weight_bits)}", each, first.chosen) for each in _int8(network))
    return (first, *rest)


def _unpruned_files(job: _Job, network: _Network) -> tuple[Exported, ...]:
    """Return the file before pruning that is ONNX, and that of the targets' format: timing all would take longer."""
    wanted = {
        "onnx",
        *(
            each
            for each, names in RUNTIME_OF_FORMAT.items()
            for t in job.asked.targets
            if t.runtime in ("auto", *names)
        ),
    }
    before = network.unpruned_export
    return tuple(file for file in before.files if file.variant.format in wanted) if before else ()


def _predict_unpruned(job: _Job, before: Checkpoint | None) -> tuple[Predicted, ...]:
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
    return tuple(sorted({min(target.threads, usable_cores()) for target in targets}))


def _here() -> Place:
    return Place(how="measured", name=machine_name())


def _as_seen_from(target: TargetProfile, observed: Observed) -> Observed:
    """Return what was observed here with the target's name on it, where this machine is that target."""
    if not is_this_machine(target):
        return observed
    place = replace(observed.place, profile=target.name)
    measurements = tuple(replace(each, place=place) for each in observed.measurements)
    return replace(observed, place=place, measurements=measurements)


def _outcome(job: _Job, network: _Network, validated: _Validated) -> Outcome:
    return Outcome(
        run=job.run.folder.resolve().name,
        recipe=job.recipe.name,
        summary=job.recipe.summary,
        task=job.asked.data.card.task,
        metric=job.asked.task.METRIC,
        data=job.asked.data,
        facts=job.facts,
        network=job.network,
        threads=job.threads,
        trained=network.trained,
        finetuned=network.finetuned,
        pruned=network.pruned,
        quantized={each.weight_bits: each for each in network.quantized},
        exports=network.exports,
        predicted=validated.predicted,
        observed=validated.observed,
        targets=validated.targets,
        notes=tuple(job.run.notes),
        versions=library_versions(),
        unpruned=network.unpruned_export,
        settings=_settings(job),
        started=job.asked.started,
        commit=job.asked.commit,
        hints=(*job.checked.hints, *job.facts.hints),
    )


def _settings(job: _Job) -> dict[str, str]:
    """Return the recipe's settings, and how the network that fine-tuning starts from was trained here."""
    settings = settings_of(job.recipe)
    if job.recipe.finetune and job.scratch:
        start = settings_of(job.scratch.recipe).items()
        settings |= {f"start.{name}": value for name, value in start if name.startswith(("data", "seed", "train."))}
    return settings


def _hand_over(job: _Job, outcome: Outcome) -> None:
    """Write what goes along with the model files for whoever gets them."""
    handover = handover_of(outcome)
    if handover is None:
        return
    write_atomic(job.run.folder / MODEL_FILE, to_json(handover, indent=1) + b"\n")
    if handover.labels:
        write_atomic(job.run.folder / LABELS_FILE, labels_text(handover.labels).encode())


def _report(job: _Job, outcome: Outcome) -> None:
    files = job.run.step(
        "report",
        report,
        outcome=outcome,
        data=job.asked.data,
        facts=job.facts,
        folder=job.run.folder.as_posix(),
        command=job.asked.command,
    )
    write_atomic(job.run.folder / REPORT_FILE, job.run.store.get(files.html))
    write_atomic(job.run.folder / REPORT_JSON_FILE, job.run.store.get(files.json))
