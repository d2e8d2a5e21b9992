"""``karui quantize``: int8 files of an ONNX file."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.shared import (
    DEFAULT_TARGET,
    carry_option,
    complete,
    debug_option,
    ended,
    is_assignment,
    is_named,
    shape_in,
)
from pipeline.errors import ConfigError
from pipeline.visible import shown_text


@click.command(short_help="Quantize an ONNX file: no training code, only samples.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="CARD|FOLDER|FILE", shell_complete=complete("data"),
    help="A card, a folder of pictures (one folder per class, or without classes), a .csv table, an .npz file "
    "with x (and y), or IDX files.",
)  # fmt: skip
@click.option(
    "--target", "targets", multiple=True, default=[DEFAULT_TARGET], show_default=True, metavar="NAME|FILE",
    shell_complete=complete("target"),
    help="Device to make the model for; repeat it for several.",
)  # fmt: skip
@click.option("--name", default="", metavar="NAME", help="What recipe and run are called.  [default: as the file]")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=SHAPE", callback=is_assignment,
    help="Shape of an input whose axes the file leaves free, for example images=1,3,320,320.",
)  # fmt: skip
@click.option("--output", default="", metavar="NAME,…", help="Which of several outputs.  [default: all]")
@click.option(
    "--epochs", type=click.IntRange(0), default=0, show_default=True, metavar="N",
    help="Train so long with simulated int8: on labels or, without any, towards the float network's outputs.",
)  # fmt: skip
@carry_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", callback=is_named,
    help="Folder of the run.  [default: runs/NAME]",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Write over a recipe, card or samples of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables, nothing else.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@click.option("--allow-open", is_flag=True, help="Exit status 0 also where a limit is open or uncertain.")
@debug_option
def quantize(
    *,
    model: Path,
    data: str,
    targets: tuple[str, ...],
    name: str,
    inputs: tuple[str, ...],
    output: str,
    epochs: int,
    carry: tuple[str, ...],
    out: Path | None,
    yes: bool,
    as_json: bool,
    quiet: bool,
    allow_open: bool,
) -> int:
    """Make int8 and float files, ONNX and TFLite, of MODEL, an .onnx file, and say what was lost.

    A recipe is written that `karui run` takes: to train it, or to prune it, change a line there. Where the samples have
    no labels that fit, int8 is compared with what the float network gives. Exit status: as of `karui run`.
    """
    from pipeline.console import results_alone, shown_progress
    from pipeline.flow import RunRequest, run_recipe
    from pipeline.paths import expanded
    from pipeline.starting.models import quantizing

    with results_alone():
        shapes = {each.partition("=")[0].strip(): shape_in(each) for each in inputs}
        made = quantizing(
            expanded(model, where="quantize"), data, name=name, shapes=shapes, output=output, carry=carry, epochs=epochs
        )
    if made.in_the_way and not yes:
        there = ", ".join(map(str, made.in_the_way))
        raise ConfigError(f"{there} is there already", where="quantize", remedy="choose another --name, or say --yes")
    made.write()
    for each in () if quiet or as_json else (*made.said, f"written: {', '.join(map(str, made.files))}"):
        click.echo(shown_text(each))
    told = [part for target in targets if targets != (DEFAULT_TARGET,) for part in ("--target", target)]
    request = RunRequest(
        recipe=str(made.recipe),
        targets=targets,
        out=out,
        device="cpu",
        command=("karui", "run", str(made.recipe), *told, *(("--out", str(out)) if out else ())),
    )
    with results_alone(), shown_progress(quiet=quiet) as progress:
        outcome = run_recipe(request, progress)
    return ended(request, outcome, as_json=as_json, allow_open=allow_open)
