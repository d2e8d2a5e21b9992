"""How sure comparisons of speed are: a file against itself must be no different, float against int8 must be.

The files are those of a ResNet-8 for 28x28 pictures with random weights (the time does not depend on them), in ONNX
Runtime, one thread.  Each comparison opens sessions of its own, as pruning's does.  Asked: "different" in at most 5 %
of the comparisons of a file with itself, and in all of float with int8.

    python bench/bench_timing.py [--trials 200] [--budget-s 10]
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from pipeline import catalog
from pipeline.artifacts.training import Paid
from pipeline.declare.recipe import QuantizeSpec
from pipeline.host import machine_name
from pipeline.instruments.here import compare_speed
from pipeline.networks.build import build_network
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.tasks import classification

RECIPE = "fashion-resnet8"
PAIRS = (("float", "float"), ("int8", "int8"), ("int8", "float"))


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came out of all comparisons of one pair."""

    pair: tuple[str, str]
    found: list[Paid]
    took_s: float

    def __str__(self) -> str:
        """Write the row of the table."""
        faster = sum(each.high < 1 for each in self.found)
        slower = sum(each.low > 1 for each in self.found)
        low, middle, high = np.quantile([each.ratio for each in self.found], [0.05, 0.5, 0.95])
        return (
            f"{' / '.join(self.pair):14} {len(self.found):6} {faster:7} {slower:7} "
            f"{100 * (faster + slower) / len(self.found):9.1f} % {middle:7.3f} ({low:.3f} to {high:.3f}) "
            f"{self.took_s / len(self.found):6.1f} s"
        )


def files(folder: Path) -> dict[str, Path]:
    """Write the float and the int8 file."""
    recipe, beside = catalog.load_recipe(RECIPE)
    card, _ = catalog.load_card(recipe.data, beside=beside)
    signature = classification.signature(card, card.classes, ())
    network = build_network(catalog.network_ref(recipe.network, beside=beside, signature=signature), seed=0).eval()
    folded = folded_graph(network, card.input.shape)
    prepared = prepare(folded, weight_bits=8)
    calibrate(prepared, torch.randn(64, *card.input.shape), QuantizeSpec(method="ptq", calibration="min-max"))
    paths = {name: folder / f"{name}.onnx" for name in ("float", "int8")}
    for path, graph in zip(paths.values(), (folded, prepared), strict=True):
        path.write_bytes(to_bytes(write_onnx(graph, name=RECIPE)))
    return paths


@click.command()
@click.option("--trials", default=200, show_default=True, help="Comparisons of each pair.")
@click.option("--budget-s", default=10.0, show_default=True, help="For one comparison at most.")
def main(trials: int, budget_s: float) -> None:
    """Print the table."""
    print(f"{machine_name()}; load at the start {os.getloadavg()[0]:.1f}; {trials} comparisons of each pair")
    counted = f"{'files':14} {'trials':>6} {'faster':>7} {'slower':>7} {'different':>11}"
    print(f"{counted} {'ratio (5 to 95 %)':>24} {'each':>8}")
    with tempfile.TemporaryDirectory() as folder:
        paths = files(Path(folder))
        for first, second in PAIRS:
            started = time.perf_counter()
            found = [
                compare_speed(paths[first], paths[second], threads=1, budget_s=budget_s, seed=1000 * trial)
                for trial in range(trials)
            ]
            print(Row(pair=(first, second), found=found, took_s=time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
