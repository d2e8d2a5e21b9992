"""``karui predict``: which file, which inputs, and the answers as text, JSON or CSV.

What is done with a file is done by ``pipeline.onboard`` and what the file says about itself, as on a device.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.artifacts.files import RUNTIME_OF_FORMAT
from pipeline.artifacts.handover import MODEL_FILE, Handover
from pipeline.data.files import sha256_of
from pipeline.declare.words import RuntimeName
from pipeline.errors import ConfigError, DataError, ModelError, nearest
from pipeline.host import usable_cores
from pipeline.onboard.about import TABLE, About
from pipeline.onboard.answers import Answer, answers_of
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.faults import OnboardFault
from pipeline.onboard.metadata import about_file
from pipeline.onboard.pictures import write_mask
from pipeline.onboard.samples import Samples, files_below, pictures_and_more, rows_of, samples_of
from pipeline.runs.finished import find_run
from pipeline.runs.records import from_json
from pipeline.runtimes import open_session, unavailable
from pipeline.runtimes.boundary import model_errors

STDIN = "-"
_STARTS = {b"\x93NUMPY": ".npy", b"PK": ".npz"}
Style = Literal["text", "json", "csv"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file, what it says about itself, and how it is run here."""

    path: Path
    about: About
    runtime: RuntimeName
    decision: dict[str, float] = field(default_factory=dict)
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An input and what the network says about it."""

    name: str
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Scored:
    """How many inputs of one class, or of all, get their own class."""

    label: str
    right: int
    samples: int

    @property
    def share(self) -> float:
        """Return the share that is right."""
        return self.right / self.samples


# ── which file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def model_for(what: str, *, file: str | None = None, runtime: str | None = None) -> Model:
    """Find a model: a file, or what a run ships for its first target (``file``: another one of the run).

    Raises ConfigError for a run that is not there or ships nothing, ModelError for a file that cannot be used.
    """
    path = Path(what)
    if path.suffix.lower() in (".onnx", ".tflite") and not path.is_dir():
        if file is not None:
            raise ConfigError("--file is for a run folder", where=what, remedy="name the file alone")
        return _model(path, _handover(path.parent), runtime)
    folder = path if (path / MODEL_FILE).is_file() else find_run(what)
    handover = _handover(folder)
    if handover is None:
        raise ConfigError(f"has no {MODEL_FILE}", where=str(folder), remedy="run its recipe again: files are recalled")
    names = [each.file for each in handover.files]
    if file is not None:
        if file not in names:
            raise ConfigError(f"has no file '{file}'{nearest(file, names)}", where=str(folder))
        return _model(folder / file, handover, runtime)
    shipped = next(iter(handover.targets), None)
    if shipped is None or shipped.ship is None:
        what_for = f"ships nothing for {shipped.target}" if shipped else "was not judged for any target"
        raise ConfigError(f"this run {what_for}", where=str(folder), remedy=f"name a file: --file {' or '.join(names)}")
    return _model(folder / shipped.ship, handover, runtime or shipped.runtime)


def _handover(folder: Path) -> Handover | None:
    """Return what ``model.json`` says; None where there is none."""
    file = folder / MODEL_FILE
    try:
        return from_json(Handover, file.read_bytes()) if file.is_file() else None
    except ValueError as error:
        raise ModelError("is damaged, or of another version", where=str(file), remedy="run the recipe again") from error


def _model(path: Path, handover: Handover | None, runtime: str | None) -> Model:
    with model_errors():
        about = about_file(path)
    known = {each.file: each.sha256 for each in handover.files} if handover else {}
    if known.get(path.name, "") and known[path.name] != sha256_of(path):
        raise ModelError(
            f"is not the file that {MODEL_FILE} beside it describes",
            where=str(path),
            remedy="run the recipe again, or copy both files once more",
        )
    decision = dict(handover.decision) if handover and path.name in known else {}
    chosen = _runtime(path, runtime)
    ways = {(each.ship, each.runtime): each.threads for each in reversed(handover.targets)} if handover else {}
    threads = min(ways.get((path.name, chosen), 1), usable_cores())
    return Model(path=path, about=about, runtime=chosen, decision=decision, threads=threads)


def _runtime(path: Path, wanted: str | None) -> RuntimeName:
    """Return the runtime that is asked for, or the first one that is here.  Raises ConfigError."""
    possible = RUNTIME_OF_FORMAT["onnx" if path.suffix.lower() == ".onnx" else "tflite"]
    if wanted is not None and wanted not in possible:
        raise ConfigError(f"{wanted} does not run {path.suffix} files", where=str(path), remedy=" or ".join(possible))
    usable = [name for name in possible if wanted in (None, name) and not unavailable(name)]
    if not usable:
        why = unavailable(next(name for name in possible if wanted in (None, name)))
        raise ConfigError(f"no runtime for this file is usable here: {why}", where=str(path))
    return usable[0]


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def predicted(model: Model, inputs: Sequence[str]) -> Iterator[Answered]:
    """Yield the answer for every sample of the inputs: files, folders of them, or ``-`` for one file on stdin.

    Raises DataError for an input that cannot be used, ModelError for a file that does not run.
    """
    yield from _run(model, (portion for each in inputs for portion in _samples(each, model.about)))


def _samples(what: str, about: About) -> Iterator[Samples]:
    if what != STDIN:
        return samples_of(Path(what), about)
    if any(each.raw.kind != TABLE for each in about.inputs):
        return _piped(about)
    if isinstance(sys.stdin, io.TextIOWrapper):  # as a file is read, whatever the terminal's encoding is
        sys.stdin.reconfigure(encoding="utf-8", errors="strict", newline="")
    return rows_of(sys.stdin, "stdin", about)


def _piped(about: About) -> Iterator[Samples]:
    """Yield the samples of a picture, an .npy or an .npz file on standard input."""
    content = sys.stdin.buffer.read()
    suffix = next((suffix for start, suffix in _STARTS.items() if content.startswith(start)), ".png")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"stdin{suffix}"  # pictures are told apart by what is in them
        path.write_bytes(content)
        try:
            for portion in samples_of(path, about):
                names = tuple(name.replace(str(path), "stdin") for name in portion.names)
                yield Samples(names, portion.inputs)
        except OnboardFault as fault:
            raise DataError(fault.what, where=fault.where.replace(str(path), "stdin"), remedy=fault.remedy) from fault


def _run(model: Model, portions: Iterator[Samples]) -> Iterator[Answered]:
    # exact: what the run itself was judged by, and what a processor on ARM computes
    apart = model.runtime != "onnxruntime"
    session = open_session(
        model.path, model.runtime, threads=model.threads, signature=model.about.signature, exact=True, apart=apart
    )
    try:
        while (portion := _next(portions)) is not None:
            outputs = session.run(portion.inputs)
            _check_outputs(outputs, portion.names, model.path)
            answers = answers_of(outputs, model.about, model.decision)
            for name, answer in zip(portion.names, answers, strict=True):
                yield Answered(name=name, answer=answer)
    finally:
        session.close()


def _check_outputs(outputs: Arrays, names: Sequence[str], path: Path) -> None:
    for output, values in outputs.items():
        if values.ndim == 0 or len(values) != len(names):
            raise ModelError(
                f"its output '{output}' has the shape {tuple(values.shape)} for {len(names)} samples",
                where=str(path),
                remedy="the first axis has to count the samples: is the file damaged?",
            )
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(names), -1)).all(1))
        if bad.size:
            raise ModelError(
                f"its output '{output}' is no finite number for {names[int(bad[0])]}",
                where=str(path),
                remedy="is the input in the units that the network was trained on? if it is, the file is damaged",
            )


def _next(portions: Iterator[Samples]) -> Samples | None:
    try:
        return next(portions, None)
    except OnboardFault as fault:
        raise DataError(fault.what, where=fault.where, remedy=fault.remedy) from fault


def scored(model: Model, folder: Path) -> tuple[Scored, ...]:
    """Return for every class's folder in ``folder`` how many of its samples get that class.

    Raises ConfigError for a network that decides for no class, DataError for folders that are no classes.
    """
    labels = model.about.labels
    if model.about.task not in ("classification", "binary"):
        raise ConfigError(f"--labels is for networks that name a class; this one's task is {model.about.task}")
    folders = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    folders = [each for each in folders if not each.name.startswith(".") and files_below(each)]
    if not folders:
        raise DataError("holds no folders with samples", where=str(folder), remedy="make one folder per class")
    for each in folders:
        if each.name not in labels:
            raise DataError(f"is no class of the network{nearest(each.name, labels)}", where=str(each))
    found = []
    for each in folders:
        answers = list(_run(model, pictures_and_more(files_below(each), model.about)))
        right = sum(answered.answer.label == each.name for answered in answers)
        found.append(Scored(label=each.name, right=right, samples=len(answers)))
    return tuple(found)


def write_masks(answered: Sequence[Answered], folder: Path) -> None:
    """Write the mask of every answer that has one as ``NAME.mask.png`` into a folder.

    Raises ConfigError where no answer has a mask.
    """
    masks = [(each.name, each.answer.mask) for each in answered if each.answer.mask is not None]
    if answered and not masks:
        raise ConfigError("--out is for networks that give a mask; this one gives none")
    folder.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    for name, mask in masks:
        stem = Path(name).stem if "#" not in Path(name).name else Path(name).name.replace("#", "-")
        others = (f"{stem}-{number}" for number in itertools.count(2))
        free = next(each for each in itertools.chain([stem], others) if each not in used)
        used.add(free)
        write_mask(folder / f"{free}.mask.png", mask)


# ── what is printed ─────────────────────────────────────────────────────────────────────────────────────────────────


def answers_text(answered: Sequence[Answered], style: Style) -> str:
    """Return the answers as people, JSON or CSV readers want them."""
    if style == "json":
        return json.dumps([{"input": each.name, **each.answer.words} for each in answered], indent=1)
    rows = [_cells(each.answer) for each in answered]
    if style == "csv":
        return _csv(
            [["input", *(rows[0] if rows else ())], *([a.name, *row.values()] for a, row in _pairs(answered, rows))]
        )
    width = max((len(each.name) for each in answered), default=0)
    return "\n".join(f"{each.name:<{width}}  {_line(each.answer)}" for each in answered)


def _pairs(answered: Sequence[Answered], rows: list[dict[str, str]]) -> Iterator[tuple[Answered, dict[str, str]]]:
    return zip(answered, rows, strict=True)


def _cells(answer: Answer) -> dict[str, str]:
    if not answer.top:
        return {name: f"{value:.9g}" for name, value in answer.numbers.items()}
    cells = {"class": answer.label}
    for place, (label, share) in enumerate(answer.top, 1):
        cells |= {f"top_{place}": label, f"probability_{place}": f"{share:.6f}"}
    return cells


def _line(answer: Answer) -> str:
    if answer.top:
        shares = ", ".join(f"{label} {100 * share:.1f} %" for label, share in answer.top)
        return f"{answer.label}  ({shares})"
    if answer.mask is not None:
        found = sorted(answer.numbers.items(), key=lambda each: -each[1])
        return ", ".join(f"{label} {100 * share:.1f} %" for label, share in found if share)
    return ", ".join(f"{name} {value:.6g}" for name, value in answer.numbers.items())


def scores_text(found: Sequence[Scored], style: Style) -> str:
    """Return how many inputs are right, of all and of each class."""
    whole = Scored(label="all", right=sum(each.right for each in found), samples=sum(each.samples for each in found))
    if style == "json":
        words = {each.label: {"right": each.right, "samples": each.samples, "share": each.share} for each in found}
        total = {"right": whole.right, "samples": whole.samples, "share": whole.share}
        return json.dumps({**total, "classes": words}, indent=1)
    if style == "csv":
        rows = [[each.label, str(each.right), str(each.samples), f"{each.share:.6f}"] for each in found]
        return _csv([["class", "right", "samples", "share"], *rows])
    width = max(len(each.label) for each in (*found, whole))
    return "\n".join(
        f"{each.label:<{width}}  {100 * each.share:.2f} %  ({each.right} of {each.samples} right)"
        for each in (*found, whole)
    )


def _csv(rows: Sequence[Sequence[str]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue().rstrip("\n")
