"""The pipeline on one screen: stage after stage, each recalled or run; the only fan-out is over targets.

Stages are named, not imported (``deferred``): a run that is recalled whole never loads torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline import catalog
from pipeline.artifacts import (
    Checkpoint,
    DataRef,
    ExportSet,
    Finetuned,
    NetworkRef,
    Outcome,
    Pruned,
    Quantized,
    Start,
    Validated,
    WeightsFile,
)
from pipeline.data.files import sha256_of
from pipeline.data.load import load, reference
from pipeline.errors import ConfigError, ModelError, nearest
from pipeline.host import machine_name
from pipeline.keys import library_versions
from pipeline.progress import Progress
from pipeline.records import from_json, to_json
from pipeline.run import UNREADABLE, Run, deferred, open_run, read_run, repeatable
from pipeline.spec import Recipe, TargetProfile, TrainSpec
from pipeline.store import Store, write_atomic

if TYPE_CHECKING:
    from pipeline.stages.check import check
    from pipeline.stages.export import export
    from pipeline.stages.finetune import finetune
    from pipeline.stages.importing import import_weights
    from pipeline.stages.prune import prune
    from pipeline.stages.quantize import quantize
    from pipeline.stages.report import report
    from pipeline.stages.train import train
    from pipeline.stages.validate import validate
else:
    check = deferred("pipeline.stages.check", "check")
    train = deferred("pipeline.stages.train", "train")
    import_weights = deferred("pipeline.stages.importing", "import_weights")
    finetune = deferred("pipeline.stages.finetune", "finetune")
    prune = deferred("pipeline.stages.prune", "prune")
    quantize = deferred("pipeline.stages.quantize", "quantize")
    export = deferred("pipeline.stages.export", "export")
    validate = deferred("pipeline.stages.validate", "validate")
    report = deferred("pipeline.stages.report", "report")

StageName = Literal["train", "finetune", "prune", "quantize", "export", "validate", "report"]
STAGES: tuple[StageName, ...] = ("train", "finetune", "prune", "quantize", "export", "validate", "report")
RUNS = Path("runs")
OUTCOME_FILE, REPORT_FILE, REPORT_JSON_FILE = "outcome.json", "report.html", "report.json"


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
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A run in progress and what it works on."""

    run: Run
    recipe: Recipe
    recipe_file: Path
    start: Path | None  # what fine-tuning begins with: a recipe, a run folder or a weights file
    data: DataRef
    network: NetworkRef
    wanted: tuple[StageName, ...]
    command: tuple[str, ...]


def run_recipe(request: RunRequest, progress: Progress) -> Outcome:
    """Run a recipe for its targets, up to ``request.until``, and return all that was found out.

    Raises ConfigError, DataError, ModelError … as the stages do; what was done before is recalled next time.
    """
    recipe, _ = catalog.load_recipe(request.recipe, request.overrides)
    recipe_file = catalog.find("recipe", request.recipe)
    targets = _targets(request.targets)
    start = _find_start(recipe, recipe_file, request.overrides)
    data, network = _inputs(recipe, recipe_file, request.overrides)
    until = request.until or STAGES[-1]
    with open_run(
        request.out or RUNS / recipe.name,
        progress=progress,
        device=request.device,
        fresh=request.fresh,
        recipe=recipe,
        command=request.command,
    ) as run:
        wanted = STAGES[: STAGES.index(until) + 1]
        job = _Job(
            run=run,
            recipe=recipe,
            recipe_file=recipe_file,
            start=start,
            data=data,
            network=network,
            wanted=wanted,
            command=repeatable(request.command),
        )
        outcome = _pipeline(job, targets)
        if "report" in wanted:
            _report(job, outcome)
        write_atomic(run.folder / OUTCOME_FILE, to_json(outcome))
        return replace(outcome, notes=tuple(run.notes))


