"""What goes wrong on the way: damaged folders, full disks, signals; nothing is lost, and the same command goes on."""

from __future__ import annotations

import hashlib
import signal
import time
from pathlib import Path

import pytest

from tests import forked
from tests.own_project import Karui, in_a_process
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

STOPS_WITHIN_S = 5.0  # asked: 1 s; here other tests run beside it


def test_a_loss_that_is_no_number(karui: Karui) -> None:
    karui.recipe()
    said = karui("run", "mine.toml", "--set", "train.learning_rate=1e30", "--set", "train.optimizer=sgd")
    said.refused(1, "the loss is no longer a finite number in epoch 1 of 'train' at learning rate", "try a smaller")


def test_a_damaged_run_folder(karui: Karui) -> None:
    karui.recipe()
    assert karui("run", "mine.toml", "--until", "train").status == 0
    for content in ("{", '{"a": 1}', "\0"):
        Path("runs/mine/outcome.json").write_text(content)
        for command in ("show", "compare", "report"):
            karui(command, "mine").refused(
                2, "runs/mine/outcome.json: cannot be read", "make it anew: karui run mine.to"
            )
    Path("runs/mine/outcome.json").unlink()
    karui("show", "mine").refused(2, "this run has not finished", "finish it: karui run mine.toml")
    Path("runs/mine/run.json").write_text("{")
    karui("show", "mine").refused(2, "runs/mine/run.json: cannot be read")
    for record in Path("runs/.cache/steps").iterdir():
        record.write_text("{")
    said = karui("run", "mine.toml", "--until", "train")
    assert said.status == 0
    assert "train  runs again: its record" in said.err


def test_a_file_where_the_run_folder_should_be(karui: Karui) -> None:
    karui.recipe()
    karui.write("runs", "in the way")
    karui("run", "mine.toml").refused(1, "runs/mine: cannot be written or read", "move it away")


def test_a_full_disk_then_the_same_command(karui: Karui) -> None:
    # weights, outputs, model files and most records of steps have less than 27 KiB; the record of all observations, and
    # what it stores, have more
    karui.recipe(options='hidden = "8"')
    command = ("run", "mine.toml", "--set", "quantize.method=none")
    full = in_a_process(*command, cwd=karui.folder, limit_kib=27)
    assert full.returncode == 1
    assert "cannot be written or read: file too large" in full.stderr
    assert "ulimit -f" in full.stderr
    assert "Traceback" not in full.stderr
    for stored in Path("runs/.cache/store").iterdir():
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == stored.name
    said = karui(*command)
    assert said.status == 0, said.err
    recalled = [line.split()[0] for line in said.err.splitlines() if "recalled" in line]
    assert recalled == ["data", "check", "train", "prune", "quantize", "export", "predict"]  # what was whole stays
    assert not [path.name for path in Path("runs").rglob("*.tmp")]


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "stopped"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped by SIGHUP"),
    ],
)
def test_a_signal_is_a_message_and_no_loss(number: signal.Signals, status: int, said: str, karui: Karui) -> None:
    karui.recipe()
    command = ("run", "mine.toml", "--until", "train", "--set", "train.epochs=4000")
    out, err = Path("out"), Path("err")
    with (
        out.open("wb") as results,
        err.open("wb") as words,
        forked.started(*command, cwd=karui.folder, out=results, err=words) as process,
    ):
        journal = Path("runs/mine/journal.jsonl")
        for _ in range(3000):
            if journal.is_file() and '"started", "step": "train"' in journal.read_text():
                break
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(number)
        sent = time.monotonic()
        assert process.wait() == status
        assert time.monotonic() - sent < STOPS_WITHIN_S
    assert out.read_text() == ""
    assert f"error: {said}\n  the same command goes on where this one stopped" in err.read_text()
    assert "Traceback" not in err.read_text()
    assert "recalled" in karui("run", "mine.toml", "--until", "train").err.splitlines()[0]
