"""From data to files: trained once, quantized and exported once per weight width."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.artifacts.files import ExportSet
from pipeline.artifacts.networks import WeightsFile
from pipeline.artifacts.training import Checkpoint, Finetuned, Pruned, Quantized, Start
from pipeline.data.files import sha256_of
from pipeline.errors import ModelError
from pipeline.flow.job import Job, ToTrain, measured_here, runtimes_here
from pipeline.flow.stages import export, finetune, import_weights, prune, quantize, train
from pipeline.host import is_this_machine
from pipeline.instruments import counts
from pipeline.instruments.known import kernels_of
from pipeline.instruments.modelled import ByKernels
from pipeline.runs.finished import (
    load_outcome,
    store_of,
)
from pipeline.runs.store import Store, write_atomic


@dataclass(frozen=True, kw_only=True)
class Network:
    """What became of the network up to its files."""

    trained: Checkpoint | None = None
    finetuned: Finetuned | None = None
    pruned: Pruned | None = None
    unpruned: Checkpoint | None = None  # before pruning; None where no channel went
    quantized: tuple[Quantized, ...] = ()
    exports: tuple[ExportSet, ...] = ()
    unpruned_export: ExportSet | None = None


def make(job: Job) -> Network:
    """Train once, quantize and export once per weight width."""
    trained, finetuned = _train(job)
    latest = finetuned.checkpoint if finetuned else trained
    network = Network(trained=trained, finetuned=finetuned)
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


def _train(job: Job) -> tuple[Checkpoint | None, Finetuned | None]:
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


def _train_from_scratch(job: Job, what: ToTrain) -> Checkpoint:
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


def _start(job: Job, where: str, found: Path, trained: Checkpoint | None) -> Start:
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


def _prune(job: Job, latest: Checkpoint) -> Pruned:
    """Prune for the first target: by what is estimated of it, by a clock where that is this machine or nothing is."""
    recipe, target = job.recipe, job.asked.targets[0]
    counted = recipe.prune.decide_by == "macs"
    kernels = None if counted or is_this_machine(target) else kernels_of(target)
    precision = "fp32" if recipe.quantize.method == "none" else target.precision
    return job.run.step(
        "prune",
        prune,
        data=job.asked.data,
        facts=job.facts,
        checkpoint=latest,
        spec=recipe.prune,
        train=job.plan,
        seed=recipe.seed,
        threads=job.threads.count,
        device=job.asked.device,
        place=kernels.place if kernels else counts.PLACE if counted else measured_here(),
        by_kernels=ByKernels(kernels=kernels, precision=precision) if kernels else None,
    )


def _quantize(job: Job, network: Network, bits: int) -> Quantized:
    assert network.pruned is not None  # noqa: S101  quantized after pruning
    return job.run.step(
        f"quantize{narrow_suffix(bits)}",
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


def _export(job: Job, network: Network) -> list[ExportSet]:
    """Write the files and put copies beside run.json under names that people can read."""
    assert network.pruned is not None  # noqa: S101  exported after pruning
    weights: dict[str, Checkpoint | Quantized] = {"export": network.pruned.checkpoint}
    weights |= {f"export-int8{narrow_suffix(each.weight_bits)}": each for each in int8_of(network)}
    exports = [
        job.run.step(
            step,
            export,
            name=job.recipe.name,
            data=job.asked.data,
            facts=job.facts,
            weights=each,
            runtimes=runtimes_here(),
            spec=job.recipe.export,
        )
        for step, each in weights.items()
    ]
    for file in (file for each in exports for file in each.files):
        write_atomic(job.run.folder / file.filename, job.run.store.get(file.file))
    return exports


def _export_unpruned(job: Job, before: Checkpoint | None) -> ExportSet | None:
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
        runtimes=runtimes_here(),
        unpruned=True,
    )


def int8_of(network: Network) -> tuple[Quantized, ...]:
    """Return what was quantized, one per weight width; nothing where the recipe asks for none."""
    return tuple(each for each in network.quantized if each.method != "none")


def narrow_suffix(bits: int) -> str:
    """Return what tells steps of narrower weights from those of 8 bits."""
    return "" if bits == 8 else f"-w{bits}"
