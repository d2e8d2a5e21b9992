"""quantize: calibrate (PTQ), train with fake-quantization (QAT), put layers back to float if the margin is missed.

Calibration tries the network as it is and equalised, each with and without corrected biases.  Every decision is taken
on the integers that the files will hold, never on fake-quantization alone.

Shapes: N calibration samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from pipeline import tasks
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.artifacts.training import Checkpoint, Epoch, Quantized
from pipeline.data.load import load
from pipeline.data.source import Dataset
from pipeline.declare.recipe import QuantizeSpec, TrainSpec
from pipeline.graph.ends import joined
from pipeline.graph.kinds import compute_nodes
from pipeline.graph.params import QuantParams
from pipeline.networks.checkpoints import learn_step_sizes, restore_float, save
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.adaround import adaround
from pipeline.quant.calibrate import bound_scales, calibrate
from pipeline.quant.correct import correct_biases
from pipeline.quant.deployed import Deployed
from pipeline.quant.equalize import equalized
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.raw import grid_of_bytes, pin_input
from pipeline.quant.samples import calibration_inputs, values_of
from pipeline.quant.sensitivity import output_sqnr_db, sensitivity
from pipeline.runs.run import Work, stage
from pipeline.tasks import Task
from pipeline.training.batches import Samples, hold
from pipeline.training.devices import pick_device, using_threads
from pipeline.training.loop import Fit, best_value, evaluate, fit

_ONE_BY_ONE = 4  # layers back to float, before more are tried at a time
_JUDGED_SAMPLES = 256  # of the validation split, for the choice between ways to calibrate


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """What all parts of the stage share."""

    work: Work
    spec: QuantizeSpec
    train: TrainSpec
    weight_bits: int
    seed: int
    checkpoint: Checkpoint  # of the float network
    task: Task
    dataset: Dataset
    facts: DataFacts
    folded: fx.GraphModule
    val: Samples  # on the processor, where integers are exact
    device: torch.device
    bytes_grid: QuantParams | None  # on which the values of raw bytes lie; None: inputs are no bytes, or on no grid

    def value(self, prepared: fx.GraphModule) -> float:
        """Return the task's metric of a prepared network's integers on the validation split."""
        signature = self.checkpoint.network.signature
        return evaluate(freeze(prepared), self.val, self.task, signature=signature).value

    def inside_margin(self, value: float) -> bool:
        """Tell whether a value is near enough to the float network's."""
        return self.task.METRIC.worse_by_points(value, self.checkpoint.val_metric) <= self.spec.margin_pp


@stage(version=2)
def quantize(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    checkpoint: Checkpoint,
    spec: QuantizeSpec,
    train: TrainSpec,
    weight_bits: int,
    seed: int,
    threads: int,
    device: str,
) -> Quantized:
    """Return the fake-quantized network; ``train`` gives batch size, optimizer and augmentation of QAT.

    Calibration keeps what comes nearest to the float outputs.  The validation metric of the integers decides: QAT's
    best epoch is taken unless plain calibration is better, then the layers that hurt the output most go back to float
    until the loss is within ``spec.margin_pp`` points.  ``threads``: of torch; ``device``: "cpu" or "cuda".
    """
    if spec.method == "none":
        return Quantized(
            checkpoint=checkpoint,
            method="none",
            weight_bits=weight_bits,
            ptq_val_metric=checkpoint.val_metric,
            layers=(),
            float_layers=(),
        )
    with using_threads(threads):
        dataset = load(data)
        job = _Job(
            work=work,
            spec=spec,
            train=train,
            weight_bits=weight_bits,
            seed=seed,
            checkpoint=checkpoint,
            task=tasks.named(data.card.task),
            dataset=dataset,
            facts=facts,
            folded=folded_graph(restore_float(checkpoint, work.store), checkpoint.network.input_shape),
            val=hold(dataset.val, facts.frontend, torch.device("cpu")),
            device=pick_device(device),
            bytes_grid=None if (values := values_of(dataset, facts.frontend)) is None else grid_of_bytes(values),
        )
        return _quantize(job, calibration_inputs(dataset, facts.frontend, job.folded))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Way:
    """One way to calibrate: by a graph, equalised or not, with or without corrected biases."""

    words: str
    graph: fx.GraphModule
    calibrated: fx.GraphModule  # biases as in the graph
    corrected_by: Tensor | None  # calibration samples (N, …)
    trained: bool = False  # with rounding, all layers together

    def with_float(self, layers: Collection[str], *, weight_bits: int) -> fx.GraphModule:
        """Prepare the graph anew with these layers in float: ranges and integer weights stay as they are."""
        weights = self.calibrated.state_dict()
        candidate = prepare(self.graph, weight_bits=weight_bits, float_layers=layers)
        learn_step_sizes(candidate, like=weights)
        if not self.trained:  # what was rounded for its integers is no float weight
            own = {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}
            weights = {name: tensor for name, tensor in weights.items() if name not in own}
        candidate.load_state_dict(weights, strict=False)  # the quantizers of float layers are gone
        bound_scales(candidate)
        return self.finished(candidate)

    def finished(self, prepared: fx.GraphModule) -> fx.GraphModule:
        """Correct the biases of a calibrated graph, in place, if this way does, and return it."""
        if self.corrected_by is not None:
            correct_biases(prepared, self.graph, self.corrected_by)
        return prepared


