"""From bytes to a class: int8 files that take raw bytes beside those that take prepared floats, of the same network.

    python bench/bench_raw.py digits fashion-resnet8 [--rounds 40]

Runs each recipe twice (everything but the export is shared), compares the classes of every test input, and times
preprocessing and inference of one input after the other, with one thread, both routes in turn.  The ratio is time of
the float route / time of the byte route; the byte route in two sessions shows the noise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Interval
from pipeline.artifacts.files import RUNTIME_OF_FORMAT
from pipeline.cli import main as karui
from pipeline.data.load import load
from pipeline.data.source import everything
from pipeline.instruments.here import FileWay
from pipeline.judging.latency import ratio
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.session import Session
from pipeline.runs.finished import load_outcome, store_of

_AT_ONCE = 50  # inputs of each route in a round
Route = tuple[FileWay, Session]


@click.command()
@click.argument("recipes", nargs=-1, required=True)
@click.option("--rounds", default=40, show_default=True, help="Rounds of each comparison.")
def main(recipes: Sequence[str], rounds: int) -> None:
    """Compare the two routes of each recipe."""
    same = True
    for recipe in recipes:
        floats, bytes_ = _ways(recipe, "float"), _ways(recipe, "uint8")
        test = load(load_outcome(Path("runs") / f"{recipe}-uint8").data).test
        raw = test.read(everything(test)).inputs
        for key, way in bytes_.items():
            routes = [(each, each.open(threads=1)) for each in (floats[key], way, way)]
            classes = [_classes(route, raw) for route in routes[:2]]
            apart = int((classes[0] != classes[1]).sum())
            same &= apart == 0
            found, noise = _compared(routes[0], routes[1], raw, rounds), _compared(routes[2], routes[1], raw, rounds)
            print(
                f"{recipe:18} {way.runtime:12} {apart} of {len(classes[0])} classes differ; "
                f"{found.value:.2f} x as fast ({found.low:.2f} … {found.high:.2f}), "
                f"noise {noise.low:.2f} … {noise.high:.2f}",
                flush=True,
            )
    sys.exit(not same)


def _ways(recipe: str, how: str) -> Mapping[str, FileWay]:
    """Run the recipe and return its int8 files, each in the newest runtime of its format."""
    folder = Path("runs") / f"{recipe}-{how}"
    karui(["run", recipe, "--set", f"export.input={how}", "--out", str(folder), "--quiet", "--until", "export"])
    store = store_of(folder)
    int8 = {file.variant: file for file in load_outcome(folder).files if file.variant.precision == "int8"}
    ways = [
        FileWay(file=file, runtime=programs[0], path=store.path(file.file))
        for name, programs in RUNTIME_OF_FORMAT.items()
        for variant, file in int8.items()
        if variant.format == name
    ]
    return {way.way.key: way for way in ways}


def _classes(route: Route, raw: Arrays) -> NDArray[np.int64]:
    way, session = route
    (scores,) = session.run(way.prepared(raw)).values()
    return np.asarray(scores.reshape(len(scores), -1).argmax(1), np.int64)


def _compared(first: Route, second: Route, raw: Arrays, rounds: int) -> Interval:
    medians = [[_median_ms(route, raw) for route in (first, second)] for _ in range(rounds)]
    return ratio(*np.array(medians).T)


def _median_ms(route: Route, raw: Arrays) -> float:
    way, session = route
    times = []
    for index in range(_AT_ONCE):
        one = {name: values[index : index + 1] for name, values in raw.items()}
        started = time.perf_counter()
        session.run(way.prepared(one))
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


if __name__ == "__main__":
    main()
