"""``karui predict``: ask a file about inputs."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.shared import complete_run, debug_option, safe
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.predict import Style


@click.command(short_help="Ask a model file about pictures, rows or arrays.")
@click.argument("model", metavar="RUN|FILE", shell_complete=complete_run)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT [INPUT]...")
@click.option("--file", metavar="NAME", help="Another file of the run than the one that it ships.")
@click.option("--runtime", type=click.Choice(["onnxruntime", "litert", "tflite-runtime"]), help="What runs the file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one CSV table, nothing else.")
@click.option("--labels", is_flag=True, help="INPUT is a folder with one folder per class: say how many are right.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Where to write masks as PNG, for networks that give some.",
)  # fmt: skip
@debug_option
def predict(
    *,
    model: str,
    inputs: tuple[str, ...],
    file: str | None,
    runtime: str | None,
    as_json: bool,
    as_csv: bool,
    labels: bool,
    out: Path | None,
) -> None:
    """Say what a network answers for each INPUT.

    An INPUT is a picture, a CSV table, an .npy or .npz array, a folder of those, or - for one file on standard input.
    RUN|FILE is a run folder or the name of one under runs/ (what it ships for its first target is used), or any .onnx
    or .tflite file that karui exported.
    """
    from pipeline.predict import answers_text, model_for, predicted, scored, scores_text, write_masks

    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other")
    style: Style = "json" if as_json else "csv" if as_csv else "text"
    asked = model_for(model, file=file, runtime=runtime)
    if labels:
        if len(inputs) > 1 or out is not None:
            raise ConfigError("--labels takes one folder, and no --out")
        click.echo(safe(scores_text(scored(asked, Path(inputs[0])), style), style))
        return
    answered = list(predicted(asked, inputs))
    if out is not None:
        write_masks(answered, out)
    click.echo(safe(answers_text(answered, style), style))
