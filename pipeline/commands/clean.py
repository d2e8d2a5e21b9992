"""``karui clean``: free what no run uses."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

import click

from pipeline.commands.shared import debug_option


@click.command(short_help="Free the space of results that no run uses any more.")
@click.option("--all", "everything", is_flag=True, help="Also forget what runs use: they would start from nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@debug_option
def clean(*, everything: bool, yes: bool) -> None:
    """Say what could be freed of what runs share (runs/.cache, or the folder that KARUI_CACHE names), and free it.

    Run folders, with their reports and model files, stay as they are.
    """
    from pipeline.runs.cache import cache_folder
    from pipeline.runs.clean import plan_cleaning

    cleaning = plan_cleaning(cache_folder(), everything=everything)
    click.echo(cleaning.summary)
    if cleaning.size_bytes and (yes or click.confirm("Free it?")):
        cleaning.carry_out()
        click.echo("Done.")
