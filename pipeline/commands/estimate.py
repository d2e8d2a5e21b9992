"""``karui estimate``: how long a file takes on a target."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.shared import DEFAULT_TARGET, complete, debug_option, print_json
from pipeline.errors import ConfigError
from pipeline.visible import shown_text


@click.command(short_help="Estimate how long a model file takes on a target.")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "--target", default=DEFAULT_TARGET, show_default=True, metavar="NAME|FILE", shell_complete=complete("target"),
    help="Device that is not at hand.",
)  # fmt: skip
@click.option("--refit", is_flag=True, help="Fit the published times anew and say how good estimates are.")
@click.option(
    "--page", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.md",
    help="With --refit: write all of it there, and a picture beside it.",
)  # fmt: skip
@click.option(
    "--add", "measured", multiple=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.json",
    help="Let what `karui bench --out FILE.json` measured on a board be part of what estimates rest on.",
)  # fmt: skip
@click.option(
    "--file", "files", multiple=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="With --add: a model file that was measured.  [default: those beside FILE.json]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@debug_option
def estimate(
    *,
    model: Path | None,
    target: str,
    refit: bool,
    page: Path | None,
    measured: tuple[Path, ...],
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Count the instructions that one inference of MODEL, an .onnx or .tflite file, takes on TARGET's own processor and
    in its own runtimes, emulated, and say how long that takes there, on one thread, and how sure that is.
    """  # noqa: D205
    from pipeline.console import results_alone
    from pipeline.estimate import estimates
    from pipeline.estimating.predicted import fits
    from pipeline.report import estimates as said
    from pipeline.report.svg import standalone
    from pipeline.runs.records import to_json
    from pipeline.runs.store import write_atomic

    if [refit, model is not None, bool(measured)].count(True) != 1:
        raise ConfigError("name a model file, or say --refit or --add", where="estimate")
    if measured:
        _add(measured, files)
        return
    if model is None:
        click.echo("\n\n".join("\n".join(said.lines_of(fit)) for fit in fits()))
        click.echo("\nmodelled, of networks that were never seen:\n  " + "\n  ".join(said.modelled_lines()))
        if page is not None:
            drawn = page.with_suffix(".svg")
            write_atomic(drawn, standalone(said.picture(fits())).encode())
            write_atomic(page, said.page(fits(), drawn.name).encode())
        return
    with results_alone():
        found = tuple(estimates(model, target))
    if as_json:
        print_json(to_json(found).decode())
    else:
        for each in found:
            click.echo(shown_text(each.text))


def _add(measured: tuple[Path, ...], files: tuple[Path, ...]) -> None:
    from pipeline.benching.added import added
    from pipeline.console import results_alone, shown_progress
    from pipeline.estimating.table import own, own_file

    with results_alone(), shown_progress() as progress:
        rows = added(measured, files, progress)
    for row in rows:
        click.echo(
            shown_text(
                f"{row.model} {row.precision} in {row.runtime}: {row.published_ms:.3g} ms on {row.board} at "
                f"{row.clock_mhz} MHz, {row.counts['total'] / 1e6:.3g} M instructions"
            )
        )
    click.echo(shown_text(f"{own_file()} holds {len(own())} times; karui estimate --refit says what they change"))
