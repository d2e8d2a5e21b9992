"""``karui show``: what a run came to."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

import click

from pipeline.commands.shared import complete_run, debug_option


@click.command(short_help="Print verdicts, sizes, stages and layers of a run.")
@click.argument("run", shell_complete=complete_run)
@debug_option
def show(*, run: str) -> None:
    """Print verdicts, sizes, stages and layers of RUN (a run folder, or the name of one under runs/)."""
    from pipeline.console import result_console
    from pipeline.report.table import print_show
    from pipeline.runs.finished import find_run, load_outcome

    print_show(load_outcome(find_run(run)), result_console())
