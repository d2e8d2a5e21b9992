"""The log of a run folder for people: a line per stage, per epoch and per remark, each with its time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.progress import Progress, numbers_text
from pipeline.runs.board import Board
from pipeline.runs.store import storing
from pipeline.visible import shown_text

LOG_FILE = "run.log"


@dataclass(kw_only=True)
class Logged:
    """Tells what a run does to the one who watches, and writes what is worth keeping into a file."""

    watched: Progress
    file: Path
    board: Board | None = None  # gets the numbers of epochs, too
    step: str = ""
    title: str = ""

    def begin(self, step: str) -> None:
        """Show that a step is at work, before it says so itself: it may load libraries first."""
        self.step = step
        self.start(step, 1)

    def recalled(self, step: str, artifact: object) -> None:
        """Keep the curves of a step that is not done again."""
        if self.board is not None:
            self.board.recalled(step, artifact)

    def start(self, title: str, total: int) -> None:
        """Remember what the epochs that follow belong to."""
        self.title = title
        self.watched.start(title, total)

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Write a line when an epoch is over."""
        if "epoch" in numbers:
            self.write(f"{self.title:<24}  {numbers_text(numbers)}")
            if self.board is not None:
                curves = {name: value for name, value in numbers.items() if name not in ("epoch", "epochs")}
                self.board.epoch(self.step, self.title, int(numbers["epoch"]), curves)
        self.watched.advance(steps, **numbers)

    def say(self, text: str) -> None:
        """Write what is said."""
        self.write(text)
        self.watched.say(text)

    def write(self, text: str) -> None:
        """Append lines with the local time.  Raises StorageError."""
        when = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        lines = "".join(f"{when}  {line}\n" for line in shown_text(text).splitlines())
        with storing(self.file), self.file.open("a", encoding="utf-8") as log:
            log.write(lines)
