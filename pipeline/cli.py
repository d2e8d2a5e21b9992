"""The ``karui`` command as a process: one group of commands, and the one place where errors are caught.

In ``pipeline/commands`` imports stand inside the functions, and only there: ``karui --help`` must not wait for torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from pipeline.commands import COMMANDS
from pipeline.commands.shared import debug_option
from pipeline.ending import Stopped, ending_of, tell
from pipeline.errors import ConfigError, nearest
from pipeline.process import close_results, listen_to_signals, nobody_listens, usable_streams


class _NobodyListensError(Exception):
    """Whoever read what is printed has gone."""


class _Commands(click.Group):
    """A group that suggests the nearest command for one that does not exist, and leaves a closed pipe to ``main``."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        try:
            return super().make_context(*args, **more)
        except BrokenPipeError as error:  # click would exit with status 1
            raise _NobodyListensError from error

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _NobodyListensError from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no such command '{name}'{nearest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="karui", message="%(prog)s %(version)s")
@debug_option
def karui() -> None:
    """Take a neural network from PyTorch training to a verified int8 model for a small computer.

    Start with `karui run`: it trains, prunes, quantizes, exports and validates the recipe `digits` for a
    Raspberry Pi 4 and writes a report. Running the same command again recalls what is done.
    """


for _command in COMMANDS:
    karui.add_command(_command)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; the one place where errors are caught."""
    try:
        return _status(args)
    finally:
        if args is None:  # else somebody calls this from Python, who goes on
            close_results()


def _status(args: Sequence[str] | None) -> int:
    usable_streams()
    listen_to_signals()
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        _refuse_zero_bytes(arguments)
        status = karui.main(args=arguments, prog_name="karui", standalone_mode=False, obj=arguments)
        return status if isinstance(status, int) else 0
    except (BrokenPipeError, _NobodyListensError):
        return nobody_listens()
    except (Exception, KeyboardInterrupt, Stopped) as error:  # noqa: BLE001  the user gets a message, the traceback with --debug
        try:
            return tell(error, debug="--debug" in arguments, as_json="--json" in arguments)
        except BrokenPipeError:
            nobody_listens()
            return ending_of(error).exit_status


def _refuse_zero_bytes(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if "\0" in argument:
            raise ConfigError(f"the argument {argument!a} holds a zero byte", remedy="take it out")


if __name__ == "__main__":
    sys.exit(main())
