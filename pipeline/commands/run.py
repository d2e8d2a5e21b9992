"""``karui run``: train, prune, quantize, export and validate a recipe."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from pipeline.commands.shared import (
    DEFAULT_RECIPE,
    DEFAULT_TARGET,
    STAGES,
    complete,
    debug_option,
    emulation_options,
    ended,
    is_assignment,
    is_named,
    measurements_option,
)

if TYPE_CHECKING:
    from pipeline.flow import StageName


@click.command(short_help="Train, prune, quantize, export and validate a recipe.")
@click.argument("recipe", default=DEFAULT_RECIPE, shell_complete=complete("recipe"))
@click.option(
    "--target", "targets", multiple=True, default=[DEFAULT_TARGET], show_default=True, metavar="NAME|FILE",
    shell_complete=complete("target"),
    help="Device to make the model for; repeat it for several.",
)  # fmt: skip
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", callback=is_assignment,
    help="Change one setting of the recipe, for example train.epochs=5; repeat it for several.",
)  # fmt: skip
@click.option("--until", type=click.Choice(STAGES), help="Stop after this stage.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", callback=is_named,
    help="Folder of the run.  [default: runs/RECIPE]",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Recall nothing: do every stage again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables, nothing else.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where to train.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N",
    help="Threads of torch on the CPU; weights depend on it.  [default: the recipe's, or the fastest]",
)  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Write the curves of the training for TensorBoard, too.")
@emulation_options
@measurements_option
@click.option(
    "--allow-open", is_flag=True,
    help="Exit status 0 also where a limit is open (nobody measured it) or uncertain (inside its interval).",
)  # fmt: skip
@debug_option
def run(
    *,
    recipe: str,
    targets: tuple[str, ...],
    overrides: tuple[str, ...],
    until: str | None,
    out: Path | None,
    fresh: bool,
    as_json: bool,
    quiet: bool,
    device: str,
    threads: int | None,
    tensorboard: bool,
    emulate: bool,
    budget_minutes: float,
    measurements: tuple[Path, ...],
    allow_open: bool,
) -> int:
    """Train, prune, quantize, export and validate RECIPE: a name, or the path of a .toml file [default: digits].

    Exit status: 0 every limit is met, 3 one is missed, 5 one is open or uncertain, 2 wrong use or configuration,
    4 bad data or model file, 1 anything else.
    """
    from pipeline.console import results_alone, shown_progress
    from pipeline.flow import RunRequest, run_recipe

    request = RunRequest(
        recipe=recipe,
        targets=targets,
        overrides=overrides,
        until=cast("StageName | None", until),
        out=out,
        fresh=fresh,
        device=device,
        threads=threads,
        tensorboard=tensorboard,
        emulate=emulate,
        budget_minutes=budget_minutes,
        measurements=measurements,
        command=("karui", *click.get_current_context().obj),
    )
    with results_alone(), shown_progress(quiet=quiet) as progress:
        outcome = run_recipe(request, progress)
    if not outcome.targets and not as_json:
        click.echo(f"Stopped after {until}; the same command without --until goes on from here.")
        return 0
    return ended(request, outcome, as_json=as_json, allow_open=allow_open)
