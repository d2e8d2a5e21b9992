"""Changed files of every kind through karui's real entries: each is taken or refused in words, soon, in little memory.

Recipes, cards, targets, tables, arrays, pictures, weights and model files, made from valid ones (seeded; see
``tests/fuzz``).  Prints a table; keeps the inputs that do not, with what happened, and ends with 1 when there are any.

    python bench/bench_fuzz.py --inputs 20000 [--seed 0] [--kind csv …] [--keep FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click

from tests.fuzz.kinds import KINDS
from tests.fuzz.trying import Fault, shares, tried
from tests.fuzz.worker import made

_TAKEN, _REFUSED = "accepted", "refused"
_OTHERS = ("raised", "warned", "grew", "slow", "hung", "died")


@click.command()
@click.option("--inputs", default=20_000, show_default=True, help="How many files, of all kinds together.")
@click.option("--seed", default=0, show_default=True)
@click.option("--kind", "only", multiple=True, type=click.Choice(list(KINDS)), help="Only this kind; may be repeated.")
@click.option("--keep", default=Path("fuzz-found"), show_default=True, type=click.Path(path_type=Path))
def main(inputs: int, seed: int, only: tuple[str, ...], keep: Path) -> None:
    """Try so many changed files."""
    began = time.monotonic()
    faults: list[Fault] = []
    click.echo(f"{'kind':<14}{_TAKEN:>9}{_REFUSED:>9}" + "".join(f"{what:>8}" for what in _OTHERS) + "  slowest")
    with tempfile.TemporaryDirectory() as folder:
        for name, tally in tried(shares(inputs, only), seed, Path(folder)):
            counts = "".join(f"{tally.counts[what]:>8}" for what in _OTHERS)
            taken = f"{tally.counts[_TAKEN]:>9}{tally.counts[_REFUSED]:>9}"
            click.echo(f"{name:<14}{taken}{counts}  {tally.slowest_s:.2f} s")
            faults += tally.faults
            _kept(keep, tally.faults, seed)
    click.echo(f"{inputs:,} inputs, {len(faults)} faults, {time.monotonic() - began:.0f} s")
    sys.exit(bool(faults))


def _kept(folder: Path, faults: list[Fault], seed: int) -> None:
    for fault in faults:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{fault.kind}-{seed}-{fault.number}"
        (folder / name).write_bytes(made(KINDS[fault.kind], fault.kind, seed, fault.number))
        (folder / f"{name}.txt").write_text(f"{fault.what}\n{fault.why}\n")


if __name__ == "__main__":
    main()
