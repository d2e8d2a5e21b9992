"""``karui list``: what the catalogues hold."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.commands.shared import debug_option
from pipeline.errors import KaruiError
from pipeline.visible import shown_text

if TYPE_CHECKING:
    from pipeline.catalog import Kind


def _title(kind: Kind, name: str) -> str:
    """One line about an entry of the catalogue; a broken one is listed with what is wrong."""
    from pipeline import catalog

    try:
        match kind:
            case "recipe":
                return catalog.load_recipe(name)[0].summary
            case "target":
                target = catalog.load_target(name)
                return f"{target.title}, also {', '.join(target.aliases)}" if target.aliases else target.title
            case _:
                return catalog.load_card(name)[0].title
    except KaruiError as error:
        return f"(broken) {error}".splitlines()[0]


@click.command(name="list", short_help="List recipes, targets or data sets.")
@click.argument("what", type=click.Choice(["recipes", "targets", "data"]))
@debug_option
def list_(*, what: str) -> None:
    """List what there is to choose from, WHAT being recipes, targets or data: the shipped ones and your own."""
    kinds: dict[str, Kind] = {"recipes": "recipe", "targets": "target", "data": "data"}
    from pipeline.catalog import names

    width = max((len(name) for name in names(kinds[what])), default=0)
    for name in names(kinds[what]):
        click.echo(shown_text(f"{name:<{width}}  {_title(kinds[what], name)}").rstrip())
