"""The whole pipeline through its command line, in real processes: run, recall, change, kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.report.rows import run_rows
from pipeline.runs.finished import load_outcome
from pipeline.runs.measurements import write_measurements
from tests import forked
from tests.forked import run as karui
from tests.own_project import in_a_process, processor_s
from tests.runs.test_measurements import benched, measurements

# asked: 3 s on an idle machine; this is processor time, beside other tests that share the cores and their caches
RECALL_LIMIT_S = 4.5
STEP_NAMES = (
    "train",
    "finetune",
    "prune",
    "quantize",
    "export",
    "export-int8",
    "export-unpruned",
    "predict",
    "predict-int8",
    "predict-unpruned",
    "observe",
    "model-raspberry-pi-4b",
    "judge-raspberry-pi-4b",
    "report",
)
KILL_AFTER_S = {"train": 0.3, "finetune": 1.0, "prune": 0.8, "quantize": 0.3}
QUICK = {"model-raspberry-pi-4b", "judge-raspberry-pi-4b"}  # milliseconds: over before anybody can kill it


def notes(stderr: str) -> dict[str, str]:
    """Return step → its line."""
    return {line.split()[0]: line for line in stderr.splitlines() if line.split() and line.split()[0] in STEP_NAMES}


def digests(folder: Path) -> dict[str, str]:
    """Return artifact → sha256 of a finished run."""
    return {file.variant.key: file.file for file in load_outcome(folder).files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the tiny recipe once, undisturbed; return its folder."""
    from tests.conftest import PRINTED, TINY  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("flow")
    (folder / "tiny-printed.toml").write_text(PRINTED)
    (folder / "tiny.toml").write_text(TINY)
    done = karui("run", "tiny.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "first.json").write_text(done.stdout)
    return folder


def test_first_run_prints_one_document_and_leaves_readable_files(finished: Path) -> None:
    document = json.loads((finished / "first.json").read_text())
    assert document["recipe"] == "tiny"
    assert set(document["artifacts"]) == {"onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"}
    for artifact in document["artifacts"].values():
        path = finished / artifact["path"]
        assert path.stat().st_size == artifact["size_bytes"]
    [target] = document["targets"]
    assert target["passed"] is True
    assert target["ship"]["artifact"] in document["artifacts"]
    assert {"report.html", "report.json", "run.json"} <= {path.name for path in (finished / "runs/tiny").iterdir()}
    assert not list((finished / "runs/.cache/work").glob("*"))


def test_the_network_before_pruning_is_measured_beside_what_could_ship(finished: Path) -> None:
    outcome = load_outcome(finished / "runs/tiny")
    rows = run_rows(outcome, outcome.targets[0])
    after = next(row for row in rows if row.way == outcome.targets[0].candidates[0])
    before = next(row for row in rows if row.way.variant.unpruned and row.way.program == after.way.program)
    assert before.size_bytes is not None
    assert after.size_bytes is not None
    assert before.size_bytes > after.size_bytes
    assert before.p50 is not None
    [target] = json.loads((finished / "first.json").read_text())["targets"]
    known = {each["what"] for each in target["measurements"] if each["artifact"] == "onnx-fp32-unpruned"}
    assert {"accuracy", "file_size", "latency_p50"} <= known
    assert not list((finished / "runs/tiny").glob("*unpruned*"))  # what never ships is not handed over
    shown = karui("compare", "runs/tiny", cwd=finished).stdout
    assert "size ONNX float before pruning" in shown
    assert "p50 ONNX float before pruning" in shown


def test_without_pruning_nothing_is_made_for_it(finished: Path) -> None:
    plain = karui("run", "tiny.toml", "--set", "prune.amount=0", "--until", "export", "--out", "plain", cwd=finished)
    assert plain.returncode == 0, plain.stderr
    assert "export" in notes(plain.stderr)
    assert "export-unpruned" not in notes(plain.stderr)
    assert load_outcome(finished / "plain").unpruned is None


def test_what_the_target_itself_took_stands_in_its_verdict(finished: Path) -> None:
    files = digests(finished / "runs/tiny")
    brought = finished / "measurements.json"
    times = {"onnx-fp32": 3.0, "onnx-int8": 2.0, "tflite-fp32": 5.0, "tflite-int8": 4.0}
    ways = {name: "onnxruntime" if name.startswith("onnx") else "litert" for name in times}
    of_files = (benched(files[name], p50_ms=ms, runtime=ways[name]) for name, ms in times.items())
    write_measurements(brought, measurements(*of_files))
    command = ("run", "tiny.toml", "--json", "--out", "runs/brought")
    done = karui(*command, "--measurements", str(brought), cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "bring-raspberry-pi-4b" in done.stderr
    [target] = json.loads(done.stdout)["targets"]
    assert target["ship"]["artifact"] == "onnx-int8"
    latencies = {(each["artifact"], each["how"]): each["value"] for each in target["measurements"]
                 if each["what"] == "latency_p50" and each["where"].startswith("Raspberry Pi 4")}  # fmt: skip
    assert latencies == {(name, "measured"): ms for name, ms in times.items()}
    again = karui(*command, "--measurements", str(brought), cwd=finished)
    assert "bring-raspberry-pi-4b  recalled" in " ".join(again.stderr.split()) or "recalled" in again.stderr

    write_measurements(brought, measurements(benched("b" * 64)))
    refused = karui(*command, "--measurements", str(brought), cwd=finished)
    assert refused.returncode == 2
    assert "no file of this run: net.int8.onnx (bbbbbbbbbbbb)" in refused.stderr
    write_measurements(brought, measurements(benched(files["onnx-int8"]), profile="raspberry-pi-5"))
    refused = karui(*command, "--measurements", str(brought), "--fresh", cwd=finished)
    assert refused.returncode == 2  # before anything is trained
    assert "is the target raspberry-pi-5, and not raspberry-pi-4b" in refused.stderr
    assert not notes(refused.stderr)


def test_latencies_of_a_target_that_is_not_here_are_estimates_with_a_range(finished: Path) -> None:
    [target] = json.loads((finished / "first.json").read_text())["targets"]
    latencies = [m for m in target["measurements"] if m["what"].startswith("latency") and "a72" in m["where"]]
    assert {m["runtime"].split()[0] for m in latencies} == {"onnxruntime", "litert"}  # whose kernels are known
    assert all(m["how"] == "estimated" and 0 < m["low"] < m["value"] < m["high"] for m in latencies)


def test_second_run_recalls_everything_without_torch(finished: Path) -> None:
    before = digests(finished / "runs/tiny")
    before_s = processor_s()
    again = in_a_process("run", "tiny.toml", cwd=finished)
    assert processor_s() - before_s < RECALL_LIMIT_S
    assert again.returncode == 0
    assert all("recalled" in line for line in notes(again.stderr).values())
    assert set(notes(again.stderr)) == set(STEP_NAMES)
    assert digests(finished / "runs/tiny") == before
    probe = (
        "import sys; from pipeline.cli import main; main(['run', 'tiny.toml', '--quiet']);"
        "print({'torch', 'scipy.stats'} & set(sys.modules), file=sys.stderr)"  # what takes seconds to import
    )
    code = subprocess.run([sys.executable, "-c", probe], cwd=finished, capture_output=True, text=True, check=True)
    assert code.stderr.splitlines()[-1] == "set()"


def test_changing_pruning_runs_pruning_and_what_follows(finished: Path) -> None:
    changed = karui("run", "tiny.toml", "--set", "prune.amount=0.3", cwd=finished)
    assert changed.returncode == 0, changed.stderr
    lines = notes(changed.stderr)
    kept = ("train", "finetune", "export-unpruned", "predict-unpruned")
    assert all("recalled" in lines[step] for step in kept)
    assert not any("recalled" in lines[step] for step in STEP_NAMES if step not in kept)
    back = karui("run", "tiny.toml", cwd=finished)  # the first result is still known
    assert all("recalled" in line for line in notes(back.stderr).values())


def test_another_run_of_the_same_recipe_shares_every_step(finished: Path) -> None:
    other = karui("run", "tiny.toml", "--out", "elsewhere", cwd=finished)
    assert other.returncode == 0, other.stderr
    lines = notes(other.stderr)
    assert all("recalled" in lines[step] for step in STEP_NAMES[:-1])  # the page names its folder
    assert digests(finished / "elsewhere") == digests(finished / "runs/tiny")


def test_more_targets_run_no_file_again(finished: Path) -> None:
    targets = ("raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-3b-plus")
    more = karui("run", "tiny.toml", *(word for name in targets for word in ("--target", name)), cwd=finished)
    assert more.returncode == 0, more.stderr
    made = {line.split()[0] for line in more.stderr.splitlines() if line.strip() and "recalled" not in line}
    assert {"model-raspberry-pi-5", "judge-raspberry-pi-5", "judge-raspberry-pi-3b-plus"} <= made
    assert "model-raspberry-pi-3b-plus" not in made  # nobody published times of its processor
    assert made & set(STEP_NAMES) == {"report"}
    for observed in load_outcome(finished / "runs/tiny").observed:
        ways = [each.way for each in observed.answers]
        assert len(ways) == len(set(ways))
        quantities = [(each.quantity, each.way, each.threads) for each in observed.measurements]
        assert len(quantities) == len(set(quantities))  # one latency has one value


def test_hints_of_data_and_network_are_told_when_found_and_kept(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef build(input_shape, classes):\n"
        "    return nn.Sequential(nn.Linear(2, classes), nn.Softmax(dim=1))\n"
    )
    rows = ["near,far,kind", *(f"{0.001 * (i % 7)},{100 * (i % 5)},{i % 2}" for i in range(40))]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "card.toml").write_text(
        'name = "rows"\ntitle = "Rows"\nkind = "csv"\nlabel_column = "kind"\n[files.all]\npath = "rows.csv"\n'
        "[input]\nmean = [0.5, 0.5]\nstd = [2.0, 2.0]\n"
    )
    recipe = 'name = "mine"\ndata = "card.toml"\nthreads = 1\n[network]\nfile = "net.py"\n[train]\nepochs = 1\n'
    (tmp_path / "mine.toml").write_text(recipe)
    command = ("run", "mine.toml", "--until", "train")
    first = karui(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "check: the network ends in a softmax" in first.stderr
    assert "data: 'far' spreads" in first.stderr
    kept = load_outcome(tmp_path / "runs/mine").hints
    assert [hint.split()[0] for hint in kept] == ["the", "fewer", "'far'"]
    assert karui(*command, cwd=tmp_path).returncode == 0
    assert load_outcome(tmp_path / "runs/mine").hints == kept
    assert "fewer than 10 test samples" in karui("show", "runs/mine", cwd=tmp_path).stdout


def test_a_helper_of_the_network_retrains_and_its_docstring_does_not(tmp_path: Path) -> None:
    helper = "from torch import nn\n\ndef head(width, classes):\n    return nn.Linear(width, classes)\n"
    (tmp_path / "parts.py").write_text(helper)
    (tmp_path / "net.py").write_text(
        "from torch import nn\nfrom parts import head\n\ndef build(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), head(8, classes))\n"
    )
    recipe = 'name = "mine"\ndata = "digits"\nthreads = 1\n[network]\nfile = "net.py"\n[train]\nepochs = 1\n'
    (tmp_path / "mine.toml").write_text(recipe)
    command = ("run", "mine.toml", "--until", "train")
    assert karui(*command, cwd=tmp_path).returncode == 0
    (tmp_path / "parts.py").write_text('"""Parts."""\n\n' + helper + "# the end\n")
    assert "recalled" in notes(karui(*command, cwd=tmp_path).stderr)["train"]
    (tmp_path / "parts.py").write_text(helper.replace("nn.Linear(width", "nn.Linear(1 * width"))
    assert "recalled" not in notes(karui(*command, cwd=tmp_path).stderr)["train"]


def test_threads_are_in_the_key_and_the_environment_is_not(finished: Path) -> None:
    def trained(*options: str, env: dict[str, str] | None = None) -> str:
        command = ("run", "tiny-printed.toml", "--until", "train", "--out", "threads", *options)
        done = karui(*command, cwd=finished) if env is None else in_a_process(*command, cwd=finished, env=env)
        assert done.returncode == 0, done.stderr
        return notes(done.stderr)["train"]

    assert os.environ["OMP_NUM_THREADS"] == "1"
    trained("--threads", "1")
    assert "recalled" in trained("--threads", "1", env={"OMP_NUM_THREADS": "2"})
    before = load_outcome(finished / "threads").trained
    assert "recalled" not in trained("--threads", "1", "--fresh", env={"OMP_NUM_THREADS": "2"})
    again = load_outcome(finished / "threads").trained
    assert before is not None
    assert again is not None
    assert again.weights == before.weights  # what the environment says changes nothing
    assert "recalled" not in trained("--threads", "2", env={})


def test_kill_in_every_stage_then_the_same_command_gives_the_same_files(finished: Path, tiny: Path) -> None:
    for step in STEP_NAMES:
        kill_in(step, tiny)
    done = karui("run", "tiny.toml", cwd=tiny.parent)
    assert done.returncode == 0, done.stderr
    assert digests(tiny.parent / "runs/tiny") == digests(finished / "runs/tiny")


def kill_in(step: str, recipe: Path) -> None:
    """Start the run and kill it in the middle of a step; on a machine that was faster than that, try again at once."""
    run, steps = recipe.parent / "runs/tiny", recipe.parent / "runs/.cache/steps"
    for delay_s in (KILL_AFTER_S.get(step, 0.05), 0.0):
        with forked.started("run", recipe.name, cwd=recipe.parent) as process:
            wait_for_step(run / "journal.jsonl", step, process)
            time.sleep(delay_s)
        finished = [
            record
            for name in STEP_NAMES[STEP_NAMES.index(step) :]
            for record in steps.glob(f"{name}-{'[0-9a-f]' * 16}.json")
        ]
        if not finished:
            return
        for record in finished:
            record.unlink()
    if step not in QUICK:
        pytest.fail(f"{step} was over before it could be killed")


def wait_for_step(journal: Path, step: str, process: forked.Process) -> None:
    """Wait until this process has begun the step."""
    for _ in range(6000):
        if journal.exists():
            events = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
            mine = [event for event in events if event["pid"] == process.pid]
            if any(event["event"] == "started" and event.get("step") == step for event in mine):
                return
        assert process.poll() is None, f"ended before {step}"
        time.sleep(0.01)
    pytest.fail(f"{step} did not begin")


def test_missed_limit_is_a_result_with_its_own_status(finished: Path) -> None:
    missed = karui("run", "tiny.toml", "--set", "limits.accuracy_min=0.999999", "--json", cwd=finished)
    assert missed.returncode == 3
    [target] = json.loads(missed.stdout)["targets"]
    assert target["passed"] is False
    assert any(check["passed"] is False for check in target["checks"])


def test_until_stops_there(finished: Path) -> None:
    stopped = karui("run", "tiny.toml", "--until", "prune", "--out", "other", cwd=finished)
    assert stopped.returncode == 0, stopped.stderr
    assert set(notes(stopped.stderr)) == {"train", "finetune", "prune"}
    assert not list((finished / "other").glob("*.onnx"))


def test_two_weight_widths_make_two_int8_sets(finished: Path) -> None:
    both = karui(
        "run", "tiny.toml", "--target", "raspberry-pi-4", "--target", "x86-laptop-avx2", "--json", cwd=finished
    )
    document = json.loads(both.stdout)
    assert both.returncode == (0 if all(target["passed"] for target in document["targets"]) else 3), both.stderr
    assert {"onnx-int8", "onnx-int8-w7", "tflite-int8", "tflite-int8-w7"} <= set(document["artifacts"])
    assert [target["name"] for target in document["targets"]] == ["raspberry-pi-4b", "x86-laptop-avx2"]


def test_second_process_in_the_same_folder_says_so(finished: Path) -> None:
    with forked.started("run", "tiny.toml", "--fresh", "--out", "busy", cwd=finished) as first:
        wait_for_step(finished / "busy/journal.jsonl", "train", first)
        second = karui("run", "tiny.toml", "--out", "busy", cwd=finished)
        assert second.returncode == 1
        assert f"pid {first.pid}" in second.stderr
