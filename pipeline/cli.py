"""The ``karui`` command: each command parses, calls one function and prints.

Imports stand inside the functions here, and only here: ``karui --help`` must not wait for torch.
"""
# ruff: noqa: PLC0415  start-up time: see above

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from pipeline.ending import Stopped, ending_of, tell
from pipeline.errors import ConfigError, KaruiError, nearest
from pipeline.process import close_results, is_utf8, listen_to_signals, nobody_listens, usable_streams
from pipeline.visible import shown_json, shown_text

if TYPE_CHECKING:
    from pipeline.artifacts.outcome import Outcome, State
    from pipeline.catalog import Kind
    from pipeline.flow import RunRequest, StageName
    from pipeline.predict import Style

F = TypeVar("F", bound=Callable[..., Any])

# as in pipeline.flow, which takes too long to import for --help; a test compares them
DEFAULT_RECIPE = "digits"
DEFAULT_TARGET = "raspberry-pi-4"
STAGES = ("train", "finetune", "prune", "quantize", "export", "validate", "report")

EXIT_LIMIT_MISSED = 3  # a result, not a crash
EXIT_LIMIT_OPEN = 5  # neither is this: nobody knows, or not for sure


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


def _debug_option(function: F) -> F:
    """``--debug`` is welcome before and after the subcommand; ``main`` looks for it, since errors may come first."""
    help_text = "Show the traceback of an error."
    return click.option("--debug", is_flag=True, expose_value=False, help=help_text)(function)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="karui", message="%(prog)s %(version)s")
@_debug_option
def karui() -> None:
    """Take a neural network from PyTorch training to a verified int8 model for a small computer.

    Start with `karui run`: it trains, prunes, quantizes, exports and validates the recipe `digits` for a
    Raspberry Pi 4 and writes a report. Running the same command again recalls what is done.
    """


