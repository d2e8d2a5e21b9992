"""Compare what pruning is estimated to win on a Raspberry Pi with what the instructions that it executes tell.

    python bench/count_pruned.py [--only NAME]

Every network is pruned by 20, 40 and 60 % of its multiply-accumulates; time after / time before is found twice, in the
runtime that is fastest: by the model of kernels (``pipeline/instruments/modelled.py``, which decides whether a step of
pruning is kept) and from what is counted in the target's runtimes under emulation.  Needs the emulated targets
(``karui emulate raspberry-pi-4 raspberry-pi-5``) and, for networks of others, the extra ``zoo``.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
import torch

from bench.count_layers import CPUS, PRECISIONS, SUFFIX, Files, written
from bench.drawn_layers import Made
from bench.known_networks import KNOWN
from pipeline import catalog
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import Precision
from pipeline.estimating.predicted import predicted
from pipeline.estimating.work import Work
from pipeline.inspecting.subject import built
from pipeline.instruments import Contender
from pipeline.instruments.known import kernels_of
from pipeline.instruments.modelled import ByKernels
from pipeline.networks.edits import apply
from pipeline.networks.pruning import plan_for
from pipeline.runtimes.emulation.counting import Counting
from pipeline.runtimes.emulation.system import system_for

NAMES = ("digits", "digits-ds-cnn", "fashion-resnet8", "segment", "mobilenet_v2 64x64", "resnet18 32x32")
GONE = (0.2, 0.4, 0.6)
_MOST_MACS = 400_000_000
_INFERENCES = 2


def narrowed(made: Made) -> Iterator[tuple[float, Made]]:
    """Yield a network and what is left of it, each with the share that is gone."""
    network, shape = made
    yield 0.0, made
    for gone in GONE:
        edits = plan_for(network, shape, share_left=1 - gone, round_to=8)
        if edits:
            yield gone, (apply(copy.deepcopy(network), edits).eval(), shape)


def contender(files: Files) -> Contender:
    """Return a network as pruning hands it to an instrument."""
    works = {each: (tuple(Work.parse(text) for text in files.works[each].split("; ") if text),) for each in PRECISIONS}
    return Contender(path=Path("unread"), macs=files.macs, works=lambda: works)


def counted_ms(files: Files, precision: Precision, shape: tuple[int, ...], counting: Counting, cpu: str) -> float:
    """Return the ms that follow from counts, in the runtime in which they are fewest."""
    sample = {"input": np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)}
    clock_mhz = catalog.load_target(CPUS[cpu]).cpu.clock_mhz
    found = []
    for runtime in SUFFIX:
        counts = counting.count(files.paths[precision, runtime], runtime, sample, more=_INFERENCES)
        told = predicted(counts, cpu=cpu, clock_mhz=clock_mhz, runtime=runtime)
        if told is not None:
            found.append(told[0].value)
    return min(found)


def compared(name: str, counters: Mapping[str, Counting], targets: Mapping[str, TargetProfile]) -> Iterator[float]:
    """Print a line for each step, precision and processor, and yield modelled / counted - 1."""
    torch.manual_seed(0)
    network, shape = built(KNOWN[name])
    with tempfile.TemporaryDirectory() as place:
        before: Files | None = None
        times: dict[tuple[str, Precision], float] = {}
        for gone, made in narrowed((network.eval(), shape)):
            folder = Path(place) / f"{gone:g}"
            folder.mkdir()
            files = written(made, folder, _MOST_MACS)
            if files is None:
                raise click.ClickException(f"{name} is too large to be counted")
            for cpu, precision in ((cpu, precision) for cpu in CPUS for precision in PRECISIONS):
                ms = counted_ms(files, precision, shape, counters[cpu], cpu)
                if before is None:
                    times[cpu, precision] = ms
                    continue
                counted = ms / times[cpu, precision]
                kernels = kernels_of(targets[cpu])
                if kernels is None:
                    raise click.ClickException(f"no kernels were counted on a {cpu}")
                by_kernels = ByKernels(kernels=kernels, precision=precision)
                paid = by_kernels.compare(contender(files), contender(before), threads=1, budget_s=0.0, seed=0)
                off = paid.ratio / counted - 1
                words = f"{name:20s} -{gone:.0%} {cpu} {precision}: counted {counted:.3f}, modelled {paid.ratio:.3f}"
                print(f"{words}, {100 * off:+.1f} %", flush=True)
                yield off
            before = before or files


@click.command()
@click.option("--only", "names", multiple=True, help="One of the networks; again for more.")
def main(names: tuple[str, ...]) -> None:
    """Compare."""
    torch.set_num_threads(1)
    targets = {cpu: catalog.load_target(profile) for cpu, profile in CPUS.items()}
    found: list[float] = []
    with ExitStack() as stack:
        counters = {cpu: stack.enter_context(Counting(system_for(target))) for cpu, target in targets.items()}
        for name in names or NAMES:
            found += compared(name, counters, targets)
    off = np.abs(found)
    middle, most = 100 * np.quantile(off, [0.5, 0.9])
    print(f"{len(off)} ratios: median {middle:.1f} % off, 90th percentile {most:.1f} %")


if __name__ == "__main__":
    main()