def _pipeline(job: _Job, targets: Sequence[TargetProfile]) -> Outcome:
    """Train once, quantize and export once per weight width, validate once per target."""
    run, recipe, wanted = job.run, job.recipe, job.wanted
    run.step(
        "check",
        check,
        network=job.network,
        pruned=recipe.prune.amount > 0,
        quantized=recipe.quantize.method != "none",
    )
    trained, finetuned = _train(job)
    latest = finetuned.checkpoint if finetuned else trained
    plan = recipe.finetune.train if recipe.finetune else recipe.train
    pruned: Pruned | None = None
    quantized: dict[int, Quantized] = {}
    exports: dict[int, ExportSet] = {}
    validated: tuple[Validated, ...] = ()
    if "prune" in wanted and latest:
        pruned = run.step(
            "prune", prune, data=job.data, checkpoint=latest, spec=recipe.prune, train=plan, seed=recipe.seed
        )
    if "quantize" in wanted and pruned:
        quantized = {bits: _quantize(job, pruned, plan, bits) for bits in _weight_bits(targets)}
    if "export" in wanted and pruned:
        exports = {bits: _export(job, pruned, int8) for bits, int8 in quantized.items()}
    if "validate" in wanted and pruned:
        validated = tuple(
            _validate(job, pruned, quantized[target.weight_bits], exports[target.weight_bits], target)
            for target in targets
        )
    return Outcome(
        run=run.folder.resolve().name,
        recipe=recipe.name,
        summary=recipe.summary,
        data=job.data,
        network=job.network,
        trained=trained,
        finetuned=finetuned,
        pruned=pruned,
        quantized=quantized,
        exports=exports,
        targets=validated,
        target_bits={target.name: target.weight_bits for target in targets},
        notes=tuple(run.notes),
        versions=library_versions(),
    )


def _weight_bits(targets: Iterable[TargetProfile]) -> list[int]:
    return sorted({target.weight_bits for target in targets}, reverse=True)


def _quantize(job: _Job, pruned: Pruned, plan: TrainSpec, bits: int) -> Quantized:
    return job.run.step(
        f"quantize{_width(bits)}",
        quantize,
        data=job.data,
        checkpoint=pruned.checkpoint,
        spec=job.recipe.quantize,
        train=plan,
        weight_bits=bits,
        seed=job.recipe.seed,
    )


def _export(job: _Job, pruned: Pruned, quantized: Quantized) -> ExportSet:
    """Write the files and put copies beside run.json under names that people can read."""
    exported = job.run.step(
        f"export{_width(quantized.weight_bits)}",
        export,
        name=job.recipe.name,
        checkpoint=pruned.checkpoint,
        quantized=quantized,
    )
    for file in exported.files:
        write_atomic(job.run.folder / file.filename, job.run.store.get(file.file))
    return exported


def _validate(job: _Job, pruned: Pruned, quantized: Quantized, exports: ExportSet, target: TargetProfile) -> Validated:
    return job.run.step(
        f"validate-{target.name}",
        validate,
        target=target,
        data=job.data,
        exports=exports,
        float_checkpoint=pruned.checkpoint,
        quantized=quantized,
        limits=job.recipe.limits,
        machine=machine_name(),
    )


def _width(bits: int) -> str:
    return "" if bits == 8 else f"-w{bits}"


def _train(job: _Job) -> tuple[Checkpoint | None, Finetuned | None]:
    """Train from scratch, or get the start's weights and fine-tune."""
    recipe = job.recipe
    if recipe.finetune is None:
        return job.run.step(
            "train", train, data=job.data, network=job.network, spec=recipe.train, seed=recipe.seed
        ), None
    assert job.start is not None  # noqa: S101  there is one wherever [finetune] is
    trained, start = _start(job, recipe.finetune.start, job.start)
    if "finetune" not in job.wanted:
        return trained, None
    finetuned = job.run.step(
        "finetune",
        finetune,
        data=job.data,
        network=job.network,
        start=start,
        spec=recipe.finetune,
        scratch=recipe.train,
        seed=recipe.seed,
    )
    return trained, finetuned