def _quantize(job: _Job, calibration: Tensor) -> Quantized:
    """Quantize with the calibration samples (N, …)."""
    way, prepared = _best_way(job, calibration)
    ptq_value = job.value(prepared)
    history: list[Epoch] = []
    if job.spec.method == "qat":
        trained = copy.deepcopy(way.calibrated)
        history = _train(job, trained)
        if not job.task.METRIC.better(ptq_value, best_value(history, job.task.METRIC)):
            way, prepared = replace(way, calibrated=trained, corrected_by=None, trained=True), trained
    measured = sensitivity(prepared, calibration, job.work.progress)
    reached = _within_margin(job, way, prepared, measured.worst_first)
    return Quantized(
        checkpoint=save(
            reached.prepared,
            job.work.store,
            ref=job.checkpoint.network,
            edits=job.checkpoint.edits,
            metric=job.task.METRIC,
            val_metric=reached.value,
            history=history,
        ),
        method=job.spec.method,
        weight_bits=job.weight_bits,
        ptq_val_metric=ptq_value,
        layers=tuple(
            replace(row, precision="fp32") if row.layer in reached.float_layers else row for row in measured.rows
        ),
        float_layers=tuple(reached.float_layers),
    )


def _best_way(job: _Job, calibration: Tensor) -> tuple[_Way, fx.GraphModule]:
    """Calibrate in several ways, and return that whose integers come nearest to the float network's outputs."""
    ways = list(_ways(job, calibration))
    prepared = [way.finished(copy.deepcopy(way.calibrated)) for way in ways]
    if len(ways) == 1:
        return ways[0], prepared[0]
    inputs, _ = next(job.val.batches(torch.arange(min(len(job.val), _JUDGED_SAMPLES)), _JUDGED_SAMPLES))
    # of sequences single steps are judged, those that ranges were measured on
    judged = calibration[:_JUDGED_SAMPLES] if job.dataset.card.steps else joined(inputs)
    with torch.no_grad():
        wanted = job.folded(judged)
        sqnr = [output_sqnr_db(job.folded, wanted, freeze(each)(judged)) for each in prepared]
    best = max(range(len(ways)), key=lambda index: sqnr[index])
    job.work.progress.say(f"calibration: {ways[best].words}, {sqnr[best]:.1f} dB; as it is {sqnr[0]:.1f} dB")
    return ways[best], prepared[best]


