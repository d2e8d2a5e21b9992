"""``karui bench``: how long files take on the machine at hand, or how much they execute on a target."""
# ruff: noqa: PLC0415  start-up time: see pipeline/cli.py

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.shared import (
    DEFAULT_TARGET,
    EXIT_LIMIT_MISSED,
    complete,
    complete_model,
    debug_option,
    print_json,
)
from pipeline.errors import ConfigError

_MOST_THREADS = 1024


def _counts_of(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Read ``1,4``."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and len(part) < 5 and 1 <= int(part) <= _MOST_THREADS for part in parts):
        raise click.BadParameter(f"'{value}' is no list of thread counts, for example 1,4")
    return tuple(dict.fromkeys(map(int, parts)))


@click.command(short_help="Measure model files on this machine, or count what they execute.")
@click.argument("files", nargs=-1, required=True, metavar="FILE|RUN [FILE]...", shell_complete=complete_model)
@click.option(
    "--runtime", default="", metavar="NAME", help="What runs them.  [default: the first usable; of a RUN all]"
)
@click.option(
    "--threads", default="1", show_default=True, metavar="N,…", callback=_counts_of,
    help="With how many threads; several one after the other.",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(0.05, 10_000), default=0.33, show_default=True, metavar="M",
    help="About how long in all; what sessions leave is run without a pause.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.json",
    help="Write the measurements there, too, for `karui run --measurements`.",
)  # fmt: skip
@click.option("--counts", is_flag=True, help="Count what one inference executes on TARGET, emulated: no noise.")
@click.option(
    "--target", metavar="NAME|FILE", shell_complete=complete("target"),
    help=f"The target that this machine is; with --counts whose processor.  [default: found out; {DEFAULT_TARGET}]",
)  # fmt: skip
@click.option(
    "--at-most", type=click.FloatRange(0, min_open=True), metavar="X",
    help="With --counts: exit status 3 where a file takes more than X times the first one's instructions.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@debug_option
def bench(
    *,
    files: tuple[str, ...],
    runtime: str,
    threads: tuple[int, ...],
    minutes: float,
    out: Path | None,
    counts: bool,
    target: str | None,
    at_most: float | None,
    as_json: bool,
) -> int:
    """Measure each FILE|RUN, an .onnx or .tflite file or all files of a run, on this machine: single inferences in
    fresh sessions, first answers, a run without a pause, and what the machine was like meanwhile.

    Several files take turns, so that a busy moment hits all of them alike; their ratios are to the first one. With
    --counts, what one inference executes on a target's emulated processor is compared instead.
    """  # noqa: D205
    if at_most is not None and not counts:
        raise ConfigError("only counts have a limit", where="--at-most", remedy="add --counts")
    if counts:
        return _count(files, target or DEFAULT_TARGET, runtime, at_most, as_json=as_json)
    from pipeline.benching.contenders import contenders
    from pipeline.benching.measured import Plan, profile_here
    from pipeline.benching.measured import bench as measure
    from pipeline.console import result_console, results_alone, shown_progress
    from pipeline.report.benched import print_measurements
    from pipeline.runs.measurements import write_measurements
    from pipeline.runs.records import to_json

    try:
        with results_alone(), shown_progress() as progress:
            plan = Plan(threads=threads, seconds=60 * minutes, profile=profile_here(target))
            found = measure(contenders(files, runtime), plan, progress)
    except KeyboardInterrupt as error:
        raise click.Abort("nothing is kept of a measurement that did not end") from error
    if out is not None:
        write_measurements(out, found)
    if as_json:
        print_json(to_json(found).decode())
    else:
        print_measurements(found, result_console())
    return 0


def _count(files: tuple[str, ...], target: str, runtime: str, at_most: float | None, *, as_json: bool) -> int:
    from pipeline.benching.counted import count
    from pipeline.console import result_console, results_alone, shown_progress
    from pipeline.report.benched import print_counts
    from pipeline.runs.records import to_json

    with results_alone(), shown_progress() as progress:
        found = count(files, target, runtime, progress)
    if as_json:
        print_json(to_json(found).decode())
    else:
        print_counts(found, at_most, result_console())
    return EXIT_LIMIT_MISSED if at_most is not None and found.most > at_most else 0
