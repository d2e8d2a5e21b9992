"""Our int8 files beside those of other quantizers of the same float file: what they decide, and how long they take.

Of a finished run, ONNX Runtime's quantize_static is put beside the int8 file; with ``--networks``, four known networks
are trained on pictures (once; they stay in the folder), quantized by ``karui quantize`` as it is, and put beside
quantize_static and NNCF in ONNX Runtime, and beside ai-edge-quantizer in LiteRT:

    python bench/bench_peers.py runs/digits [runs/fashion-resnet8 …] [--budget-s 60]
    python bench/bench_peers.py --networks FOLDER [--pictures DATA] [--only NAME …] [--markdown FILE]

Each file runs on the whole test split, and is timed in turn with ours on this machine, one thread.  The noise of the
comparison is measured too: the same file of ours is put in twice, and its two copies differ by nothing but noise.
bench/trained.py and bench/quantizers.py say what has to be installed for ``--networks``.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import torch

from bench.quantizers import Samples, missing, quantize_by_ai_edge, quantize_by_nncf, quantize_statically
from bench.trained import PLANS, card_in, float_file
from pipeline.artifacts.evidence import Comparison, Interval, Metric
from pipeline.artifacts.outcome import Outcome
from pipeline.data.calibration import calibration_indices
from pipeline.data.files import sha256_of
from pipeline.data.load import load
from pipeline.declare.words import RuntimeName
from pipeline.flow import RunRequest, run_recipe
from pipeline.host import host_profile
from pipeline.judging.latency import ratio
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import prepare
from pipeline.onboard.session import Session
from pipeline.onboard.timing import Opener, measure
from pipeline.progress import Silent
from pipeline.runs.finished import find_run, load_outcome
from pipeline.runtimes import executed, open_session
from pipeline.starting.models import quantizing
from pipeline.tasks import named

OURS, AGAIN = "karui int8", "karui int8 again (noise)"
SESSIONS, ROUNDS = 40, 100  # of each file
_FORMATS: dict[RuntimeName, str] = {"onnxruntime": "onnx", "litert": "tflite"}

Maker = Callable[[Path, Samples, Path], dict[str, Path]]  # float file, calibration samples, folder → name → file
MAKERS: dict[RuntimeName, tuple[Maker, ...]] = {
    "onnxruntime": (quantize_statically, quantize_by_nncf),
    "litert": (quantize_by_ai_edge,),
}

_PAGE = """\
# Quantizers side by side

