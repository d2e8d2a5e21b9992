"""Count drawn layers in the runtimes on emulated processors, for the cost model of ``pipeline/estimating/static.py``.

    python bench/count_layers.py --count 1000 --seed 0 --budget-minutes 30
    python bench/count_layers.py --held-out     # whole networks, by which the model is judged and which it never sees
    python bench/fit_layers.py                  # fits what is counted, and writes static.json

Every network is written as float and int8 ONNX and TFLite file; one inference of each is counted.  Rows are appended
to ``pipeline/estimating/layers.csv`` (``networks.csv`` with ``--held-out``); what stands there is not counted again.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from bench.count_published import SIDE, EfficientDetLite0
from bench.drawn_layers import MOST_MACS, Made, drawn
from bench.known_networks import KNOWN
from pipeline import catalog
from pipeline.declare.recipe import QuantizeSpec
from pipeline.declare.words import Precision, RuntimeName
from pipeline.errors import KaruiError
from pipeline.estimating.fit import events
from pipeline.estimating.layers_table import COLUMNS, LAYERS, NETWORKS
from pipeline.estimating.table import reference
from pipeline.estimating.work import PRODUCTS, Work
from pipeline.graph.costs import total_macs
from pipeline.inspecting.subject import built
from pipeline.inspecting.works import works_of
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runtimes.emulation.counting import Counting
from pipeline.runtimes.emulation.system import system_for
from pipeline.tflite import write_tflite

CPUS = {"cortex-a72": "raspberry-pi-4b", "cortex-a76": "raspberry-pi-5"}
SUFFIX: Mapping[RuntimeName, str] = {"onnxruntime": "onnx", "litert": "tflite"}
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_REPEATED, _LARGE_MACS = 4, 500_000  # inferences, of networks smaller than this
_MOST_HELD_OUT_MACS = 400_000_000


@dataclass(frozen=True, kw_only=True)
class Files:
    """A network in both precisions."""

    paths: Mapping[tuple[str, str], Path]  # of precision and runtime
    works: Mapping[Precision, str]  # what its kernels have to do
    macs: int


def written(made: Made, folder: Path, most_macs: int) -> Files | None:
    """Write a network's files; None where it is too large."""
    network, shape = made
    folded = folded_graph(network, shape)
    macs = total_macs(folded)
    if macs > most_macs:
        return None
    prepared = prepare(folded, weight_bits=8)
    layers = works_of(folded, prepared)
    calibrate(prepared, torch.randn(4, *shape), QuantizeSpec(calibration="min-max"))
    paths: dict[tuple[str, str], Path] = {}
    for precision, graph in zip(PRECISIONS, (folded, prepared.eval()), strict=True):
        model = write_onnx(graph, name="x")
        for runtime, suffix in SUFFIX.items():
            path = paths[precision, runtime] = folder / f"{precision}.{suffix}"
            path.write_bytes(to_bytes(model) if suffix == "onnx" else write_tflite(model))
    works = {each: _text(work for layer in layers.values() for work in layer[each]) for each in PRECISIONS}
    return Files(paths=paths, works=works, macs=macs)


def _text(works: Iterable[Work]) -> str:
    return "; ".join(work.text for work in works)


