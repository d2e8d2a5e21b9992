"""The training half of a plausible run: checkpoints with their curves, pruning steps, quality of layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.artifacts import (
    Checkpoint,
    Epoch,
    Finetuned,
    LayerCost,
    LayerQuality,
    NetworkRef,
    Pruned,
    PruneStep,
    Quantized,
    SparsityTrial,
    TransferPoint,
)

SHA = "0123456789abcdef" * 4


def history(phase: str, epochs: int, start: float, end: float) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(
            phase=phase,
            index=index,
            learning_rate=1e-3,
            train_loss=0.05 + 2.0 * (1 - start) * float(np.exp(-index / 5)),
            val_accuracy=end - (end - start) * float(np.exp(-index / 4)) + 0.003 * float(np.sin(5 * index)),
            duration_s=0.41,
        )
        for index in range(1, epochs + 1)
    )


def checkpoint(network: NetworkRef, history: tuple[Epoch, ...]) -> Checkpoint:
    best = max((epoch.val_accuracy for epoch in history), default=0.9)
    return Checkpoint(network=network, weights=SHA, val_accuracy=best, history=history)


def finetuned(network: NetworkRef) -> Finetuned:
    points = ((10, 0.921, 0.842), (30, 0.955, 0.917), (100, 0.978, 0.969), (None, 0.986, 0.981))
    return Finetuned(
        checkpoint=checkpoint(network, history("finetune", 30, 0.7, 0.986)),
        start="recipe:printed-digits",
        replaced_head=(),
        transfer=tuple(TransferPoint(labels_per_class=n, transferred=t, from_scratch=s) for n, t, s in points),
    )


def pruned(network: NetworkRef) -> Pruned:
    first = PruneStep(
        index=1,
        macs_before=1_246_080,
        macs_after=934_500,
        parameters_before=64_300,
        parameters_after=52_100,
        latency_ratio=0.83,
        latency_ratio_low=0.79,
        latency_ratio_high=0.88,
        val_accuracy_before=0.986,
        val_accuracy_after=0.985,
        kept=True,
        why="17 % faster, 0.10 pp lost",
    )
    second = dataclasses.replace(
        first,
        index=2,
        macs_before=934_500,
        macs_after=622_720,
        parameters_before=52_100,
        parameters_after=44_226,
        latency_ratio=1.01,
        latency_ratio_low=0.97,
        latency_ratio_high=1.05,
        val_accuracy_before=0.985,
        val_accuracy_after=0.979,
        kept=False,
        why="the exported file did not get faster: 1.01 times, 0.97 … 1.05",
    )
    trial = SparsityTrial(
        sparsity=0.9, val_accuracy=0.95, latency_ratio=1.0, size_ratio=1.0, compressed_size_ratio=0.24
    )
    epochs = history("recovery 1", 6, 0.96, 0.985) + history("recovery 2", 6, 0.95, 0.979)
    return Pruned(checkpoint=checkpoint(network, epochs), steps=(first, second), sparsity=trial)


def quantized(network: NetworkRef, bits: int, layers: Sequence[LayerCost], *, int8: bool) -> Quantized:
    rows = tuple(
        LayerQuality(
            layer=cost.layer,
            weight_sqnr_db=41.0 - index if cost.parameters else None,
            activation_sqnr_db=38.5 - index,
            output_sqnr_db=24.0 + 3.0 * index,
            precision="int8",
        )
        for index, cost in enumerate(layers)
    )
    return Quantized(
        checkpoint=checkpoint(network, history("qat", 6, 0.978, 0.985) if int8 else ()),
        method="qat" if int8 else "none",
        weight_bits=bits,
        ptq_val_accuracy=0.978,
        layers=rows if int8 else (),
        float_layers=(),
    )
