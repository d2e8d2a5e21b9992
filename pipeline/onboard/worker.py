"""``python -m pipeline.onboard.worker``: work with one runtime for another process, over standard input and output.

For runtimes that cannot live beside the rest, and so that a file that kills its runtime kills nobody else.  A message
(see ``frames``) asks for one thing, ``{"ask": NAME, …}``, and gets one answer: ``{"ok": true, …}`` or a fault.
It ends when its input does.
"""

from __future__ import annotations

import gc
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Callable

from pipeline.onboard.cold import cold_start
from pipeline.onboard.faults import FrameRefused, OnboardFault, first_line
from pipeline.onboard.frames import Frame, read_frame, signature_from, signature_words, write_frame
from pipeline.onboard.marks import Marks
from pipeline.onboard.memory import peak_bytes
from pipeline.onboard.session import Session, Timer, module_of, open_session
from pipeline.onboard.tflite_session import listed_ops


class Worker:
    """One session, its timers, and an answer to everything that can be asked."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._timers: list[Timer] = []
        self._asked: dict[str, Callable[[Frame], Frame]] = {
            "version": self._version,
            "why_not": self._why_not,
            "open": self._open,
            "close": self._close,
            "run": self._run,
            "timer": self._timer,
            "time": self._time,
            "mark": self._mark,
            "memory": self._memory,
            "cold": self._cold,
            "ops": self._ops,
        }

    def answer(self, frame: Frame) -> Frame:
        """Do what is asked; whatever goes wrong is an answer too."""
        try:
            made = self._asked.get(str(frame.header.get("ask")), self._unknown)(frame)
        except OnboardFault as fault:
            return _refusal(fault)
        except Exception as error:  # noqa: BLE001  # the other side must hear of everything
            return _refusal(OnboardFault(f"{type(error).__name__}: {first_line(error)}"))
        return Frame({"ok": True, **made.header}, made.arrays)

    def _unknown(self, frame: Frame) -> Frame:
        raise FrameRefused(f"nothing known is asked: {frame.header.get('ask')!r}; known: {', '.join(self._asked)}")

    def _version(self, frame: Frame) -> Frame:
        runtime = frame.header["runtime"]
        return Frame({"version": module_of(runtime).version(runtime)})

    def _why_not(self, frame: Frame) -> Frame:
        runtime = frame.header["runtime"]
        return Frame({"reason": module_of(runtime).why_not(runtime)})

    def _open(self, frame: Frame) -> Frame:
        asked = frame.header
        session = open_session(
            Path(asked["path"]),
            asked["runtime"],
            threads=asked["threads"],
            signature=signature_from(asked["signature"]) if asked.get("signature") else None,
            steps=asked.get("steps"),
            exact=bool(asked.get("exact")),
        )
        self._session, self._timers = session, []
        signature = signature_words(session.signature)
        return Frame({"version": session.version, "signature": signature, "steps": dict(session.steps)})

    def _close(self, frame: Frame) -> Frame:
        del frame
        if self._session is not None:
            self._session.close()
        self._session, self._timers = None, []
        return Frame({})

    def _opened(self) -> Session:
        if self._session is None:
            raise FrameRefused("no file is open")
        return self._session

    def _run(self, frame: Frame) -> Frame:
        return Frame({}, self._opened().run(frame.arrays))

    def _timer(self, frame: Frame) -> Frame:
        self._timers.append(self._opened().timer(frame.arrays))
        return Frame({"timer": len(self._timers) - 1})

    def _time(self, frame: Frame) -> Frame:
        return Frame({"ms": self._timers[frame.header["timer"]](frame.header["count"])})

    def _mark(self, frame: Frame) -> Frame:
        """Run inferences in two regions of different length: what they differ by is inferences and nothing else."""
        timer, marks = self._timers[frame.header["timer"]], Marks()
        marks.simulate()
        timer(max(frame.header["counts"]))  # buffers are laid out, weights are packed
        gc.collect()
        gc.freeze()  # the next time there is little left to look through: it takes an emulator half a second
        gc.disable()
        try:
            for count in frame.header["counts"]:
                marks.start()
                timer(count)
                marks.stop()
        finally:
            gc.enable()
        return Frame({})

    def _memory(self, frame: Frame) -> Frame:
        asked = frame.header
        return Frame({"bytes": peak_bytes(Path(asked["path"]), asked["runtime"], threads=asked["threads"])})

    def _cold(self, frame: Frame) -> Frame:
        asked = frame.header
        found = cold_start(Path(asked["path"]), asked["runtime"], threads=asked["threads"], sample=frame.arrays)
        return Frame(asdict(found))

    def _ops(self, frame: Frame) -> Frame:
        asked = frame.header
        return Frame({"ops": [asdict(op) for op in listed_ops(Path(asked["path"]), asked["runtime"])]})


def serve(asks: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there is nothing more to read, or until what is read is no message."""
    worker = Worker()
    while True:
        try:
            frame = read_frame(asks)
        except FrameRefused as fault:  # where the next message would begin, nobody knows
            write_frame(answers, _refusal(fault))
            return
        if frame is None:
            return
        write_frame(answers, worker.answer(frame))


def _refusal(fault: OnboardFault) -> Frame:
    words = {"what": fault.what, "where": fault.where, "remedy": fault.remedy}
    return Frame({"ok": False, "fault": type(fault).__name__, **words})


def main() -> None:
    """Serve on the standard streams, which runtimes print to: whatever they say goes to standard error instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that asks, which ends this one
    with os.fdopen(os.dup(0), "rb") as asks, os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        serve(asks, answers)


if __name__ == "__main__":
    main()
