"""The columns of the comparison: every way of running one network, over the whole test split.

N test samples, n of them at once, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.artifacts import Agreement, Column, Exported
from pipeline.data.preprocess import normalize
from pipeline.data.source import Source
from pipeline.progress import Progress
from pipeline.runtimes import Session
from pipeline.spec import InputSpec
from pipeline.stats import wilson_interval
from pipeline.store import Store
from pipeline.tasks.classification import decode

Floats = NDArray[np.float32]

TORCH_FLOAT, TORCH_INT8 = "torch-fp32", "torch-fake-quant"
_READ_SAMPLES = 512  # read and normalized once, then run by every column


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of running the network."""

    artifact: str  # "torch-fp32", "onnx-int8" …
    runtime: str  # "torch 2.13.0", "onnxruntime 1.32.0" …
    output_scale: float | None  # one output step; None: float all the way
    run: Callable[[Floats], Floats]  # (n, *sample) → (n, K)

    @property
    def name(self) -> str:
        """Name it for people."""
        return self.artifact if self.artifact.startswith("torch") else f"{self.artifact} in {self.runtime}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Ran:
    """What one way gave on the whole test split."""

    way: Way
    outputs: Floats  # (N, K)
    correct: NDArray[np.bool_]  # (N,)


def torch_way(artifact: str, network: nn.Module, *, output_scale: float | None = None) -> Way:
    """Run a network in torch, on the CPU: a GPU's shorter floats would differ from the files more than the files do."""
    network = network.cpu().eval()

    def run(x: Floats) -> Floats:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(x)).float().numpy())

    return Way(artifact=artifact, runtime=f"torch {torch.__version__}", output_scale=output_scale, run=run)


def session_way(file: Exported, session: Session) -> Way:
    """Run an exported file in a runtime."""
    return Way(artifact=file.key, runtime=session.label, output_scale=session.output_scale, run=session.run)


def run_all(ways: Mapping[str, Way], source: Source, spec: InputSpec, progress: Progress) -> dict[str, Ran]:
    """Run every way over all samples, under the same names; the source is read once, in portions."""
    outputs: dict[str, list[Floats]] = {name: [] for name in ways}
    starts = range(0, len(source), _READ_SAMPLES)
    progress.start("test split", len(starts) * len(ways))
    for start in starts:
        x = normalize(source.read(np.arange(start, min(start + _READ_SAMPLES, len(source)))), spec)  # (n, *sample)
        for name, way in ways.items():
            outputs[name].append(way.run(x))
            progress.advance()
    return {name: _ran(way, np.concatenate(outputs[name]), source.labels) for name, way in ways.items()}


def _ran(way: Way, outputs: Floats, labels: NDArray[np.int64]) -> Ran:
    return Ran(way=way, outputs=outputs, correct=decode(outputs) == labels)


def column(ran: Ran, store: Store) -> Column:
    """Keep the outputs in the store and sum them up."""
    accuracy = wilson_interval(int(ran.correct.sum()), len(ran.correct))
    return Column(
        artifact=ran.way.artifact,
        runtime=ran.way.runtime,
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        outputs=store.put_array(ran.outputs),
        output_scale=ran.way.output_scale,
    )


def agreement(first: Ran, second: Ran) -> Agreement:
    """Compare two ways sample by sample, in steps of the quantized output.

    Where the last layer was left float there are no steps: 1/255 of the outputs' range stands for one.
    """
    scale = first.way.output_scale or second.way.output_scale or max(float(np.ptp(first.outputs)) / 255, 1e-30)
    # rounded: both are whole steps, computed as step * scale in float32
    steps = np.rint(np.abs(first.outputs - second.outputs) / np.float32(scale))
    return Agreement(
        first=first.way.name,
        second=second.way.name,
        same_class=float(np.mean(decode(first.outputs) == decode(second.outputs))),
        max_steps=float(steps.max()),
    )


def per_class(
    classes: Sequence[str], labels: NDArray[np.int64], float_run: Ran, int8_run: Ran | None
) -> tuple[tuple[str, int, float, float | None], ...]:
    """Give class, samples, and the share of them that float and int8 find (recall, 0 … 1)."""

    def recall(ran: Ran, chosen: NDArray[np.bool_]) -> float:
        return float(ran.correct[chosen].mean()) if chosen.any() else 0.0

    rows = []
    for index, name in enumerate(classes):
        chosen = labels == index
        found = recall(int8_run, chosen) if int8_run else None
        rows.append((name, int(chosen.sum()), recall(float_run, chosen), found))
    return tuple(rows)
