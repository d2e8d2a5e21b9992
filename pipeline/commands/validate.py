"""``karui validate``: judge a model file as it is."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.shared import (
    carry_option,
    complete,
    debug_option,
    emulation_options,
    measurements_option,
    print_json,
    status_of,
)
from pipeline.visible import shown_text


@click.command(short_help="Judge a model file as it is, quantized or not.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="CARD|FOLDER|FILE", shell_complete=complete("data"),
    help="A card (its test split counts), a folder of pictures, a .csv table, an .npz file with x (and y), or "
    "IDX files.",
)  # fmt: skip
@click.option(
    "--float", "beside", type=click.Path(path_type=Path), metavar="FILE",
    help="The float file that it was made from; without labels it says what is right.",
)  # fmt: skip
@click.option(
    "--target", default="", metavar="NAME|FILE", shell_complete=complete("target"),
    help="Device whose limits it has to keep.",
)  # fmt: skip
@click.option("--runtime", default="", metavar="NAME", help="What runs the file.  [default: the first usable]")
@click.option("--output", default="", metavar="NAME,…", help="Which of several outputs.  [default: all]")
@carry_option
@emulation_options
@measurements_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@click.option("--allow-open", is_flag=True, help="Exit status 0 also where a limit is open or uncertain.")
@debug_option
def validate(
    *,
    model: Path,
    data: str,
    beside: Path | None,
    target: str,
    runtime: str,
    output: str,
    carry: tuple[str, ...],
    emulate: bool,
    budget_minutes: float,
    measurements: tuple[Path, ...],
    as_json: bool,
    allow_open: bool,
) -> int:
    """Say what MODEL, an .onnx or .tflite file, answers on DATA, what of it runs on integers, and how long it takes.

    Exit status: 0 every limit of the target is met (or there is none), 3 one is missed, 5 one is open (nobody measured
    it on the target) or uncertain, others as of `karui run`.
    """
    from pipeline.console import results_alone
    from pipeline.report.validation import lines_of
    from pipeline.runs.records import to_json
    from pipeline.validating import Question, validate

    question = Question(
        model=model,
        data=data,
        beside=beside,
        target=target,
        runtime=runtime,
        output=output,
        carry=carry,
        emulate=emulate,
        budget_minutes=budget_minutes,
        measurements=measurements,
    )
    with results_alone():
        found = validate(question)
    if as_json:
        print_json(to_json(found).decode())
    else:
        for line in lines_of(found):
            click.echo(shown_text(line))
    return status_of(found.state, allow_open=allow_open)
