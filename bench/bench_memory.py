"""How much memory ``karui run`` takes for 50,000 colour pictures of 64x64: a folder, .npz plain and compressed.

A tiny network is trained for an epoch, quantized, exported and validated by a process of its own; printed are its
largest resident memory and its time.  Asked: less than 1.5 GB.

    python bench/bench_memory.py [--pictures 50000] [--kind folder --kind npz --kind compressed]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

LIMIT_BYTES = 1_500_000_000
SIDE_PX, CLASSES = 64, 4
WRITTEN_AT_ONCE = 5000

NETWORK = """from torch import nn
def build(input_shape, classes):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, stride=4, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, classes),
    )
"""
RECIPE = """name = "many-pictures"
data = "card.toml"
[network]
file = "network.py"
[train]
epochs = 1
[quantize]
method = "ptq"
"""
CARDS = {
    "folder": 'kind = "image-folder"\nfolder = "pictures"\n',
    "npz": 'kind = "npz"\n[files.all]\npath = "pictures.npz"\n',
}
# the largest resident memory of one process; on Linux, getrusage also counts what its parent had when it began
CHILD = """import pathlib, re, resource, sys
from pipeline.cli import main
try:
    main()
finally:
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        peak = int(re.search("VmHWM: *\\t? *([0-9]+) kB", status.read_text())[1]) * 1024
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    pathlib.Path("peak").write_text(str(peak))
"""


def pictures(count: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return noise whose brightness tells its class, (n, 3, H, W)."""
    noise = np.random.default_rng(seed).integers(0, 128, (count, 3, SIDE_PX, SIDE_PX), dtype=np.uint8)
    return noise + (np.arange(count) % CLASSES * 32).astype(np.uint8)[:, None, None, None]


def write(folder: Path, kind: str, count: int) -> None:
    """Write data, card, network and recipe."""
    own = CARDS["folder" if kind == "folder" else "npz"]
    shape = f"[input]\nshape = [3, {SIDE_PX}, {SIDE_PX}]\n"
    (folder / "card.toml").write_text(f'name = "many-pictures"\ntitle = "Many pictures"\n{own}{shape}')
    (folder / "network.py").write_text(NETWORK)
    (folder / "recipe.toml").write_text(RECIPE)
    portions = range(0, count, WRITTEN_AT_ONCE)
    if kind == "folder":
        for label in range(CLASSES):
            (folder / "pictures" / str(label)).mkdir(parents=True)
        for start in portions:
            for number, picture in enumerate(pictures(min(WRITTEN_AT_ONCE, count - start), start), start):
                file = folder / "pictures" / str(number % CLASSES) / f"{number:06}.bmp"
                Image.fromarray(np.moveaxis(picture, 0, -1)).save(file)
        return
    x = np.concatenate([pictures(min(WRITTEN_AT_ONCE, count - start), start) for start in portions])
    save = np.savez if kind == "npz" else np.savez_compressed
    save(folder / "pictures.npz", x=x, y=np.arange(count) % CLASSES)


def measured(folder: Path) -> tuple[int, float, int]:
    """Return peak in bytes, seconds and exit status of a run."""
    started = time.perf_counter()
    command = [sys.executable, "-c", CHILD, "run", "recipe.toml", "--quiet", "--target", "host", "--threads", "1"]
    environment = {**os.environ, "KARUI_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=False)
    return int((folder / "peak").read_text()), time.perf_counter() - started, done.returncode


@click.command()
@click.option("--pictures", "count", default=50_000, show_default=True)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["folder", "npz", "compressed"]))
def main(count: int, kinds: tuple[str, ...]) -> None:
    """Measure one after the other."""
    too_much = False
    for kind in kinds or ("folder", "npz", "compressed"):
        with tempfile.TemporaryDirectory() as place:
            write(Path(place), kind, count)
            peak_bytes, took_s, status = measured(Path(place))
        too_much |= peak_bytes > LIMIT_BYTES
        print(f"{kind:<11} {peak_bytes / 1e6:7,.0f} MB  {took_s:5.0f} s  exit {status}")
    sys.exit(too_much)


if __name__ == "__main__":
    main()