def _ways(job: _Job, calibration: Tensor) -> Iterator[_Way]:
    graphs = {"as it is": job.folded}
    if job.spec.equalize and (even := equalized(job.folded, calibration)) is not None:
        graphs["equalised"] = even
    for words, graph in graphs.items():
        calibrated = prepare(graph, weight_bits=job.weight_bits)
        calibrate(calibrated, calibration, job.spec)
        if job.bytes_grid is not None:
            pin_input(calibrated, job.bytes_grid)
            bound_scales(calibrated)
        if job.spec.rounding == "adaround":
            adaround(calibrated, calibration, seed=job.seed)
        plain = _Way(words=words, graph=graph, calibrated=calibrated, corrected_by=None)
        yield plain
        if job.spec.correct_biases:
            yield replace(plain, words=f"{words}, biases corrected", corrected_by=calibration)


def _train(job: _Job, prepared: fx.GraphModule) -> list[Epoch]:
    """Train with rounding, in place; every epoch is judged by its integers."""
    spec = job.spec
    if spec.ranges == "lsq":
        learn_step_sizes(prepared)
    plan = job.train.model_copy(
        update={
            "epochs": spec.epochs,
            "learning_rate": spec.learning_rate,
            "schedule": "cosine",
            "early_stop_epochs": 0,
        }
    )
    teacher = copy.deepcopy(job.folded).to(job.device) if spec.distill else None
    fitting = Fit(
        plan=plan,
        task=job.task,
        updates=job.task.updates(plan, teacher=teacher, weight=spec.distill),
        phase="qat",
        seed=job.seed,
        signature=job.checkpoint.network.signature,
        resume_file=job.work.scratch / "epoch.pt",
    )
    train, val = (hold(split, job.facts.frontend, job.device) for split in (job.dataset.train, job.dataset.val))
    history = fit(Deployed(prepared).to(job.device), train, val, fitting, job.work.progress)
    prepared.cpu().eval()
    return history


@dataclass(frozen=True, kw_only=True, eq=False)
class _Attempt:
    """A network with some layers in float, and the metric of its integers."""

    prepared: fx.GraphModule
    float_layers: list[str]
    value: float


def _within_margin(job: _Job, way: _Way, prepared: fx.GraphModule, worst_first: Sequence[str]) -> _Attempt:
    """Put as few layers back to float as keep the margin, those that cost the network's output most first.

    When nothing keeps it, the best attempt stays, and the verdict will say so.
    """
    metric, layers_of = job.task.METRIC, {node.meta["label"] for node in compute_nodes(way.graph)}
    worst_first = [layer for layer in worst_first if layer in layers_of]
    best = _Attempt(prepared=prepared, float_layers=[], value=job.value(prepared))
    kept: dict[int, _Attempt] = {}

    def keeps(count: int) -> bool:
        nonlocal best
        layers = worst_first[:count]
        candidate = way.with_float(layers, weight_bits=job.weight_bits)
        found = _Attempt(prepared=candidate, float_layers=layers, value=job.value(candidate))
        named = layers[0] if count == 1 else f"{layers[-1]} and {count - 1} worse"
        job.work.progress.say(f"{named} back to float: validation {metric.name} {metric.text(found.value)}")
        if metric.better(found.value, best.value):
            best = found
        if job.inside_margin(found.value):
            kept[count] = found
        return count in kept

    if job.inside_margin(best.value):
        return best
    fewest = fewest_that_keep(len(worst_first), keeps)
    return best if fewest is None else kept[fewest]


def fewest_that_keep(most: int, keeps: Callable[[int], bool]) -> int | None:
    """Return the least count of 1 … ``most`` that keeps something, None where none does, by few tries.

    The first few are tried one by one, then twice as many each time; between the last that does not keep it and the
    first that does, half of what is left is dropped at a time.
    """
    counts = list(range(1, min(_ONE_BY_ONE, most) + 1))
    while counts and counts[-1] < most:
        counts.append(min(2 * counts[-1], most))
    fails = count = 0
    for count in counts:
        if keeps(count):
            break
        fails = count
    else:
        return None
    while count - fails > 1:
        middle = (fails + count) // 2
        fails, count = (fails, middle) if keeps(middle) else (middle, count)
    return count
