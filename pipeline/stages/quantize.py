"""quantize: calibrate (PTQ), train with fake-quantization (QAT), put layers back to float if the margin is missed."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, fx

from pipeline.artifacts import Checkpoint, DataRef, Epoch, LayerQuality, Quantized
from pipeline.checkpoints import learn_step_sizes, restore_float, save
from pipeline.data.calibration import calibration_indices
from pipeline.data.load import load
from pipeline.data.preprocess import normalize
from pipeline.data.source import Dataset
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import fold, prepare, quantized_labels
from pipeline.quant.sensitivity import layer_quality
from pipeline.run import Work, stage
from pipeline.spec import QuantizeSpec, TrainSpec
from pipeline.tasks.classification import accuracy, cross_entropy, distillation
from pipeline.training import Fit, Samples, evaluate, fit, pick_device, samples


@stage(version=1)
def quantize(
    work: Work,
    *,
    data: DataRef,
    checkpoint: Checkpoint,
    spec: QuantizeSpec,
    train: TrainSpec,
    weight_bits: int,
    seed: int,
) -> Quantized:
    """Return the fake-quantized network; ``train`` gives batch size, optimizer and augmentation of QAT.

    Validation accuracy decides: QAT's best epoch is taken unless plain calibration is better, then the layers that hurt
    the output most go back to float, one by one, until the loss is within ``spec.margin_pp``.
    """
    if spec.method == "none":
        return Quantized(
            checkpoint=checkpoint,
            method="none",
            weight_bits=weight_bits,
            ptq_val_accuracy=0,
            layers=(),
            float_layers=(),
        )
    device = pick_device(work.device)
    dataset = load(data)
    folded = fold(restore_float(checkpoint, work.store), checkpoint.network.input_shape)
    calibration = _calibration_inputs(dataset)
    val = samples(dataset.val, data.card.input, device)
    prepared = prepare(folded, weight_bits=weight_bits)
    calibrate(prepared, calibration, spec)
    ptq_accuracy = accuracy(*evaluate(prepared.to(device), val))
    history: list[Epoch] = []
    if spec.method == "qat":
        calibrated = copy.deepcopy(prepared)
        history = _train(work, prepared, folded, dataset, val=val, spec=spec, train=train, seed=seed)
        if max(epoch.val_accuracy for epoch in history) < ptq_accuracy:
            prepared = calibrated
    prepared.cpu()
    folded.cpu()  # as a teacher it went to the device
    quality = layer_quality(prepared, calibration)
    prepared, float_layers, reached = _within_margin(
        prepared, folded, quality, val=samples(dataset.val, data.card.input, torch.device("cpu")),
        wanted=checkpoint.val_accuracy - spec.margin_pp / 100, weight_bits=weight_bits, work=work,
    )  # fmt: skip
    return Quantized(
        checkpoint=save(
            prepared,
            work.store,
            ref=checkpoint.network,
            edits=checkpoint.edits,
            val_accuracy=reached,
            history=history,
        ),
        method=spec.method,
        weight_bits=weight_bits,
        ptq_val_accuracy=ptq_accuracy,
        layers=tuple(replace(row, precision="fp32") if row.layer in float_layers else row for row in quality),
        float_layers=tuple(float_layers),
    )


def _calibration_inputs(dataset: Dataset) -> Tensor:
    raw = dataset.train.read(calibration_indices(dataset))
    return torch.from_numpy(normalize(raw, dataset.card.input))  # (calibration samples, …)


def _train(
    work: Work,
    prepared: fx.GraphModule,
    folded: fx.GraphModule,
    dataset: Dataset,
    *,
    val: Samples,
    spec: QuantizeSpec,
    train: TrainSpec,
    seed: int,
) -> list[Epoch]:
    device = pick_device(work.device)
    if spec.ranges == "lsq":
        learn_step_sizes(prepared)
    plan = train.model_copy(
        update={
            "epochs": spec.epochs,
            "learning_rate": spec.learning_rate,
            "schedule": "cosine",
            "early_stop_epochs": 0,
        }
    )
    plain = cross_entropy(train.label_smoothing)
    loss = distillation(folded.to(device), spec.distill, train.label_smoothing) if spec.distill else plain
    job = Fit(plan=plan, phase="qat", seed=seed, loss=loss, resume_file=work.scratch / "epoch.pt")
    return fit(prepared, samples(dataset.train, dataset.card.input, device), val, job, work.progress)


def _within_margin(
    prepared: fx.GraphModule,
    folded: fx.GraphModule,
    quality: Collection[LayerQuality],
    *,
    val: Samples,
    wanted: float,
    weight_bits: int,
    work: Work,
) -> tuple[fx.GraphModule, list[str], float]:
    """Put layers back to float, those that cost the network's output most first, until ``wanted`` is reached.

    When nothing reaches it, the best attempt stays, and validation will say so.
    """
    labels = quantized_labels(prepared)
    worst_first = [row.layer for row in sorted(quality, key=lambda row: row.output_sqnr_db) if row.layer in labels]
    weights = prepared.state_dict()
    learned = any(name.endswith("log_scale") for name in weights)
    best = prepared, list[str](), accuracy(*evaluate(prepared, val))
    for count in range(1, len(worst_first) + 1):
        if best[2] >= wanted:
            break
        candidate = prepare(folded, weight_bits=weight_bits, float_layers=worst_first[:count])
        if learned:
            learn_step_sizes(candidate)
        candidate.load_state_dict(weights, strict=False)  # the quantizers of float layers are gone
        reached = accuracy(*evaluate(candidate, val))
        work.progress.say(f"{worst_first[count - 1]} back to float: {100 * reached:.1f} % on the validation split")
        if reached > best[2]:
            best = candidate, worst_first[:count], reached
    return best
