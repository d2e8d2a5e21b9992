"""Fit what ``count_layers.py`` counted, write ``pipeline/estimating/static.json``, and say how far off that is.

python bench/fit_layers.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from bench.count_layers import CPUS, PRECISIONS, SUFFIX
from pipeline.estimating.layers_table import LAYERS, NETWORKS, Counted, counted
from pipeline.estimating.predicted import fits
from pipeline.estimating.static import STATIC, Costs
from pipeline.estimating.static_fit import Off, best_tiles, errors_of, fitted_costs, off


def rows_of(runtime: str, cpu: str) -> list[Counted]:
    """Return the drawn rows of a processor, and float ones of the other where it has none of its own."""
    rows = [row for row in counted(LAYERS) if row.runtime == runtime]
    own = [row for row in rows if row.cpu == cpu]
    known = {(row.network, row.precision) for row in own}
    return own + [row for row in rows if row.precision == "fp32" and (row.network, row.precision) not in known]


def medians(found: Sequence[Off]) -> str:
    """Say how far off rows are."""
    instructions, time = (np.abs([getattr(each, name) for each in found]) for name in ("instructions", "time"))
    return (
        f"median {100 * np.median(instructions):.1f} % of instructions, {100 * np.median(time):.1f} % of the time, "
        f"nine of ten within {100 * np.quantile(time, 0.9):.0f} %"
    )


@click.command()
@click.option("--every", is_flag=True, help="Tell how far off each whole network is.")
def main(every: bool) -> None:
    """Fit."""
    models: dict[tuple[str, str], Costs] = {}
    for runtime in SUFFIX:
        for cpu in CPUS:
            rows = rows_of(runtime, cpu)
            models[runtime, cpu] = fitted_costs(rows, best_tiles(rows))
            print(runtime, cpu, len(rows), "rows", models[runtime, cpu].tiles, flush=True)
    own_fits = {each.cpu: each for each in fits()}
    write(models, off(counted(NETWORKS), own_fits, models))
    for path in (LAYERS, NETWORKS):
        found = off(counted(path), own_fits, models)
        for key in sorted({(each.row.runtime, each.row.cpu, each.row.precision) for each in found}):
            own = [each for each in found if (each.row.runtime, each.row.cpu, each.row.precision) == key]
            print(path.stem, *key, len(own), medians(own))
            if every and path == NETWORKS:
                for each in own:
                    print(f"    {each.row.network}: {100 * each.instructions:+.0f} %, time {100 * each.time:+.0f} %")


def write(models: Mapping[tuple[str, str], Costs], judged: Sequence[Off], path: Path = STATIC) -> None:
    """Write a line for each kernel."""
    document: dict[str, dict[str, object]] = {}
    for (runtime, cpu), each in models.items():
        tiles = {"integer" if own else "float": [of.rows, of.columns, of.depth] for own, of in each.tiles.items()}
        own = [every for every in judged if (every.row.runtime, every.row.cpu) == (runtime, cpu)]
        errors = {name: asdict(errors_of([off for off in own if off.row.precision == name])) for name in PRECISIONS}
        document.setdefault(runtime, {})[cpu] = {"tiles": tiles, "events": each.events, "errors": errors}
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    path.write_text(text.replace("}},", "}},\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
