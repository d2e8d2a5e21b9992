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

from bench.count_layers import PRECISIONS, SUFFIX
from pipeline.estimating.layers_table import LAYERS, counted, networks
from pipeline.estimating.predicted import fits
from pipeline.estimating.static import STATIC, Costs
from pipeline.estimating.static_fit import Off, best_tiles, errors_of, fitted_costs, off


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
        rows = [row for row in counted(LAYERS) if row.runtime == runtime]
        tiles = best_tiles(rows)
        models |= {(runtime, cpu): made for cpu, made in fitted_costs(rows, tiles).items()}
        print(runtime, len(rows), "rows", tiles, flush=True)
    own_fits = {each.cpu: each for each in fits()}
    write(models, off(networks(), own_fits, models))
    for name, counts in (("drawn", counted(LAYERS)), ("unseen", networks())):
        found = off(counts, own_fits, models)
        for key in sorted({(each.row.runtime, each.row.cpu, each.row.precision) for each in found}):
            own = [each for each in found if (each.row.runtime, each.row.cpu, each.row.precision) == key]
            print(name, *key, len(own), medians(own))
            if every and name == "unseen":
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
