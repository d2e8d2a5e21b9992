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
from pipeline.onboard.frontend.normalize import normalize
from pipeline.data.source import Dataset
from pipeline.flow import find_run, load_outcome
from pipeline.onboard.timing import measure_interleaved, ratio
from pipeline.runtimes import Session, open_session
from pipeline.judging.stats import compare_paired

OURS, AGAIN = "karui int8", "karui int8 again (noise)"
PEERS = {"quantize_static U8S8": QuantType.QUInt8, "quantize_static S8S8": QuantType.QInt8}


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
    dataset: Dataset = load(outcome.data)
    spec = outcome.data.card.input
    calibration = normalize(dataset.train.read(calibration_indices(dataset)), spec)
    files = {file.key: run / file.filename for file in outcome.exports[8].files}
    paths = {"float": files["onnx-fp32"], OURS: files["onnx-int8"], AGAIN: files["onnx-int8"]}
    paths |= peers(files["onnx-fp32"], calibration, folder)
    sessions = {name: open_session(path, "onnxruntime", threads=1) for name, path in paths.items()}
    times = measure_interleaved(
        {name: session.invoker(calibration[:1]) for name, session in sessions.items()},
        rounds=100_000,
        budget_s=budget_s,
    )
    classes = {name: answers(session, dataset) for name, session in sessions.items()}
    right = {name: said == dataset.test.labels for name, said in classes.items()}
    print(f"\n{run.name}: {len(dataset.test)} test inputs, {len(times[OURS])} rounds, 1 thread")
    print(f"{'file':28} {'bytes':>9} {'p50 µs':>8} {'time / ours':>21} {'accuracy':>9} {'minus ours, pp':>24}")
    for name, path in paths.items():
        speed = ratio(times[name], times[OURS])
        gap = compare_paired(right[OURS], right[name], same_class=classes[OURS] == classes[name])
        print(
            f"{name:28} {path.stat().st_size:9,} {1000 * np.median(times[name]):8.1f} "
            f"{speed.value:7.2f} ({speed.low:.2f} to {speed.high:.2f}) {100 * right[name].mean():8.2f}% "
            f"{gap.difference_pp:+8.2f} ({gap.low_pp:+.2f} to {gap.high_pp:+.2f})"
        )


def answers(session: Session, dataset: Dataset) -> NDArray[np.int64]:
    """Return the class of every test input, read in pieces."""
    pieces = np.array_split(np.arange(len(dataset.test)), max(1, len(dataset.test) // 1000))
    classes = [session.run(normalize(dataset.test.read(piece), dataset.card.input)).argmax(1) for piece in pieces]
    return np.concatenate(classes)


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
