"""A run in progress: the data looked at, the network checked, the threads settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import catalog
from pipeline.artifacts.evidence import Place
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkCheck, NetworkRef, Threads
from pipeline.declare.recipe import Recipe, TrainSpec
from pipeline.flow.asked import Asked, data_of
from pipeline.flow.stages import StageName, check, choose_threads, describe
from pipeline.host import machine_name, usable_cores
from pipeline.runs.run import Run
from pipeline.runtimes import RUNTIMES, version


@dataclass(frozen=True, kw_only=True)
class ToTrain:
    """What is trained from scratch here: the recipe's own network, or the one that fine-tuning starts from."""

    recipe: Recipe
    data: DataRef
    facts: DataFacts
    network: NetworkRef


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run in progress and what it works on."""

    run: Run
    asked: Asked
    facts: DataFacts
    network: NetworkRef
    threads: Threads
    checked: NetworkCheck
    scratch: ToTrain | None  # None where the start comes from a run or a weights file

    @property
    def recipe(self) -> Recipe:
        """The recipe that is run."""
        return self.asked.recipe

    @property
    def plan(self) -> TrainSpec:
        """How the network that ships is trained: batch size, optimizer and augmentation of all later training."""
        return self.recipe.finetune.train if self.recipe.finetune else self.recipe.train

    def wants(self, stage: StageName) -> bool:
        """Tell whether a stage is to be run."""
        return stage in self.asked.wanted


def job_of(run: Run, asked: Asked) -> Job:
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
    return Job(
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
) -> ToTrain:
    facts = run.step(step, describe, data=data)
    with catalog.said_in(file, "network.file", recipe.network.file, overrides):
        network = catalog.network_ref(recipe.network, beside=file.parent, signature=facts.signature)
    return ToTrain(recipe=recipe, data=data, facts=facts, network=network)


def _start_recipe(run: Run, asked: Asked) -> ToTrain | None:
    """Load the recipe that trains the start, where there is one."""
    if asked.start is None or not asked.recipe.finetune or not asked.recipe.finetune.start.startswith("recipe:"):
        return None
    recipe, _ = catalog.load_recipe(str(asked.start))
    return _to_train(run, "data-of-start", recipe, file=asked.start, data=data_of(recipe, asked.start, ()))


def _threads(run: Run, asked: Asked, own: ToTrain) -> Threads:
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


def runtimes_here() -> dict[str, str]:
    """Return which version of each runtime is here: what was checked without one is checked again once it is there."""
    return {name: version(name) for name in RUNTIMES}


def measured_here() -> Place:
    """Say that numbers are measured on this machine."""
    return Place(how="measured", name=machine_name())
