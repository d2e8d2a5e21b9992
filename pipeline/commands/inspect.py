"""``karui inspect``: what a network costs."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.shared import complete, debug_option, is_shape, print_json


@click.command(short_help="Show the layers of a network or model file and what they cost.")
@click.argument("subject", metavar="NAME|FILE", shell_complete=complete("recipe"))
@click.option(
    "--input", "shape", metavar="C,H,W", callback=is_shape,
    help="Shape of one input.  [default: the recipe's; 3,224,224 for networks of packages, else 3,32,32]",
)  # fmt: skip
@click.option(
    "--classes", type=click.IntRange(1), metavar="N", help="Number of outputs.  [default: the recipe's, or 10]"
)
@click.option(
    "--target", "targets", multiple=True, metavar="NAME|FILE", shell_complete=complete("target"),
    help="Estimate how long each layer takes there, too; again for further ones.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a chart of the costs, too."
)
@debug_option
def inspect(
    *,
    subject: str,
    shape: tuple[int, ...] | None,
    classes: int | None,
    targets: tuple[str, ...],
    as_json: bool,
    svg: Path | None,
) -> None:
    """Show each layer's output, parameters, multiply-accumulates and memory, and whether it runs on integers.

    NAME|FILE is a recipe, a network file or name (resnet, timm:resnet18, torchvision:resnet50, mypackage.nets:build),
    or an .onnx or .tflite file. No data is read, nothing is trained, and nothing is run: times are estimated.
    """
    from pipeline import catalog
    from pipeline.console import result_console, results_alone
    from pipeline.inspecting.subject import Asked
    from pipeline.inspecting.subject import inspect as inspect_subject
    from pipeline.inspecting.timed import on_target
    from pipeline.report.inspection import inspected_json, inspected_svg, print_inspected

    with results_alone():
        profiles = [catalog.load_target(target) for target in targets]
        found = inspect_subject(Asked(subject=subject, shape=shape, classes=classes))
        there = tuple(on_target(found, profile) for profile in profiles)
    if svg is not None:
        from pipeline.runs.store import write_atomic

        write_atomic(svg, inspected_svg(found, there).encode())
    if as_json:
        print_json(inspected_json(found, there))
    else:
        print_inspected(found, result_console(), there)