Written by `python bench/bench_peers.py --networks FOLDER --markdown FILE`, whose first lines say how. Each network
was trained once, on the pictures `{pictures}`, and every quantizer was given the same float file and the same
calibration samples. Ours is what `karui quantize` makes of it as it is: for ONNX Runtime with the weights that this
machine's kernels ask for (7 bits on x86 without VNNI, as U8S7 of quantize_static), for LiteRT with 8 bits.
Differences and their 95 % intervals are paired, on the same test pictures, in percentage points; times are shares of
the time of our int8 file, from fresh sessions of both in turn, in the same runtime, one thread. Such shares hold on a
busy machine, too, with wider intervals; microseconds do not, and are left out. Our file stands twice in each table:
how far its second row is from 1 is noise.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file in one runtime, beside our int8 file there."""

    network: str
    runtime: RuntimeName
    file: str
    size_bytes: int
    p50_us: float
    time: Interval  # as a share of ours
    value: float  # of the task's metric on the test split
    gap: Comparison  # this file's value minus ours
    integer_share: float  # of the nodes that the runtime executes
    parameters: int  # of the float file

    @property
    def is_peer(self) -> bool:
        """Whether somebody else made this int8 file."""
        return self.file not in ("float", OURS, AGAIN)

    @property
    def beats_ours(self) -> str:
        """In what it is better than ours by more than chance; "" in nothing."""
        return " and ".join(
            word for word, better in (("value", self.gap.low > 0), ("time", self.time.high < 1)) if better
        )


@dataclass(frozen=True, kw_only=True)
class Compared:
    """All files of one network in one runtime, and which quantizers could not make one."""

    rows: tuple[Row, ...]
    failed: tuple[str, ...]


def compared(
    outcome: Outcome, run: Path, runtime: RuntimeName, makers: Sequence[Maker], *, budget_s: float, folder: Path
) -> Compared:
    """Return a row for each file that a runtime takes: float, ours twice, and those that the makers make."""
    dataset, task = load(outcome.data), named(outcome.task)

    def prepared(inputs: Arrays) -> Arrays:
        return prepare(inputs, outcome.facts.frontend)

    signature = outcome.facts.signature
    calibration = prepared(dataset.train.read(calibration_indices(dataset)).inputs)[signature.input.name]
    written = {file.variant.key: run / file.filename for file in outcome.files}
    floating, ours = written[f"{_FORMATS[runtime]}-fp32"], _made_for_here(written, runtime)
    paths = {"float": floating, OURS: ours, AGAIN: ours}
    failed = []
    for make in makers:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what they tell about their work
                paths |= make(floating, calibration, folder)
        except Exception as error:  # noqa: BLE001  (others' code: whatever it raises, the rest goes on)
            reason = " ".join(str(error).split())[:200]
            failed.append(f"{make.__name__} failed on {outcome.recipe}: {type(error).__name__}: {reason}")

    def opened(path: Path) -> Session:
        return open_session(path, runtime, threads=1, signature=signature)

    def opener(path: Path) -> Opener:
        return lambda: opened(path).timer({signature.input.name: calibration[:1]})

    timed = beside_ours({name: opener(path) for name, path in paths.items()}, budget_s)
    chosen = outcome.predicted[0].chosen if outcome.predicted else {}
    answers = {
        name: task.answer(opened(path).run, dataset.test, prepared, chosen=chosen) for name, path in paths.items()
    }
    rows = [
        Row(
            network=outcome.recipe,
            runtime=runtime,
            file=name,
            size_bytes=path.stat().st_size,
            p50_us=timed[name].p50_us,
            time=timed[name].share,
            value=answers[name].value,
            gap=task.compare(answers[OURS], answers[name], dataset.test),
            integer_share=_integer_share(path, runtime),
            parameters=parameters(written["onnx-fp32"]),
        )
        for name, path in paths.items()
    ]
    return Compared(rows=tuple(rows), failed=tuple(failed))


@dataclass(frozen=True, kw_only=True)
class Timed:
    """How long a file takes, and as a share of ours, which was timed in turn with it."""

    p50_us: float
    share: Interval


def beside_ours(openers: Mapping[str, Opener], budget_s: float) -> dict[str, Timed]:
    """Time each file in turn with ours, and with no other: slow files would leave the fast ones few rounds."""
    timed = {}
    for name, opener in openers.items():
        if name == OURS:
            continue
        pair = {OURS: openers[OURS], name: opener}
        share_s = budget_s / (len(openers) - 1)
        times_ms = measure(pair, sessions=SESSIONS, rounds=ROUNDS, budget_s=share_s, seed=0)
        theirs, ours = (np.median(times_ms[each], axis=1) for each in (name, OURS))
        timed[name] = Timed(p50_us=1000 * float(np.median(times_ms[name])), share=ratio(theirs, ours))
        if name == AGAIN:
            p50_us = 1000 * float(np.median(times_ms[OURS]))
            timed[OURS] = Timed(p50_us=p50_us, share=Interval(value=1.0, low=1.0, high=1.0))
    return timed


def _made_for_here(written: Mapping[str, Path], runtime: RuntimeName) -> Path:
    """Return our int8 file for this machine: 7-bit weights where ONNX Runtime's kernels saturate."""
    widest = f"{_FORMATS[runtime]}-int8"
    bits = host_profile().weight_bits if runtime == "onnxruntime" else 8
    return written.get(f"{widest}-w{bits}", written[widest])


def _integer_share(path: Path, runtime: RuntimeName) -> float:
    nodes = executed(path, runtime)
    return sum(node.integer for node in nodes) / max(len(nodes), 1)


def show(found: Compared, metric: Metric) -> None:
    """Print one table."""
    first = found.rows[0]
    print(f"\n{first.network}: {first.gap.samples} test inputs, {first.runtime}, 1 thread")
    heads = f"{'time / ours':>21} {metric.name:>10} {'minus ours':>27} {'integer':>8}"
    print(f"{'file':30} {'bytes':>11} {'p50 µs':>8} {heads}")
    for row in found.rows:
        print(
            f"{row.file:30} {row.size_bytes:11,} {row.p50_us:8.1f} {_time_text(row.time):>21} "
            f"{metric.text(row.value, 2):>10} "
            f"{row.gap.difference:+9.4f} ({row.gap.low:+.4f} to {row.gap.high:+.4f}) {row.integer_share:8.0%}"
            f"{'  better: ' + row.beats_ours if row.is_peer and row.beats_ours else ''}",
            flush=True,
        )
    print(*found.failed, sep="\n", end="", flush=True)


def _time_text(time: Interval) -> str:
    return f"{time.value:.2f} ({time.low:.2f} to {time.high:.2f})"


# ── four networks ───────────────────────────────────────────────────────────────────────────────────────────────────


def quantized(name: str, card: Path) -> tuple[Outcome, Path]:
    """Return what ``karui quantize`` makes of a network's float file, as it is, and the folder of its files."""
    model = float_file(name, card)
    with contextlib.chdir(card.parent):
        made = quantizing(Path(model.name), card.name, name=run_name(name))
        made.write()
        request = RunRequest(recipe=str(made.recipe), targets=("raspberry-pi-4", "host"), until="export", device="cpu")
        outcome = run_recipe(request, Silent())
    return outcome, card.parent / "runs" / outcome.recipe


