"""The command line as a user meets it: help, exit status, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree as ET

import click
import pytest

from pipeline import catalog, cli, flow
from pipeline.artifacts.files import Variant, Way
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkRef, Threads
from pipeline.artifacts.outcome import Check, Judged, Outcome, State, Verdict
from pipeline.artifacts.training import Checkpoint
from pipeline.commands import shared
from pipeline.declare.card import DatasetCard, InputSpec
from pipeline.errors import DataError, KaruiError, RunBusyError, TrainingDivergedError
from pipeline.flow import RunRequest, StageName
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.progress import Progress, Silent
from pipeline.runs.finished import REPORT_FILE, write_outcome
from pipeline.runs.run import open_run
from pipeline.tasks import named

SIGNATURE = Signature(
    inputs=(TensorSpec("input", "float32", (4,), "F"),), outputs=(TensorSpec("output", "float32", (3,), "K"),)
)
NETWORK = NetworkRef(sha256="b" * 64, options={}, signature=SIGNATURE, path=Path("net.py"))
CARD = DatasetCard(name="dots", title="Dots", kind="npz", input=InputSpec(shape=(4,)))
METRIC = named("classification").METRIC
ONNX = Variant(format="onnx", precision="fp32")
DIGITS_DATA = catalog.load_recipe("digits")[0].data
# start-up on a busy machine: --help may take this much longer than a Python that does nothing (measured: 0.05 s)
HELP_ALLOWANCE_S = 0.2


def _outcome(*targets: Judged) -> Outcome:
    return Outcome(
        run="dots",
        recipe="dots",
        summary="Dots",
        task="classification",
        metric=METRIC,
        data=DataRef(card=CARD, digest="a" * 64, folder=Path("/data")),
        facts=DataFacts(signature=SIGNATURE, classes=("a", "b", "c"), samples={"train": 1}, frontend={}),
        network=NETWORK,
        threads=Threads(count=1),
        trained=Checkpoint(network=NETWORK, weights="c" * 64, metric=METRIC, val_metric=0.975),
        finetuned=None,
        pruned=None,
        quantized={},
        exports=(),
        predicted=(),
        observed=(),
        targets=targets,
        notes=(),
        versions={},
    )


SIZES: Mapping[State, tuple[float | None, ...]] = {
    "met": (500, 500, 500),
    "missed": (2000, 2000, 2000),
    "uncertain": (900, 800, 1100),
    "open": (None, None, None),
}


def _target(state: State = "met") -> Judged:
    got, low, high = SIZES[state]
    check = Check(
        quantity="file size", variant=ONNX, bound="at most", limit=1000, unit="bytes", got=got, low=low, high=high
    )
    ship = Way(variant=ONNX, program="onnxruntime")
    return Judged(
        target="board",
        title="A board",
        weight_bits=8,
        threads=1,
        candidates=(),
        compared=None,
        measurements=(),
        verdict=Verdict(target="board", checks=(check,), ship=ship, why="int8 is off"),
    )


class Flow:
    """Stands in for minutes of training: returns or raises what it was given, and talks like a stage."""

    def __init__(self, result: Outcome | BaseException) -> None:
        self.result = result
        self.request: RunRequest | None = None

    def __call__(self, request: RunRequest, progress: Progress) -> Outcome:
        """Do as run_recipe does."""
        self.request = request
        progress.say("train  0.1 s")
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def runs_as(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Outcome | BaseException], Flow]:
    monkeypatch.chdir(tmp_path)

    def replace(result: Outcome | BaseException) -> Flow:
        stand_in = Flow(result)
        monkeypatch.setattr(flow, "run_recipe", stand_in)
        return stand_in

    return replace


# ── help ────────────────────────────────────────────────────────────────────────────────────────────────────────────

COMMANDS = {"": cli.karui, **cli.karui.commands}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_explains_itself(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
        else:
            assert parameter.human_readable_name.upper().split()[0].rstrip("S") in command.help.upper()
    assert "--debug" in [option for parameter in command.params for option in parameter.opts]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_works_everywhere(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    assert "Usage: karui" in capsys.readouterr().out


def _cpu_s(*command: str) -> float:
    """Least processor time of three tries: what others do on the machine only adds."""
    tries = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        tries.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(tries)


def test_help_is_quick() -> None:
    assert _cpu_s("-m", "pipeline.cli", "--help") - _cpu_s("-c", "pass") < HELP_ALLOWANCE_S


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pipeline.cli", "--help"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in log.splitlines()}
    assert "click" in loaded
    assert not loaded & {"torch", "numpy", "pydantic", "rich", "scipy", "onnx"}


def test_nothing_of_the_flow_loads_torch() -> None:
    code = "import sys, pipeline.flow, pipeline.console, pipeline.report.table; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("karui 0.")


def test_names_that_are_written_twice_agree() -> None:
    assert flow.STAGES == shared.STAGES == get_args(StageName)
    assert (RunRequest().recipe, RunRequest().targets) == (shared.DEFAULT_RECIPE, (shared.DEFAULT_TARGET,))
    catalog.load_recipe(shared.DEFAULT_RECIPE)
    catalog.load_target(shared.DEFAULT_TARGET)


# ── exit status ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("state", "status", "allowed"), [("met", 0, 0), ("missed", 3, 3), ("uncertain", 5, 0), ("open", 5, 0)]
)
def test_a_limit_that_is_not_met_is_a_result(
    state: State, status: int, allowed: int, runs_as: Callable[[Outcome], Flow], capsys: pytest.CaptureFixture[str]
) -> None:
    runs_as(_outcome(_target(), _target(state)))
    assert cli.main(["run", "dots", "--json"]) == status
    said = json.loads(capsys.readouterr().out)["targets"][1]
    assert (said["passed"], said["state"]) == (state == "met", state)
    assert cli.main(["run", "dots", "--json", "--allow-open"]) == allowed


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (DataError("was altered", where="dots.npz", remedy="get it again"), 4, ["dots.npz: was altered", "get it"]),
        (TrainingDivergedError("the loss is NaN", where="epoch 3"), 1, ["epoch 3: the loss is NaN"]),
        (RunBusyError("is in use", where="runs/dots"), 1, ["runs/dots: is in use"]),
        (KeyboardInterrupt(), 130, ["stopped", "the same command goes on where this one stopped"]),
        (
            ZeroDivisionError("by zero\nand more"),
            1,
            ["ZeroDivisionError: by zero", "this is a bug in karui", "--debug"],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("arguments", [["run"], ["run", "--debug"], ["--debug", "run"], ["run", "--json"]])
def test_errors_are_one_message_on_stderr(
    *,
    arguments: list[str],
    error: BaseException,
    status: int,
    said: list[str],
    runs_as: Callable[[BaseException], Flow],
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs_as(error)
    assert cli.main(arguments) == status
    out, err = capsys.readouterr()
    if "--json" in arguments:
        assert json.loads(out)["error"]["exit_status"] == status
    else:
        assert out == ""
    assert "error: " in err
    assert all(words in err for words in said)
    assert ("Traceback (most recent call last)" in err) == ("--debug" in arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runn"], "did you mean 'run'?"),
        (["run", "--targt", "x"], "--target"),
        (["run", "--set", "epochs"], "'epochs' is not KEY=VALUE"),
        (["run", "--set", "=5"], "'=5' is not KEY=VALUE"),
        (["run", "--until", "tran"], "'tran' is not one of 'train'"),
        (["run", "--device", "tpu"], "'tpu' is not one of"),
        (["run", "--threads", "0"], "0 is not in the range"),
        (["list", "things"], "'things' is not one of 'recipes', 'targets', 'data'"),
        (["compare"], "Missing argument"),
        (["run", "digitz"], "did you mean 'digits'?"),
        (["run", "digits", "--target", "raspberry-pi-6"], "did you mean 'raspberry-pi-"),
        (["run", "digits", "--set", "train.epoch=5"], "epochs"),
        (["show", "nothing"], "there is no run 'nothing'"),
    ],
)
def test_wrong_use_is_2_and_names_what_is_right(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []  # no half-made run folder either


def test_a_reader_that_leaves_gets_no_noise() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "list", "targets"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


# ── run ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_line_becomes_one_request(runs_as: Callable[[Outcome], Flow]) -> None:
    stand_in = runs_as(_outcome())
    arguments = ["run", "dots", "--target", "a", "--target", "b.toml", "--set", "seed=1", "--set", "train.epochs=2"]
    arguments += ["--until", "export", "--out", "there", "--fresh", "--device", "cpu", "--threads", "3"]
    arguments += ["--tensorboard", "--quiet", "--json"]
    assert cli.main(arguments) == 0
    assert stand_in.request == RunRequest(
        recipe="dots",
        targets=("a", "b.toml"),
        overrides=("seed=1", "train.epochs=2"),
        until="export",
        out=Path("there"),
        fresh=True,
        device="cpu",
        threads=3,
        tensorboard=True,
        command=("karui", *arguments),
    )
    assert cli.main(["run", "--quiet"]) == 0
    assert stand_in.request == RunRequest(command=("karui", "run", "--quiet"))


def test_json_is_alone_on_stdout(runs_as: Callable[[Outcome], Flow], capsys: pytest.CaptureFixture[str]) -> None:
    runs_as(_outcome(_target()))
    cli.main(["run", "--json"])
    out, err = capsys.readouterr()
    keys = {"run", "recipe", "task", "metric", "targets", "artifacts", "baselines", "comparison", "places", "hints"}
    assert json.loads(out).keys() == keys
    assert err == "train  0.1 s\n"
    cli.main(["run", "--json", "--quiet"])
    assert capsys.readouterr() == (out, "")


def test_a_run_that_stops_early_says_how_to_go_on(
    runs_as: Callable[[Outcome], Flow], capsys: pytest.CaptureFixture[str]
) -> None:
    runs_as(_outcome())
    assert cli.main(["run", "--until", "train"]) == 0
    assert capsys.readouterr().out.startswith("Stopped after train; the same command without --until goes on")


# ── runs that exist, and what there is to choose from ───────────────────────────────────────────────────────────────


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make a run folder as the pipeline leaves it; the working folder is its grandparent."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / "dots"
    with open_run(folder, progress=Silent()):
        write_outcome(folder, _outcome())
    return folder


@pytest.mark.parametrize("name", ["dots", "runs/dots"])
def test_runs_go_by_name_or_folder(name: str, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", name]) == 0
    assert "dots" in capsys.readouterr().out
    assert cli.main(["compare", name, name]) == 0
    assert "97.5" in capsys.readouterr().out


def test_the_nearest_run_is_suggested(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "dots", "dotz"]) == 2
    assert "there is no run 'dotz'; did you mean 'dots'?" in capsys.readouterr().err


def test_the_report_is_named_and_opened(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    assert cli.main(["report", "dots"]) == 2
    assert "karui run dots --out runs/dots" in capsys.readouterr().err
    (finished / REPORT_FILE).write_text("<p>report</p>")
    assert cli.main(["report", "dots"]) == 0
    assert capsys.readouterr().out == f"{finished / REPORT_FILE}\n"
    assert opened == []
    assert cli.main(["report", "dots", "--open"]) == 0
    assert opened == [(finished / REPORT_FILE).resolve().as_uri()]


@pytest.mark.parametrize(
    ("what", "known"), [("recipes", "digits"), ("targets", "raspberry-pi-4b"), ("data", DIGITS_DATA)]
)
def test_lists_name_and_explain(what: str, known: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", what]) == 0
    entries = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert known in entries
    assert all(title and "(broken)" not in title for title in entries.values())


def test_a_broken_entry_is_listed_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.toml").write_text("name = 3")
    assert cli.main(["list", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("mine ") and "(broken)" in line for line in lines)
    assert any(line.startswith("digits ") for line in lines)


def test_every_error_class_has_an_exit_status_of_the_contract() -> None:
    classes: list[type[KaruiError]] = [KaruiError]
    for known in classes:
        classes += known.__subclasses__()
        assert known.exit_code in (1, 2, 4)


def test_what_is_printed_while_the_process_ends_is_no_result(tmp_path: Path) -> None:
    code = """
