"""``karui report``: where the report of a run is."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

import click

from pipeline.commands.shared import complete_run, debug_option
from pipeline.errors import ConfigError


@click.command(short_help="Say where the HTML report of a run is, or open it.")
@click.argument("run", shell_complete=complete_run)
@click.option("--open", "in_browser", is_flag=True, help="Open the page in the browser.")
@debug_option
def report(*, run: str, in_browser: bool) -> None:
    """Print the path of the HTML report of RUN (a run folder, or the name of one under runs/)."""
    from pipeline.runs.finished import REPORT_FILE, again, find_run, load_outcome

    folder = find_run(run)
    load_outcome(folder)  # says so when the run has not finished
    page = folder / REPORT_FILE
    if not page.is_file():
        raise ConfigError(f"this run has no {REPORT_FILE}", where=str(folder), remedy=f"make it: {again(folder)}")
    click.echo(str(page))
    if in_browser:
        click.launch(page.resolve().as_uri())
