"""Bars on a terminal, few plain lines elsewhere, silence when asked; nothing on stdout."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

from pipeline.console import Bars, Lines, result_console, shown_progress
from pipeline.progress import Progress, Silent, numbers_text


class Clock:
    """Time that passes when told."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def _job(progress: Progress, clock: Clock, *, steps: int, step_s: float) -> None:
    progress.start("train", steps)
    for step in range(1, steps + 1):
        clock.now_s += step_s
        progress.advance(loss=1 / step, val_accuracy=0.9781)


@pytest.mark.parametrize(
    ("steps", "step_s", "shown"),
    [
        (8, 0.1, []),  # too short to talk about
        (8, 1.5, ["2/8", "4/8", "6/8", "8/8"]),
        (100, 0.1, ["25/100", "50/100", "75/100", "100/100"]),
        (8, 16.0, ["1/8", "2/8", "3/8", "4/8", "5/8", "6/8", "7/8", "8/8"]),  # slow: alive every 15 s
    ],
)
def test_plain_lines_are_few_and_never_long_apart(steps: int, step_s: float, shown: list[str]) -> None:
    stream, clock = io.StringIO(), Clock()
    _job(Lines(stream, clock), clock, steps=steps, step_s=step_s)
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == shown
    assert all(
        re.fullmatch(r"train  \d+/\d+  loss [0-9.]+  val accuracy 0\.9781(  0:\d\d:\d\d left)?", line) for line in lines
    )
    assert ["left" in line for line in lines] == [not line.startswith(f"train  {steps}/{steps}") for line in lines]


def test_plain_lines_say_epoch_metric_and_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("train", 100)
    lines.advance(20)  # known from before: no measure of speed
    for epoch in range(3, 6):
        clock.now_s += 16
        lines.advance(10, loss=0.5)
        lines.advance(0, epoch=epoch, epochs=10, loss=0.25, **{"val accuracy": 0.9})
    assert stream.getvalue().splitlines() == [
        "train  30/100  loss 0.5  0:01:52 left",
        "train  40/100  epoch 3/10  loss 0.5  val accuracy 0.9  0:01:36 left",
        "train  50/100  epoch 4/10  loss 0.5  val accuracy 0.9  0:01:20 left",
    ]


def test_a_job_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.console._ALIVE_AFTER_S", 0.05)
    stream = io.StringIO()
    lines = Lines(stream)
    for title in ("data", "check"):  # the first is over at once
        lines.start(title, 3)
    time.sleep(0.3)
    assert stream.getvalue() == "check …\n"
    lines.start("train", 3)
    lines.say("a line")
    lines.start("prune", 3)
    lines.close()
    time.sleep(0.3)
    assert stream.getvalue() == "check …\na line\n"


def test_a_job_that_nobody_listens_to_ends_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.console._ALIVE_AFTER_S", 0.01)
    stream = io.StringIO()
    stream.close()
    Lines(stream).start("check", 3)
    time.sleep(0.2)
    assert capsys.readouterr() == ("", "")


def test_a_job_of_unknown_length_does_not_crash() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("read", 0)
    lines.advance(3)
    lines.advance()
    assert stream.getvalue() == ""


def test_bars_show_the_newest_numbers_and_leave_no_trace() -> None:
    stream = io.StringIO()
    bars = Bars(Console(file=stream, force_terminal=True, width=100, highlight=False))
    bars.advance()  # before any start: ignored
    _job(bars, Clock(), steps=4, step_s=0)
    assert "train" in stream.getvalue()
    assert "4/4" in stream.getvalue()
    assert "loss 0.25  val accuracy 0.9781" in stream.getvalue()
    bars.start("prune", 10)
    bars.say("[not markup]  a line that stays")
    bars.close()
    assert "[not markup]  a line that stays" in stream.getvalue()
    before = stream.getvalue()
    bars.close()
    assert stream.getvalue() == before  # closed once is closed


def test_numbers() -> None:
    assert numbers_text({"loss": 0.123456, "learning_rate": 1e-5}) == "loss 0.1235  learning rate 1e-05"
    assert numbers_text({"loss": 0.5, "epoch": 3, "epochs": 30}) == "epoch 3/30  loss 0.5"
    assert numbers_text({}) == ""


def test_stderr_decides(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress(quiet=True) as progress:
        assert isinstance(progress, Silent)
    with shown_progress() as progress:
        assert isinstance(progress, Lines)
        progress.say("a line")
    assert capsys.readouterr() == ("", "a line\n")


def test_results_into_a_pipe_are_wide_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert result_console().width == 120
    monkeypatch.setenv("COLUMNS", "70")
    assert result_console().width == 70


def test_a_dumb_terminal_gets_lines() -> None:
    code = """
from pipeline.console import Lines, shown_progress
with shown_progress() as progress:
    assert isinstance(progress, Lines)
"""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb"}
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment, check=True)
    os.close(ours)
    os.close(theirs)


def test_bars_on_a_real_terminal() -> None:
    code = """
from pipeline.console import Bars, shown_progress
with shown_progress() as progress:
    assert isinstance(progress, Bars)
    progress.start("train", 5)
    progress.advance(loss=0.5)
    progress.say("said")
"""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with os.fdopen(ours, "rb") as terminal:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
        )
        shown = os.read(terminal.fileno(), 1 << 16).decode()
        os.close(theirs)
    assert done.stdout == b""
    assert "said" in shown
    assert "1/5" in shown
    assert shown.rstrip("\r\n").endswith("\x1b[2K")  # the bar was wiped away