def networks_compared(card: Path, names: Sequence[str], *, budget_s: float) -> Iterator[tuple[Outcome, Compared]]:
    """Yield the files of one network in one runtime, after another."""
    for name in names:
        outcome, run = quantized(name, card)
        digest = sha256_of(card.with_name(f"{name}.onnx"))[:8]  # files of peers are kept for the weights they are of
        for runtime, makers in MAKERS.items():
            peers = card.parent / "peers" / f"{outcome.recipe}-{digest}"
            peers.mkdir(parents=True, exist_ok=True)
            yield outcome, compared(outcome, run, runtime, makers, budget_s=budget_s, folder=peers)


def run_name(network: str) -> str:
    """Return what recipe and run of a network are called."""
    return network.replace("_", "-")


def parameters(path: Path) -> int:
    """Count what the layers of an ONNX file hold."""
    return sum(int(np.prod(each.dims)) for each in onnx.load(path).graph.initializer)


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────


def markdown(tables: Sequence[Compared], pictures: str, metric: Metric) -> str:
    """Return the tables as a page, with what they sum up to."""
    shown = {table.rows[0].network for table in tables}
    lines = [
        _PAGE.format(pictures=pictures),
        *(f"Not measured here: {name}.\n" for name in PLANS if run_name(name) not in shown),
        *(f"Not installed, and left out: {name}.\n" for name in missing()),
        *(f"{failed}\n" for table in tables for failed in table.failed),
        _summed_up([row for table in tables for row in table.rows if row.is_peer]),
        "",
    ]
    for table in tables:
        first = table.rows[0]
        lines += [
            f"## {first.network}, {first.runtime}",
            "",
            f"{first.parameters:,} parameters; {first.gap.samples:,} test pictures.",
            "",
            f"| file | {metric.name} | minus ours | time / ours | bytes | integer nodes |",
            "|---|---|---|---|---|---|",
        ]
        lines += [f"| {' | '.join(_cells(row, metric))} |" for row in table.rows]
        lines.append("")
    return "\n".join(lines)


def _summed_up(peers: Sequence[Row]) -> str:
    better = [f"{row.file} on {row.network} in {row.beats_ours}" for row in peers if row.beats_ours]
    chance = f"An interval misses once in twenty times, and here are {2 * len(peers)} of peers."
    if not better:
        return f"No interval of a peer lies on the better side of ours. {chance}"
    return f"On the better side of ours lie the intervals of: {'; '.join(better)}. {chance}"


def _cells(row: Row, metric: Metric) -> tuple[str, ...]:
    gap = f"{100 * row.gap.difference:+.2f} ({100 * row.gap.low:+.2f} to {100 * row.gap.high:+.2f})"
    size, share = f"{row.size_bytes:,}", f"{row.integer_share:.0%}"
    return row.file, metric.text(row.value, 2), gap, _time_text(row.time), size, share


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--budget-s", default=60.0, show_default=True, help="How long to time a network's files in a runtime.")
@click.option("--networks", type=click.Path(file_okay=False, path_type=Path), help="Folder of the four networks.")
@click.option("--pictures", default="fashion-mnist", show_default=True, help="What they are trained on.")
@click.option("--only", multiple=True, type=click.Choice(sorted(PLANS)), help="Only these networks.")
@click.option("--markdown", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page, too.")
def main(
    *,
    runs: tuple[str, ...],
    budget_s: float,
    networks: Path | None,
    pictures: str,
    only: tuple[str, ...],
    page: Path | None,
) -> None:
    """Compare our int8 files with those of other quantizers."""
    torch.set_num_threads(1)
    if not runs and networks is None:
        raise click.UsageError("nothing to compare: name finished runs, or a folder with --networks FOLDER")
    for name in runs:
        run = find_run(name)
        outcome = load_outcome(run)
        with tempfile.TemporaryDirectory() as folder:
            makers = (quantize_statically,)
            found = compared(outcome, run, "onnxruntime", makers, budget_s=budget_s, folder=Path(folder))
        show(found, named(outcome.task).METRIC)
    if networks is not None:
        _four_networks(card_in(networks.absolute(), pictures), only or tuple(PLANS), budget_s, page)


def _four_networks(card: Path, names: Sequence[str], budget_s: float, page: Path | None) -> None:
    for name in missing():
        print(f"{name} is not installed and is left out", flush=True)
    tables: list[Compared] = []
    for outcome, found in networks_compared(card, names, budget_s=budget_s):
        metric = named(outcome.task).METRIC
        show(found, metric)
        tables.append(found)
        if page is not None:
            page.write_text(markdown(tables, outcome.data.card.name, metric), encoding="utf-8")


if __name__ == "__main__":
    main()