import atexit, os, sys
from pipeline.cli import main
atexit.register(lambda: (print("bye", flush=True), os.write(1, b"raw bye")))
sys.argv = ["karui", "compare", "nowhere", "--json"]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["error"]["exit_status"] == done.returncode == 2
    assert done.stderr.endswith("bye\nraw bye")


# ── inspect ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inspect_prints_layers_and_writes_a_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chart = tmp_path / "costs.svg"
    assert cli.main(["inspect", "mlp", "--input", "16", "--classes", "3", "--svg", str(chart)]) == 0
    assert "would run on 8-bit integers" in capsys.readouterr().out
    assert chart.read_text().startswith("<svg ")
    assert cli.main(["inspect", "mlp", "--input", "16", "--classes", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layers"][-1]["output_shape"] == [3]


def test_inspect_estimates_times_on_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chart = tmp_path / "costs.svg"
    mlp = [
        "inspect",
        "mlp",
        "--input",
        "16",
        "--classes",
        "3",
        "--target",
        "raspberry-pi-4",
        "--target",
        "raspberry-pi-zero-2-w",
    ]
    assert cli.main([*mlp, "--svg", str(chart)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"raspberry-pi-4b, int8 in (litert|onnxruntime): [0-9.]+ ms \([0-9.]+–[0-9.]+, estimated from about", text
    )
    assert "raspberry-pi-zero-2-w, fp32 in" in text
    assert "nobody published times of a cortex-a53 that an estimate could rest on" in text
    assert "ms, int8" in "".join(ET.fromstring(chart.read_text()).itertext())  # noqa: S314  (made here)
    assert cli.main([*mlp, "--json"]) == 0
    known, unknown = json.loads(capsys.readouterr().out)["targets"]
    for each in known["timed"]:
        assert each["latency_ms"]["value"] == pytest.approx(sum(each["layers_ms"]) + each["rest_ms"])
    assert all(each["latency_ms"] is None and each["instructions"] > 0 for each in unknown["timed"])


def test_inspect_says_where_nothing_can_be_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "mlp", "--input", "16", "--classes", "3", "--target", "x86-laptop-avx2"]) == 0
    assert "x86-laptop-avx2: no estimate: no kernels were counted on a Haswell" in capsys.readouterr().out


def test_inspect_refuses_what_is_no_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "cnn", "--input", "3,-1,8"]) == 2
    assert "'3,-1,8' is no shape, for example 3,64,64" in capsys.readouterr().err
