"""``karui emulate``: set up targets' emulated processors."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

import click

from pipeline.commands.shared import complete, debug_option


@click.command("emulate", short_help="Set up the emulated processor and system of a target.")
@click.argument("targets", nargs=-1, required=True, shell_complete=complete("target"))
@debug_option
def emulate_(*, targets: tuple[str, ...]) -> None:
    """Set up what `--emulate` needs of each of TARGETS, once, and say which runtimes run there.

    Packages come through this machine's apt, wheels through pip; nothing is installed here, and no root is needed. It
    needs QEMU's user mode: apt install qemu-user; and for peak memory its whole machines: apt install qemu-system-arm.
    """
    from pipeline import catalog
    from pipeline.console import results_alone
    from pipeline.runtimes.emulation.tried import tried

    for name in targets:
        with results_alone():
            line = tried(catalog.load_target(name))
        click.echo(line)
