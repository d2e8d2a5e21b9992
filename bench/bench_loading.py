"""How fast a folder of pictures is read for training, beside ``torch.utils.data.DataLoader`` with as many workers.

2,000 JPEGs of 640x480 are drawn, and become batches of 3x64x64 float32 on both sides by the same function, in an order
of their own in each round.  karui reads them with threads, as in training, the next batch ahead; the DataLoader with
processes, which stay from round to round.  Rounds take turns; the ratio has the interval of the signed-rank test.

    python bench/bench_loading.py [--workers 4] [--rounds 6] [--pictures 2000]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data import pictures
from pipeline.data.pictures import PictureSource
from pipeline.data.source import INPUT
from pipeline.host import machine_name, usable_cores
from pipeline.judging.latency import ratio
from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.frontend import StepCall, run_steps
from pipeline.onboard.pictures import read_picture
from pipeline.training.batches import hold

FORM = PictureForm((3, 64, 64), "crop", (255, 255, 255))
STEPS = (StepCall("normalize", {"divide": 255.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),)
BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Pictures(Dataset[Tensor]):
    """The same pictures, as a user of torch has them."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        """Return N."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Decode and prepare one picture, (C, H, W)."""
        return torch.from_numpy(run_steps(read_picture(self.paths[index], FORM)[None], STEPS)[0])


def draw(folder: Path, count: int) -> tuple[Path, ...]:
    """Write JPEGs as a camera has them: smooth, with some noise."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.normal(0, 6, smooth.shape).astype(np.int16)
        paths.append(folder / f"{number:05}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return tuple(paths)


def ours(paths: tuple[Path, ...]) -> Callable[[], float]:
    """Return a pass over all pictures as karui trains on them; it gives the sum of all values."""
    source = PictureSource(paths=paths, labels=np.zeros(len(paths), np.int64), form=FORM)
    samples = hold(source, {INPUT: STEPS}, torch.device("cpu"))

    def read() -> float:
        batches = samples.batches(torch.randperm(len(samples)), BATCH)
        return sum(float(inputs.sum()) for inputs, _ in batches if isinstance(inputs, Tensor))

    return read


def theirs(paths: tuple[Path, ...], workers: int) -> Callable[[], float]:
    """Return a pass over all pictures through a DataLoader."""
    loader = DataLoader(
        Pictures(paths=paths), batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=True
    )
    return lambda: sum(float(batch.sum()) for batch in loader)


@click.command()
@click.option("--workers", default=max(4, usable_cores()), show_default=True, help="Threads of ours, processes beside.")
@click.option("--rounds", default=6, show_default=True, help="Timed passes of each, in turn; at least 6.")
@click.option("--pictures", "count", default=2000, show_default=True, help="JPEGs of 640x480.")
def main(*, workers: int, rounds: int, count: int) -> None:
    """Compare, and print pictures per second and the ratio of the times."""
    pictures.THREADS = workers
    with tempfile.TemporaryDirectory() as folder:
        paths = draw(Path(folder), count)
        passes = {"karui": ours(paths), "DataLoader": theirs(paths, workers)}
        sums = np.array([read() for read in passes.values()])  # both are warm now
        if not np.allclose(sums, sums[0], rtol=1e-3):
            raise click.ClickException(f"both shall read the same pictures: {sums}")
        took_s: dict[str, list[float]] = {name: [] for name in passes}
        for number in range(rounds):
            for name in sorted(passes, reverse=bool(number % 2)):
                start = time.perf_counter()
                passes[name]()
                took_s[name].append(time.perf_counter() - start)
    print(f"{count:,} JPEGs of 640x480 to 3x64x64, {workers} workers, {rounds} rounds, on {machine_name()}")
    for name, times in took_s.items():
        print(f"{name:12} {count / float(np.median(times)):8.0f} pictures/s")
    found = ratio(np.array(took_s["karui"]), np.array(took_s["DataLoader"]))
    print(f"karui takes {found.value:.2f} times as long ({found.low:.2f} to {found.high:.2f})")


if __name__ == "__main__":
    main()