def _start(job: _Job, where: str, found: Path) -> tuple[Checkpoint | None, Start]:
    """Weights to begin with: ``recipe:NAME`` is trained here, ``run:FOLDER`` and ``weights:FILE`` are brought in."""
    kind, _, name = where.partition(":")
    if kind == "recipe":
        recipe, _ = catalog.load_recipe(name, beside=job.recipe_file.parent)
        data, network = _inputs(recipe, found)
        trained = job.run.step("train", train, data=data, network=network, spec=recipe.train, seed=recipe.seed)
        return trained, Start(label=where, weights=trained.weights, edits=trained.edits)
    if kind == "run":
        checkpoint, store = _float_checkpoint(found)
        return None, Start(
            label=where, weights=job.run.store.put(store.get(checkpoint.weights)), edits=checkpoint.edits
        )
    file_ref = WeightsFile(sha256=sha256_of(found), path=found)
    return None, job.run.step("start", import_weights, file=file_ref)


def _find_start(recipe: Recipe, file: Path, overrides: Sequence[str]) -> Path | None:
    """Find what fine-tuning begins with, before anything is trained for it."""
    if recipe.finetune is None:
        return None
    kind, _, name = recipe.finetune.start.partition(":")
    with catalog.said_in(file, "finetune.start", recipe.finetune.start, overrides):
        if kind == "recipe":
            return catalog.find("recipe", name, beside=file.parent)
        return find_run(name) if kind == "run" else catalog.find_file(name, beside=file.parent)


def _float_checkpoint(folder: Path) -> tuple[Checkpoint, Store]:
    outcome = load_outcome(folder)
    for checkpoint in (
        outcome.pruned and outcome.pruned.checkpoint,
        outcome.finetuned and outcome.finetuned.checkpoint,
        outcome.trained,
    ):
        if checkpoint:
            return checkpoint, Store(folder / "store")
    raise ModelError("this run has no trained network yet", where=str(folder), remedy="finish it first")


def find_run(name: str) -> Path:
    """Return the folder of a run: a path, or a name under ``runs/``.  Raises ConfigError when there is none."""
    for folder in (Path(name), RUNS / name):
        if (folder / "run.json").is_file():
            return folder
    known = [file.parent.name for file in RUNS.glob("*/run.json")]
    raise ConfigError(f"there is no run '{name}'{nearest(name, known)}", remedy="make one with: karui run")


def load_outcome(folder: Path) -> Outcome:
    """Return what a finished run found out.  Raises ConfigError when ``folder`` is no finished run."""
    read_run(folder)
    file = folder / OUTCOME_FILE
    if not file.is_file():
        raise ConfigError(
            "this run has not finished",
            where=str(folder),
            remedy=f"finish it: {again(folder)}",
        )
    try:
        return from_json(Outcome, file.read_bytes())
    except ValueError as error:
        raise ConfigError(UNREADABLE, where=str(file), remedy=f"make it anew: {again(folder)}") from error


def again(folder: Path) -> str:
    """Return the command that finishes the run in ``folder``, or makes its results anew."""
    info = read_run(folder)
    recipe = info.recipe.name if info.recipe else info.name
    return info.again or shlex.join(("karui", "run", recipe, "--out", str(folder)))


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


def _inputs(recipe: Recipe, file: Path, overrides: Sequence[str] = ()) -> tuple[DataRef, NetworkRef]:
    with catalog.said_in(file, "data", recipe.data, overrides):
        card, folder = catalog.load_card(recipe.data, beside=file.parent)
    data = reference(card, folder)
    classes = card.classes or load(data).classes
    with catalog.said_in(file, "network.file", recipe.network.file, overrides):
        network = catalog.network_ref(
            recipe.network, beside=file.parent, input_shape=card.input.shape, classes=len(classes)
        )
    return data, network


def _report(job: _Job, outcome: Outcome) -> None:
    files = job.run.step(
        "report", report, outcome=outcome, data=job.data, folder=job.run.folder.as_posix(), command=job.command
    )
    write_atomic(job.run.folder / REPORT_FILE, job.run.store.get(files.html))
    write_atomic(job.run.folder / REPORT_JSON_FILE, job.run.store.get(files.json))
