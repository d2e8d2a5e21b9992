"""``karui compare``: runs side by side."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

import click

from pipeline.commands.shared import complete_run, debug_option, print_json


@click.command(short_help="Put runs side by side.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN]...", shell_complete=complete_run)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@debug_option
def compare(*, runs: tuple[str, ...], as_json: bool) -> None:
    """Put runs side by side; each RUN is a run folder, or the name of one under runs/.

    Where they were tested on the same data, what ships of each is tested against what ships of the first.
    """
    from pipeline.console import result_console
    from pipeline.report.compared import compared_document, side_by_side
    from pipeline.report.table import print_comparison
    from pipeline.runs.finished import find_run, load_outcome, store_of

    folders = [find_run(run) for run in runs]
    compared = side_by_side([load_outcome(each) for each in folders], [store_of(each) for each in folders])
    if as_json:
        print_json(compared_document(compared).to_json())
    else:
        print_comparison(compared, result_console())
