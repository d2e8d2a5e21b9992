"""What was asked for: recipe, data, start and targets, all found before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import catalog
from pipeline.artifacts.measured import Measurements
from pipeline.artifacts.networks import DataRef
from pipeline.artifacts.outcome import Commit
from pipeline.data.kinds import own_spec
from pipeline.data.load import reference
from pipeline.declare.recipe import Recipe
from pipeline.declare.target import TargetProfile
from pipeline.elsewhere import is_elsewhere
from pipeline.errors import ConfigError, nearest
from pipeline.flow.stages import STAGES, StageName
from pipeline.git import commit_of
from pipeline.host import training_device
from pipeline.instruments import brought
from pipeline.progress import Progress
from pipeline.runs.cache import cache_folder
from pipeline.runs.finished import (
    RUNS,
    find_run,
)
from pipeline.runs.journal import now
from pipeline.runs.measurements import read_measurements
from pipeline.runs.run import repeatable
from pipeline.shipped import shipped_folder
from pipeline.tasks import Task, named


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
    emulate: bool = False  # run the files on the targets' processors, emulated
    budget_minutes: float = 10.0  # for each emulated target
    measurements: tuple[Path, ...] = ()  # files of `karui bench`, from the targets themselves
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asked:
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
    emulation_s: float | None  # time for each emulated target; None: none is emulated
    brought: tuple[Measurements, ...]  # what was measured on the targets themselves
    started: str  # ISO 8601, UTC
    commit: Commit | None


def asked_of(request: RunRequest, progress: Progress) -> Asked:
    """Find everything that a request names.  Raises ConfigError for what is not there or does not fit."""
    recipe, _ = catalog.load_recipe(request.recipe, request.overrides)
    if request.threads is not None:
        recipe = recipe.model_copy(update={"threads": request.threads})
    file = catalog.find("recipe", request.recipe)
    data = data_of(recipe, file, request.overrides, progress)
    with catalog.said_in(file, "network.file", recipe.network.file, request.overrides):
        if not is_elsewhere(recipe.network.file):
            catalog.find("network", recipe.network.file, beside=file.parent)
    task = named(data.card.task)
    _check_limits(recipe, task, file)
    until = request.until or STAGES[-1]
    targets = _targets(request.targets)
    return Asked(
        recipe=recipe,
        recipe_file=file,
        start=_find_start(recipe, file, request.overrides),
        data=data,
        task=task,
        targets=targets,
        device=training_device(request.device),
        wanted=STAGES[: STAGES.index(until) + 1],
        command=repeatable(request.command),
        overrides=request.overrides,
        emulation_s=60 * request.budget_minutes if request.emulate else None,
        brought=_brought(request.measurements, targets),
        started=now(),
        commit=commit_of(_own_folder(file), without=(RUNS, request.out or RUNS, cache_folder())),
    )


def _brought(files: Sequence[Path], targets: Sequence[TargetProfile]) -> tuple[Measurements, ...]:
    """Read what was measured on the targets, before anything is trained that it could not be of."""
    found = tuple(map(read_measurements, files))
    for each in found:
        brought.check_of(each, targets)
    return found


def _own_folder(recipe_file: Path) -> Path:
    """Return the folder whose history says what was run: the recipe's, or of one that comes with karui the current."""
    shipped = shipped_folder("models")
    return Path.cwd() if recipe_file.is_relative_to(shipped) else recipe_file.parent


def data_of(recipe: Recipe, file: Path, overrides: Sequence[str], progress: Progress | None = None) -> DataRef:
    """Return the reference to a recipe's data.  Raises ConfigError, DataError."""
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
