"""What several commands have in common: options, what they complete and check, and how results are printed."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.errors import ConfigError
from pipeline.process import is_utf8
from pipeline.visible import shown_json, shown_text

if TYPE_CHECKING:
    from pipeline.artifacts.outcome import Outcome, State
    from pipeline.catalog import Kind
    from pipeline.flow import RunRequest
    from pipeline.predict import Style

F = TypeVar("F", bound=Callable[..., Any])

# as in pipeline.flow, which takes too long to import for --help; a test compares them
DEFAULT_RECIPE = "digits"
DEFAULT_TARGET = "raspberry-pi-4"
STAGES = ("train", "finetune", "prune", "quantize", "export", "validate", "report")

EXIT_LIMIT_MISSED = 3  # a result, not a crash
EXIT_LIMIT_OPEN = 5  # neither is this: nobody knows, or not for sure


def debug_option(function: F) -> F:
    """``--debug`` is welcome before and after the subcommand; ``main`` looks for it, since errors may come first."""
    help_text = "Show the traceback of an error."
    return click.option("--debug", is_flag=True, expose_value=False, help=help_text)(function)


def complete(kind: Kind) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes names of entries of a catalogue."""

    def offered(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        from pipeline.completing import entries

        return entries(kind, begun)

    return offered


def complete_run(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Complete the name of a run."""
    from pipeline.completing import runs

    return runs(begun)


def complete_model(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Complete the name of a run or of a model file."""
    from pipeline.completing import models

    return models(begun)


def is_named(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Check a folder for a run."""
    if value == Path():  # what click makes of "", too: the working folder, which holds other things
        raise click.BadParameter("a run needs a folder of its own, for example runs/mine")
    if value is None:
        return None
    from pipeline.paths import expanded

    return expanded(value, where="--out")


def is_assignment(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Check settings KEY=VALUE."""
    for value in values:
        if not value.partition("=")[0].strip() or "=" not in value:
            raise click.BadParameter(f"'{value}' is not KEY=VALUE, for example train.epochs=5")
    return values


def is_shape(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Read a shape."""
    sides = None if value is None else sides_of(value)
    if value is not None and sides is None:
        raise click.BadParameter(f"'{value}' is no shape, for example 3,64,64")
    return sides


def sides_of(text: str) -> tuple[int, ...] | None:
    """Read ``3,64,64`` or ``3x64x64``; None for anything else."""
    sides = text.replace("x", ",").split(",")
    right = all(side.strip().isdecimal() and len(side) < 10 and int(side) for side in sides)
    return tuple(map(int, sides)) if right else None


def shape_in(assignment: str) -> tuple[int, ...]:
    """Read ``images=1,3,320,320``."""
    sides = sides_of(assignment.partition("=")[2])
    if sides is None or len(sides) < 2:
        raise ConfigError(f"'{assignment}' is no shape", where="--input", remedy="write for example images=1,3,320,320")
    return sides


def carry_option(function: F) -> F:
    """Return the option ``--carry``."""
    help_text = "What the next call is given; names such as h and hn say it themselves, unless --carry none."
    return click.option("--carry", multiple=True, metavar="OUTPUT=INPUT", help=help_text)(function)


def emulation_options(function: F) -> F:
    """Return the options ``--emulate`` and ``--budget-minutes``."""
    budget = click.option(
        "--budget-minutes", type=click.FloatRange(0.1, 10_000), default=10.0, show_default=True, metavar="M",
        help="Time for each emulated target: with less than all samples need, some are drawn.",
    )  # fmt: skip
    emulate = click.option("--emulate", is_flag=True, help="Ask the target's own processor, too, emulated by QEMU.")
    return emulate(budget(function))


def measurements_option(function: F) -> F:
    """Return the option ``--measurements``."""
    return click.option(
        "--measurements", multiple=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.json",
        help="What `karui bench --out FILE.json` measured on the target itself; stands instead of estimates.",
    )(function)  # fmt: skip


def status_of(state: State, *, allow_open: bool) -> int:
    """Return the exit status that a state of all limits has."""
    if state == "missed":
        return EXIT_LIMIT_MISSED
    return 0 if state == "met" or allow_open else EXIT_LIMIT_OPEN


def safe(text: str, style: Style) -> str:
    """Return what neither acts on a terminal nor means something else to a program."""
    return shown_json(text) if style == "json" else shown_text(text) if style == "text" else text


def print_json(text: str) -> None:
    """Print a JSON document."""
    # a terminal or pipe that knows ASCII alone gets \u00fc instead of a question mark
    click.echo(shown_json(text) if is_utf8(sys.stdout) else json.dumps(json.loads(text), indent=2))


def ended(request: RunRequest, outcome: Outcome, *, as_json: bool, allow_open: bool) -> int:
    """Print what came of a run, and return the exit status."""
    from pipeline.runs.finished import RUNS

    folder = request.out or RUNS / outcome.run
    if as_json:
        from pipeline.report.document import document

        print_json(document(outcome, folder).to_json())
    else:
        from pipeline.console import result_console
        from pipeline.report.table import print_outcome
        from pipeline.runs.run import repeatable

        print_outcome(outcome, folder, result_console(), command=repeatable(request.command))
    return status_of(outcome.state, allow_open=allow_open)
