"""Our int8 file beside ONNX Runtime's own quantize_static (U8S8 and S8S8) of the same float file, in one run.

All files run interleaved in ONNX Runtime on this machine, one thread, and on the whole test split.  The noise of the
comparison is measured too: the same file of ours is put in twice, and its two copies differ by nothing but noise.

    python bench/bench_peers.py runs/digits [runs/fashion-resnet8 …] [--budget-s 30]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from pipeline.artifacts.outcome import Outcome
from pipeline.data.calibration import calibration_indices
from pipeline.data.load import load
from pipeline.judging.latency import ratio
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import prepare
from pipeline.onboard.session import Session
from pipeline.onboard.timing import Opener, measure
from pipeline.runs.finished import find_run, load_outcome
from pipeline.runtimes import open_session
from pipeline.tasks import named

OURS, AGAIN = "karui int8", "karui int8 again (noise)"
PEERS = {"quantize_static U8S8": QuantType.QUInt8, "quantize_static S8S8": QuantType.QInt8}
SESSIONS, ROUNDS = 40, 100  # of each file


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hand the calibration samples to ONNX Runtime, one by one."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self.left: Iterator[NDArray[np.float32]] = iter(inputs[:, None])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next sample, None at the end."""
        sample = next(self.left, None)
        return None if sample is None else {"input": sample}


def peers(float_file: Path, calibration: NDArray[np.float32], folder: Path) -> dict[str, Path]:
    """Quantize the float file as ONNX Runtime's documentation advises: pre-process, QDQ, per channel."""
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(float_file), str(prepared))
    made = {}
    for name, activations in PEERS.items():
        made[name] = folder / f"{name.split()[1]}.onnx"
        quantize_static(
            str(prepared),
            str(made[name]),
            Reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    return made


def compare(outcome: Outcome, run: Path, budget_s: float, folder: Path) -> None:
    """Print one table."""
    dataset, task = load(outcome.data), named(outcome.task)

    def prepared(inputs: Arrays) -> Arrays:
        return prepare(inputs, outcome.facts.frontend)

    signature = outcome.facts.signature
    calibration = prepared(dataset.train.read(calibration_indices(dataset)).inputs)[signature.input.name]
    written = {file.variant.key: run / file.filename for file in outcome.files}
    paths = {"float": written["onnx-fp32"], OURS: written["onnx-int8"], AGAIN: written["onnx-int8"]}
    paths |= peers(written["onnx-fp32"], calibration, folder)

    def opened(path: Path) -> Session:
        return open_session(path, "onnxruntime", threads=1, signature=signature)

    def opener(path: Path) -> Opener:
        return lambda: opened(path).timer({signature.input.name: calibration[:1]})

    openers = {name: opener(path) for name, path in paths.items()}
    times_ms = measure(openers, sessions=SESSIONS, rounds=ROUNDS, budget_s=budget_s, seed=0)
    medians_ms = {name: np.median(taken, axis=1) for name, taken in times_ms.items()}
    chosen = outcome.predicted[0].chosen
    answers = {
        name: task.answer(opened(path).run, dataset.test, prepared, chosen=chosen) for name, path in paths.items()
    }
    metric = task.METRIC
    print(f"\n{run.name}: {len(dataset.test)} test inputs, {len(times_ms[OURS])} sessions of each file, 1 thread")
    print(f"{'file':28} {'bytes':>9} {'p50 µs':>8} {'time / ours':>21} {metric.name:>10} {'minus ours':>27}")
    for name, path in paths.items():
        speed = ratio(medians_ms[name], medians_ms[OURS])
        gap = task.compare(answers[OURS], answers[name], dataset.test)
        print(
            f"{name:28} {path.stat().st_size:9,} {1000 * np.median(times_ms[name]):8.1f} "
            f"{speed.value:7.2f} ({speed.low:.2f} to {speed.high:.2f}) {metric.text(answers[name].value, 2):>10} "
            f"{gap.difference:+9.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        )


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--budget-s", default=30.0, show_default=True, help="How long to measure each run's files.")
def main(runs: tuple[str, ...], budget_s: float) -> None:
    """Compare the int8 files of finished runs with ONNX Runtime's own quantization."""
    for name in runs:
        run = find_run(name)
        with tempfile.TemporaryDirectory() as folder:
            compare(load_outcome(run), run, budget_s, Path(folder))


if __name__ == "__main__":
    main()