def _complete(kind: Kind) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def offered(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        from pipeline.completing import entries

        return entries(kind, begun)

    return offered


def _complete_run(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    from pipeline.completing import runs

    return runs(begun)


def _is_named(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    if value == Path():  # what click makes of "", too: the working folder, which holds other things
        raise click.BadParameter("a run needs a folder of its own, for example runs/mine")
    if value is None:
        return None
    from pipeline.paths import expanded

    return expanded(value, where="--out")


def _is_assignment(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not value.partition("=")[0].strip() or "=" not in value:
            raise click.BadParameter(f"'{value}' is not KEY=VALUE, for example train.epochs=5")
    return values


def _is_shape(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    sides = None if value is None else _sides_of(value)
    if value is not None and sides is None:
        raise click.BadParameter(f"'{value}' is no shape, for example 3,64,64")
    return sides


def _sides_of(text: str) -> tuple[int, ...] | None:
    """Read ``3,64,64`` or ``3x64x64``; None for anything else."""
    sides = text.replace("x", ",").split(",")
    right = all(side.strip().isdecimal() and len(side) < 10 and int(side) for side in sides)
    return tuple(map(int, sides)) if right else None


@karui.command(short_help="Train, prune, quantize, export and validate a recipe.")
@click.argument("recipe", default=DEFAULT_RECIPE, shell_complete=_complete("recipe"))
@click.option(
    "--target", "targets", multiple=True, default=[DEFAULT_TARGET], show_default=True, metavar="NAME|FILE",
    shell_complete=_complete("target"),
    help="Device to make the model for; repeat it for several.",
)  # fmt: skip
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", callback=_is_assignment,
    help="Change one setting of the recipe, for example train.epochs=5; repeat it for several.",
)  # fmt: skip
@click.option("--until", type=click.Choice(STAGES), help="Stop after this stage.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", callback=_is_named,
    help="Folder of the run.  [default: runs/RECIPE]",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Recall nothing: do every stage again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables, nothing else.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where to train.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N",
    help="Threads of torch on the CPU; weights depend on it.  [default: the recipe's, or the fastest]",
)  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Write the curves of the training for TensorBoard, too.")
@click.option("--emulate", is_flag=True, help="Run the files on each target's processor, emulated by QEMU.")
@click.option(
    "--budget-minutes", type=click.FloatRange(0.1, 10_000), default=10.0, show_default=True, metavar="M",
    help="Time for each emulated target: with less than all test samples need, some are drawn.",
)  # fmt: skip
@click.option(
    "--allow-open", is_flag=True,
    help="Exit status 0 also where a limit is open (nobody measured it) or uncertain (inside its interval).",
)  # fmt: skip
@_debug_option
def run(
    *,
    recipe: str,
    targets: tuple[str, ...],
    overrides: tuple[str, ...],
    until: str | None,
    out: Path | None,
    fresh: bool,
    as_json: bool,
    quiet: bool,
    device: str,
    threads: int | None,
    tensorboard: bool,
    emulate: bool,
    budget_minutes: float,
    allow_open: bool,
) -> int:
    """Train, prune, quantize, export and validate RECIPE: a name, or the path of a .toml file [default: digits].

    Exit status: 0 every limit is met, 3 one is missed, 5 one is open or uncertain, 2 wrong use or configuration,
    4 bad data or model file, 1 anything else.
    """
    from pipeline.console import results_alone, shown_progress
    from pipeline.flow import RunRequest, run_recipe

    request = RunRequest(
        recipe=recipe,
        targets=targets,
        overrides=overrides,
        until=cast("StageName | None", until),
        out=out,
        fresh=fresh,
        device=device,
        threads=threads,
        tensorboard=tensorboard,
        emulate=emulate,
        budget_minutes=budget_minutes,
        command=("karui", *click.get_current_context().obj),
    )
    with results_alone(), shown_progress(quiet=quiet) as progress:
        outcome = run_recipe(request, progress)
    if not outcome.targets and not as_json:
        click.echo(f"Stopped after {until}; the same command without --until goes on from here.")
        return 0
    return _ended(request, outcome, as_json=as_json, allow_open=allow_open)


def _carry_option(function: F) -> F:
    help_text = "What the next call is given; names such as h and hn say it themselves, unless --carry none."
    return click.option("--carry", multiple=True, metavar="OUTPUT=INPUT", help=help_text)(function)


@karui.command(short_help="Quantize an ONNX file: no training code, only samples.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="CARD|FOLDER|FILE", shell_complete=_complete("data"),
    help="A card, a folder of pictures (one folder per class, or without classes), a .csv table, an .npz file "
    "with x (and y), or IDX files.",
)  # fmt: skip
@click.option(
    "--target", "targets", multiple=True, default=[DEFAULT_TARGET], show_default=True, metavar="NAME|FILE",
    shell_complete=_complete("target"),
    help="Device to make the model for; repeat it for several.",
)  # fmt: skip
@click.option("--name", default="", metavar="NAME", help="What recipe and run are called.  [default: as the file]")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=SHAPE", callback=_is_assignment,
    help="Shape of an input whose axes the file leaves free, for example images=1,3,320,320.",
)  # fmt: skip
@click.option("--output", default="", metavar="NAME,…", help="Which of several outputs.  [default: all]")
@click.option(
    "--epochs", type=click.IntRange(0), default=0, show_default=True, metavar="N",
    help="Train so long with simulated int8: on labels or, without any, towards the float network's outputs.",
)  # fmt: skip
@_carry_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", callback=_is_named,
    help="Folder of the run.  [default: runs/NAME]",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Write over a recipe, card or samples of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables, nothing else.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@click.option("--allow-open", is_flag=True, help="Exit status 0 also where a limit is open or uncertain.")
@_debug_option
def quantize(
    *,
    model: Path,
    data: str,
    targets: tuple[str, ...],
    name: str,
    inputs: tuple[str, ...],
    output: str,
    epochs: int,
    carry: tuple[str, ...],
    out: Path | None,
    yes: bool,
    as_json: bool,
    quiet: bool,
    allow_open: bool,
) -> int:
    """Make int8 and float files, ONNX and TFLite, of MODEL, an .onnx file, and say what was lost.

    A recipe is written that `karui run` takes: to train it, or to prune it, change a line there. Where the samples have
    no labels that fit, int8 is compared with what the float network gives. Exit status: as of `karui run`.
    """
    from pipeline.console import results_alone, shown_progress
    from pipeline.flow import RunRequest, run_recipe
    from pipeline.paths import expanded
    from pipeline.starting.models import quantizing

    with results_alone():
        shapes = {each.partition("=")[0].strip(): _shape_in(each) for each in inputs}
        made = quantizing(
            expanded(model, where="quantize"), data, name=name, shapes=shapes, output=output, carry=carry, epochs=epochs
        )
    if made.in_the_way and not yes:
        there = ", ".join(map(str, made.in_the_way))
        raise ConfigError(f"{there} is there already", where="quantize", remedy="choose another --name, or say --yes")
    made.write()
    for each in () if quiet or as_json else (*made.said, f"written: {', '.join(map(str, made.files))}"):
        click.echo(shown_text(each))
    told = [part for target in targets if targets != (DEFAULT_TARGET,) for part in ("--target", target)]
    request = RunRequest(
        recipe=str(made.recipe),
        targets=targets,
        out=out,
        device="cpu",
        command=("karui", "run", str(made.recipe), *told, *(("--out", str(out)) if out else ())),
    )
    with results_alone(), shown_progress(quiet=quiet) as progress:
        outcome = run_recipe(request, progress)
    return _ended(request, outcome, as_json=as_json, allow_open=allow_open)


@karui.command(short_help="Judge a model file as it is, quantized or not.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="CARD|FOLDER|FILE", shell_complete=_complete("data"),
    help="A card (its test split counts), a folder of pictures, a .csv table, an .npz file with x (and y), or "
    "IDX files.",
)  # fmt: skip
@click.option(
    "--float", "beside", type=click.Path(path_type=Path), metavar="FILE",
    help="The float file that it was made from; without labels it says what is right.",
)  # fmt: skip
@click.option(
    "--target", default="", metavar="NAME|FILE", shell_complete=_complete("target"),
    help="Device whose limits it has to keep.",
)  # fmt: skip
@click.option("--runtime", default="", metavar="NAME", help="What runs the file.  [default: the first usable]")
@click.option("--output", default="", metavar="NAME,…", help="Which of several outputs.  [default: all]")
@_carry_option
@click.option("--emulate", is_flag=True, help="Ask the target's own processor, too, emulated by QEMU.")
@click.option(
    "--budget-minutes", type=click.FloatRange(0.1, 10_000), default=10.0, show_default=True, metavar="M",
    help="Time for the emulated target: with less than all samples need, some are drawn.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@click.option("--allow-open", is_flag=True, help="Exit status 0 also where a limit is open or uncertain.")
@_debug_option
def validate(
    *,
    model: Path,
    data: str,
    beside: Path | None,
    target: str,
    runtime: str,
    output: str,
    carry: tuple[str, ...],
    emulate: bool,
    budget_minutes: float,
    as_json: bool,
    allow_open: bool,
) -> int:
    """Say what MODEL, an .onnx or .tflite file, answers on DATA, what of it runs on integers, and how long it takes.

    Exit status: 0 every limit of the target is met (or there is none), 3 one is missed, 5 one is open (nobody measured
    it on the target) or uncertain, others as of `karui run`.
    """
    from pipeline.console import results_alone
    from pipeline.report.validation import lines_of
    from pipeline.runs.records import to_json
    from pipeline.validating import Question, validate

    question = Question(
        model=model,
        data=data,
        beside=beside,
        target=target,
        runtime=runtime,
        output=output,
        carry=carry,
        emulate=emulate,
        budget_minutes=budget_minutes,
    )
    with results_alone():
        found = validate(question)
    if as_json:
        _print_json(to_json(found).decode())
    else:
        for line in lines_of(found):
            click.echo(shown_text(line))
    return _status_of(found.state, allow_open=allow_open)


@karui.command("emulate", short_help="Set up the emulated processor and system of a target.")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET…", shell_complete=_complete("target"))
@_debug_option
def emulate_(*, targets: tuple[str, ...]) -> None:
    """Set up, once, what `--emulate` of `karui run` and `karui validate` needs of each TARGET, and try its runtimes.

    Packages come through this machine's apt, wheels through pip; nothing is installed here, and no root is needed. It
    needs QEMU's user mode: apt install qemu-user.
    """
    from pipeline import catalog
    from pipeline.console import results_alone
    from pipeline.runtimes.emulation.tried import tried

    for name in targets:
        with results_alone():
            line = tried(catalog.load_target(name))
        click.echo(line)


@karui.command(short_help="Estimate how long a model file takes on a target.")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "--target", default=DEFAULT_TARGET, show_default=True, metavar="NAME|FILE", shell_complete=_complete("target"),
    help="Device that is not at hand.",
)  # fmt: skip
@click.option("--refit", is_flag=True, help="Fit the published times anew and say how good estimates are.")
@click.option(
    "--page", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.md",
    help="With --refit: write all of it there, and a picture beside it.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@_debug_option
def estimate(*, model: Path | None, target: str, refit: bool, page: Path | None, as_json: bool) -> None:
    """Count the instructions that one inference of MODEL, an .onnx or .tflite file, takes on TARGET's own processor and
    in its own runtimes, emulated, and say how long that takes there, on one thread, and how sure that is.
    """  # noqa: D205
    from pipeline.console import results_alone
    from pipeline.estimate import estimates
    from pipeline.estimating.predicted import fits
    from pipeline.report import estimates as said
    from pipeline.report.svg import standalone
    from pipeline.runs.records import to_json
    from pipeline.runs.store import write_atomic

    if refit == (model is not None):
        raise ConfigError("name a model file, or say --refit", where="estimate")
    if model is None:
        click.echo("\n\n".join("\n".join(said.lines_of(fit)) for fit in fits()))
        if page is not None:
            drawn = page.with_suffix(".svg")
            write_atomic(drawn, standalone(said.picture(fits())).encode())
            write_atomic(page, said.page(fits(), drawn.name).encode())
        return
    with results_alone():
        found = tuple(estimates(model, target))
    if as_json:
        _print_json(to_json(found).decode())
    else:
        for each in found:
            click.echo(shown_text(each.text))


def _shape_in(assignment: str) -> tuple[int, ...]:
    """Read ``images=1,3,320,320``."""
    sides = _sides_of(assignment.partition("=")[2])
    if sides is None or len(sides) < 2:
        raise ConfigError(f"'{assignment}' is no shape", where="--input", remedy="write for example images=1,3,320,320")
    return sides


@karui.command(short_help="Write a recipe and a card for data of your own.")
@click.argument("data", default=".", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="What recipe and run are called.  [default: as the data]")
@click.option("--label", metavar="COLUMN", help="The column of a table that is to be predicted.")
@click.option(
    "--target", metavar="NAME|FILE", shell_complete=_complete("target"),
    help=f"Device that the model is for; a .toml file that is not there is written.  [default: {DEFAULT_TARGET}]",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Ask nothing: take what is proposed, and write over files of these names.")
@_debug_option
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


def _asked(question: str, proposal: str) -> str:
    answer: str = click.prompt(question, default=proposal)
    return answer.strip()


@karui.command(name="list", short_help="List recipes, targets or data sets.")
@click.argument("what", type=click.Choice(["recipes", "targets", "data"]))
@_debug_option
def list_(*, what: str) -> None:
    """List what there is to choose from, WHAT being recipes, targets or data: the shipped ones and your own."""
    kinds: dict[str, Kind] = {"recipes": "recipe", "targets": "target", "data": "data"}
    from pipeline.catalog import names

    width = max((len(name) for name in names(kinds[what])), default=0)
    for name in names(kinds[what]):
        click.echo(shown_text(f"{name:<{width}}  {_title(kinds[what], name)}").rstrip())


@karui.command(short_help="Put runs side by side.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN]...", shell_complete=_complete_run)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@_debug_option
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
        _print_json(compared_document(compared).to_json())
    else:
        print_comparison(compared, result_console())


@karui.command(short_help="Say where the HTML report of a run is, or open it.")
@click.argument("run", shell_complete=_complete_run)
@click.option("--open", "in_browser", is_flag=True, help="Open the page in the browser.")
@_debug_option
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


@karui.command(short_help="Ask a model file about pictures, rows or arrays.")
@click.argument("model", metavar="RUN|FILE", shell_complete=_complete_run)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT [INPUT]...")
@click.option("--file", metavar="NAME", help="Another file of the run than the one that it ships.")
@click.option("--runtime", type=click.Choice(["onnxruntime", "litert", "tflite-runtime"]), help="What runs the file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one CSV table, nothing else.")
@click.option("--labels", is_flag=True, help="INPUT is a folder with one folder per class: say how many are right.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Where to write masks as PNG, for networks that give some.",
)  # fmt: skip
@_debug_option
def predict(
    *,
    model: str,
    inputs: tuple[str, ...],
    file: str | None,
    runtime: str | None,
    as_json: bool,
    as_csv: bool,
    labels: bool,
    out: Path | None,
) -> None:
    """Say what a network answers for each INPUT.

    An INPUT is a picture, a CSV table, an .npy or .npz array, a folder of those, or - for one file on standard input.
    RUN|FILE is a run folder or the name of one under runs/ (what it ships for its first target is used), or any .onnx
    or .tflite file that karui exported.
    """
    from pipeline.predict import answers_text, model_for, predicted, scored, scores_text, write_masks

    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other")
    style: Style = "json" if as_json else "csv" if as_csv else "text"
    asked = model_for(model, file=file, runtime=runtime)
    if labels:
        if len(inputs) > 1 or out is not None:
            raise ConfigError("--labels takes one folder, and no --out")
        click.echo(_safe(scores_text(scored(asked, Path(inputs[0])), style), style))
        return
    answered = list(predicted(asked, inputs))
    if out is not None:
        write_masks(answered, out)
    click.echo(_safe(answers_text(answered, style), style))


@karui.command(short_help="Show the layers of a network or model file and what they cost.")
@click.argument("subject", metavar="NAME|FILE", shell_complete=_complete("recipe"))
@click.option(
    "--input", "shape", metavar="C,H,W", callback=_is_shape,
    help="Shape of one input.  [default: the recipe's; 3,224,224 for networks of packages, else 3,32,32]",
)  # fmt: skip
@click.option(
    "--classes", type=click.IntRange(1), metavar="N", help="Number of outputs.  [default: the recipe's, or 10]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a chart of the costs, too."
)
@_debug_option
def inspect(
    *, subject: str, shape: tuple[int, ...] | None, classes: int | None, as_json: bool, svg: Path | None
) -> None:
    """Show each layer's output, parameters, multiply-accumulates and memory, and whether it runs on integers.

    NAME|FILE is a recipe, a network file or name (resnet, timm:resnet18, torchvision:resnet50, mypackage.nets:build),
    or an .onnx or .tflite file. No data is read and nothing is trained.
    """
    from pipeline.console import result_console, results_alone
    from pipeline.inspecting.subject import Asked
    from pipeline.inspecting.subject import inspect as inspect_subject
    from pipeline.report.inspection import inspected_json, inspected_svg, print_inspected

    with results_alone():
        found = inspect_subject(Asked(subject=subject, shape=shape, classes=classes))
    if svg is not None:
        from pipeline.runs.store import write_atomic

        write_atomic(svg, inspected_svg(found).encode())
    if as_json:
        _print_json(inspected_json(found))
    else:
        print_inspected(found, result_console())


@karui.command(short_help="Print verdicts, sizes, stages and layers of a run.")
@click.argument("run", shell_complete=_complete_run)
@_debug_option
def show(*, run: str) -> None:
    """Print verdicts, sizes, stages and layers of RUN (a run folder, or the name of one under runs/)."""
    from pipeline.console import result_console
    from pipeline.report.table import print_show
    from pipeline.runs.finished import find_run, load_outcome

    print_show(load_outcome(find_run(run)), result_console())


@karui.command(short_help="Free the space of results that no run uses any more.")
@click.option("--all", "everything", is_flag=True, help="Also forget what runs use: they would start from nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_debug_option
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


def _status_of(state: State, *, allow_open: bool) -> int:
    if state == "missed":
        return EXIT_LIMIT_MISSED
    return 0 if state == "met" or allow_open else EXIT_LIMIT_OPEN


def _safe(text: str, style: Style) -> str:
    """Return what neither acts on a terminal nor means something else to a program."""
    return shown_json(text) if style == "json" else shown_text(text) if style == "text" else text


def _print_json(text: str) -> None:
    # a terminal or pipe that knows ASCII alone gets \u00fc instead of a question mark
    click.echo(shown_json(text) if is_utf8(sys.stdout) else json.dumps(json.loads(text), indent=2))


def _ended(request: RunRequest, outcome: Outcome, *, as_json: bool, allow_open: bool) -> int:
    """Print what came of a run, and return the exit status."""
    from pipeline.runs.finished import RUNS

    folder = request.out or RUNS / outcome.run
    if as_json:
        from pipeline.report.document import document

        _print_json(document(outcome, folder).to_json())
    else:
        from pipeline.console import result_console
        from pipeline.report.table import print_outcome
        from pipeline.runs.run import repeatable

        print_outcome(outcome, folder, result_console(), command=repeatable(request.command))
    return _status_of(outcome.state, allow_open=allow_open)


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
