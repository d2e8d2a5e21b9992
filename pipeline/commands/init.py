"""``karui init``: a recipe, card and target for data that is there."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.commands.shared import DEFAULT_TARGET, complete, debug_option
from pipeline.errors import ConfigError
from pipeline.visible import shown_text


def _asked(question: str, proposal: str) -> str:
    answer: str = click.prompt(question, default=proposal)
    return answer.strip()


@click.command(short_help="Write a recipe and a card for data of your own.")
@click.argument("data", default=".", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="What recipe and run are called.  [default: as the data]")
@click.option("--label", metavar="COLUMN", help="The column of a table that is to be predicted.")
@click.option(
    "--target", metavar="NAME|FILE", shell_complete=complete("target"),
    help=f"Device that the model is for; a .toml file that is not there is written.  [default: {DEFAULT_TARGET}]",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Ask nothing: take what is proposed, and write over files of these names.")
@debug_option
def init(*, data: Path, name: str | None, label: str | None, target: str | None, yes: bool) -> None:
    """Look at DATA (a folder or file; default: what lies in this folder) and write a recipe and a card for it.

    Understood are a folder with one folder of pictures per class, a CSV table, an .npz file and IDX files. What is not
    clear is asked on a terminal; elsewhere the options say it.
    """
    from pipeline.catalog import load_target
    from pipeline.paths import expanded
    from pipeline.starting.files import name_for, project
    from pipeline.starting.look import look

    asks = sys.stdin.isatty() and not yes

    def choose(columns: tuple[str, ...], likely: str) -> str:
        if not asks and not yes:
            what = f"which column is to be predicted? There are {', '.join(columns[:20])}"
            raise ConfigError(what, where="init", remedy=f"say it, for example: --label '{likely}'")
        return likely if yes else _asked(f"Which column is to be predicted ({', '.join(columns[:20])})", likely)

    data = expanded(data, where="init")
    seen = look(data, label=label, choose=choose)
    summary = shown_text(f"{data}: {seen.summary}")
    if asks:
        click.echo(summary)
    name = name or (_asked("Name", name_for(seen)) if asks else name_for(seen))
    target = target or (_asked("Device", DEFAULT_TARGET) if asks else DEFAULT_TARGET)
    if not target.endswith(".toml") or Path(target).exists():
        load_target(target)  # a wrong name is told now and not after the training
    found = project(seen, name=name, target=target, default_target=DEFAULT_TARGET)
    if found.in_the_way and not yes:
        there = ", ".join(map(str, found.in_the_way))
        if not (asks and click.confirm(f"Write over {there}?")):
            raise ConfigError(f"{there} is there already", where="init", remedy="choose another --name, or say --yes")
    found.write()
    if not asks:
        click.echo(summary)
    click.echo(f"Written: {', '.join(map(str, found.files))}")
    click.echo(f"Next     {found.command}")