class Table:
    """A file of rows that is only appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[tuple[str, ...]] = set()
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                self._known = {tuple(row[name] for name in COLUMNS[:4]) for row in csv.DictReader(file)}
        else:
            path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")

    def __contains__(self, key: tuple[str, ...]) -> bool:
        return key in self._known

    def add(self, key: tuple[str, ...], counts: Mapping[str, float], works: str) -> None:
        """Append one row."""
        numbers = (round(counts["total"]), *(round(number) for number in events(counts).values()))
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([*key, *numbers, works])


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Counts networks into a table."""

    table: Table
    counters: Mapping[str, Counting]  # processor → what counts on it
    most_macs: int

    def count(self, name: str, made: Made) -> int:
        """Count a network where it is not counted yet, and return how often that was."""
        if (name, "fp32", "onnxruntime", "cortex-a72") in self.table:  # which is the last to be counted
            return 0
        sample = {"input": np.random.default_rng(0).standard_normal((1, *made[1])).astype(np.float32)}
        with tempfile.TemporaryDirectory() as folder:
            files = written(made, Path(folder), self.most_macs)
            if files is None:
                return 0
            keys = [key for key in wanted(name, files) if key not in self.table]
            for key in reversed(keys):
                _, precision, runtime, cpu = key
                path = files.paths[precision, runtime]
                more = 0 if files.macs > _LARGE_MACS else _REPEATED
                counts = self.counters[cpu].count(path, runtime, sample, more=more)
                self.table.add(key, counts, files.works[precision])
        return len(keys)


def wanted(name: str, files: Files) -> Iterator[tuple[str, Precision, RuntimeName, str]]:
    """Yield what differs: both processors execute the same without products, and in ONNX Runtime's float kernels."""
    for precision in PRECISIONS:
        if precision == "int8" and files.works["int8"] == files.works["fp32"]:
            continue
        parsed = [Work.parse(text) for text in files.works[precision].split("; ") if text]
        for runtime in SUFFIX:
            yield name, precision, runtime, "cortex-a72"
            same = precision == "fp32" and runtime == "onnxruntime"
            if not same and any(work.kernel in PRODUCTS for work in parsed):
                yield name, precision, runtime, "cortex-a76"


def add_published(table: Table) -> None:
    """Add the network whose times in LiteRT were published: it is counted already, for the reference table."""
    rows = [row for row in reference() if row.runtime == "litert"]
    keys = [(row.model, row.precision, row.runtime, row.cpu) for row in rows]
    if all(key in table for key in keys):
        return
    folded = folded_graph(EfficientDetLite0().eval(), (3, SIDE, SIDE))
    layers = works_of(folded, prepare(folded, weight_bits=8))
    works = {name: _text(work for layer in layers.values() for work in layer[name]) for name in PRECISIONS}
    for key, row in zip(keys, rows, strict=True):
        table.add(key, row.counts, works["int8" if row.precision == "int8" else "fp32"])


def held_out() -> Iterator[tuple[str, Made]]:
    """Yield networks that people use, by name."""
    for name, asked in KNOWN.items():
        torch.manual_seed(0)
        network, shape = built(asked)
        yield name, (network.eval(), shape)


@click.command()
@click.option("--count", "number", default=1000, show_default=True, help="How many networks.")
@click.option("--seed", default=0, show_default=True, help="The first one's.")
@click.option("--budget-minutes", default=30.0, show_default=True, help="Stop after so long.")
@click.option("--held-out", "whole", is_flag=True, help="Count networks that people use.")
def main(number: int, seed: int, budget_minutes: float, whole: bool) -> None:
    """Count."""
    torch.set_num_threads(1)
    started, done, refused = time.monotonic(), 0, 0
    table = Table(NETWORKS if whole else LAYERS)
    if whole:
        add_published(table)
    networks = held_out() if whole else ((str(each), drawn(each)) for each in range(seed, seed + number))
    with ExitStack() as stack:
        counter = Counter(
            table=table,
            counters={
                cpu: stack.enter_context(Counting(system_for(catalog.load_target(profile))))
                for cpu, profile in CPUS.items()
            },
            most_macs=_MOST_HELD_OUT_MACS if whole else MOST_MACS,
        )
        for name, made in networks:
            if time.monotonic() - started > 60 * budget_minutes:
                break
            try:
                done += counter.count(name, made)
            except KaruiError as error:  # an operation that a writer refuses, or a file that a runtime does
                refused += 1
                print(f"{name}: {error}", file=sys.stderr)
            print(f"{name}: {done} counted, {refused} refused, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
