"""``karui validate``: what a model file answers as it is, what of it runs on integers, and how long it takes.

Shapes: N samples; S sessions and R timed inferences in each.
"""

from __future__ import annotations

import tomllib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import catalog
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Variant
from pipeline.artifacts.validation import FileFacts
from pipeline.data.load import load, reference
from pipeline.data.source import INPUT, ArraySource, Source
from pipeline.declare.card import DatasetCard, outside_name
from pipeline.declare.words import RuntimeName
from pipeline.errors import ConfigError, ModelError, nearest
from pipeline.host import is_this_machine, machine_name
from pipeline.judging.case import memory_elsewhere
from pipeline.judging.latency import ROUNDS, quantile
from pipeline.judging.limits import Costs, exactly, file_checks
from pipeline.onboard.arrays import Arrays, Predict, Signature, TensorSpec, chosen, concatenated, length
from pipeline.onboard.frontend import prepare
from pipeline.onboard.session import Timer
from pipeline.onboard.stepping import first_step, stepping
from pipeline.onboard.timing import measure
from pipeline.runtimes import Session, executed, open_session, peak_memory_bytes, unavailable
from pipeline.starting.files import relative, render
from pipeline.starting.given import Given
from pipeline.starting.models import card_named, files_of
from pipeline.starting.samples import given_by
from pipeline.starting.sequences import carried_of, sequences_by
from pipeline.tasks import OUTPUT, Task, named

_LAST = (0, 2, 3, 1)  # (n, C, H, W) → (n, H, W, C)
_CHANNELS = (1, 3, 4)
_SESSIONS, _BUDGET_S = 12, 2.0  # of each file
_TRIED = 3  # samples that are run together and alone


@dataclass(frozen=True, kw_only=True)
class Question:
    """What ``karui validate`` was asked."""

    model: Path
    data: str
    beside: Path | None = None  # the float file
    target: str = ""
    runtime: str = ""
    output: str = ""
    carry: tuple[str, ...] = ()  # "stateN=state": what is handed on to the next call, or "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Opened:
    """A file in a runtime, and how samples with (n, C, H, W) go in and outputs come out."""

    path: Path
    runtime: RuntimeName
    session: Session
    inputs: tuple[TensorSpec, ...]  # as the data have them
    outputs: tuple[TensorSpec, ...]  # that are looked at
    last: frozenset[str]  # inputs that the file has as (n, H, W, C)

    def fed(self, inputs: Arrays) -> Arrays:
        """Return prepared inputs as the file has them; the only one may have any name."""
        alone = next(iter(inputs.values())) if len(inputs) == 1 else None
        found = {spec.name: inputs[outside_name(spec.name)] if alone is None else alone for spec in self.inputs}
        return {name: np.ascontiguousarray(x.transpose(_LAST)) if name in self.last else x for name, x in found.items()}

    def named(self, found: Arrays) -> Arrays:
        """Return the outputs that are looked at; the only one is called as a task calls it."""
        if len(self.outputs) == 1:
            return {OUTPUT: found[self.outputs[0].name]}
        return {spec.name: found[spec.name] for spec in self.outputs}

    def predict(self, carried: Mapping[str, str]) -> Predict:
        """Return the file as a function; samples run together only where that gives what they give alone.

        ``carried``: output → input that it becomes at the next step of sequences.
        """
        alone: list[bool] = []

        def together(inputs: Arrays) -> Arrays:
            return self.named(self.session.run(self.fed(inputs)))

        def one_by_one(inputs: Arrays) -> Arrays:
            return concatenated([together(chosen(inputs, slice(at, at + 1))) for at in range(length(inputs))])

        def predict(inputs: Arrays) -> Arrays:
            if not alone:
                some = chosen(inputs, slice(_TRIED))
                alone.append(not _same(together(some), one_by_one(some)))
            return one_by_one(inputs) if alone[0] else together(inputs)

        return stepping(predict, Signature(self.inputs, self.outputs, dict(carried)))


def _same(together: Arrays, alone: Arrays) -> bool:
    pairs = ((together[name], each) for name, each in alone.items())
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-3 * float(np.abs(b).max(initial=0.0))) for a, b in pairs)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """Samples, what is asked about them, and how they are prepared."""

    task: Task
    source: Source
    prepared: Callable[[Arrays], Arrays]
    carried: Mapping[str, str]


def validate(question: Question) -> FileFacts:
    """Judge a file on samples.  Raises ConfigError, DataError, ModelError as its parts do."""
    opened = _opened(question.model, question)
    beside = _opened(question.beside, question) if question.beside else None
    asked = _asked(question, opened, beside)
    for each in (opened, beside):
        if each is not None:
            _check_ends(each, asked)
    target = catalog.load_target(question.target) if question.target else None
    answers = asked.task.answer(opened.predict(asked.carried), asked.source, asked.prepared)
    comparison = None
    if beside is not None:
        floats = asked.task.answer(beside.predict(asked.carried), asked.source, asked.prepared)
        comparison = asked.task.compare(floats, answers, asked.source)
    files = [opened, *([beside] if beside else [])]
    times = _times(files, asked)
    nodes = executed(opened.path, opened.runtime)
    size = opened.path.stat().st_size
    peak = peak_memory_bytes(opened.path, opened.runtime, threads=1)
    p50, p95 = (quantile(times[0], share) for share in (0.5, 0.95))
    metric, integers = asked.task.METRIC, sum(each.integer for each in nodes)
    variant = Variant(
        format="onnx" if opened.path.suffix.lower() == ".onnx" else "tflite", precision="int8" if integers else "fp32"
    )
    here = target is not None and is_this_machine(target)
    costs = Costs(
        size_bytes=size,
        latency_p95_ms=p95 if here else None,
        peak_memory_bytes=None if peak is None else exactly(peak) if here else memory_elsewhere(peak),
    )
    return FileFacts(
        file=str(question.model),
        runtime=f"{opened.runtime} {opened.session.version}",
        machine=machine_name(),
        samples=len(asked.source),
        metric=metric,
        value=asked.task.interval(answers, asked.source),
        others=dict(answers.others),
        size_bytes=size,
        latency_p50_ms=p50.value,
        latency_p95_ms=p95,
        integer_nodes=integers,
        nodes=len(nodes),
        float_nodes={each.name: each.op for each in nodes if not each.integer},
        comparison=comparison,
        times_as_long=p50.value / quantile(times[1], 0.5).value if beside else None,
        peak_memory_bytes=peak,
        checks=() if target is None else file_checks(target, variant, metric, comparison, costs),
    )


def _check_ends(opened: _Opened, asked: _Asked) -> None:
    """Refuse a file whose inputs are not those of the samples, or that has more outputs than a task knows."""
    given, taken = list(asked.source.read(np.arange(1)).inputs), [outside_name(spec.name) for spec in opened.inputs]
    if len(given) != len(taken) or (len(taken) > 1 and set(given) != set(taken)):
        raise ModelError(
            f"takes {', '.join(taken)}, and the samples have {', '.join(given)}",
            where=str(opened.path),
            remedy="the card names each input as the file does: [inputs.NAME]",
        )
    if len(opened.outputs) > 1 and asked.task.WANTED != "output":
        names = ", ".join(spec.name for spec in opened.outputs)
        what = f"has {len(opened.outputs)} outputs: {names}"
        raise ModelError(what, where=str(opened.path), remedy="say which one the labels are for: --output NAME")


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _opened(path: Path, question: Question) -> _Opened:
    kind = path.suffix.lower().removeprefix(".")
    runtimes = [runtime for key, some in RUNTIME_OF_FORMAT.items() if key == kind for runtime in some]
    if not path.is_file():
        raise ConfigError("there is no such file", where=str(path))
    if not runtimes:
        raise ConfigError(f"'{path}' is no .onnx or .tflite file", where="validate", remedy="name a model file")
    usable = [each for each in runtimes if not unavailable(each)]
    wanted = [each for each in usable if question.runtime in ("", each)]
    if not wanted:
        what = f"{question.runtime or ' and '.join(runtimes)} cannot run {path.name} here"
        raise ConfigError(what, where="--runtime", remedy=f"usable: {', '.join(usable) or 'none'}")
    runtime, session = _first_that_opens(path, wanted)
    signature = session.signature
    names = [each.name for each in signature.outputs]
    asked = [name.strip() for name in question.output.split(",") if name.strip()]
    for name in asked:
        if name not in names:
            raise ModelError(f"has no output '{name}'{nearest(name, names)}", where=str(path))
    last = frozenset(each.name for each in signature.inputs if kind == "onnx" and _is_last(each.shape))
    return _Opened(
        path=path,
        runtime=runtime,
        session=session,
        inputs=tuple(_turned(each) if each.name in last else each for each in signature.inputs),
        outputs=tuple(each for each in signature.outputs if each.name in (asked or names)),
        last=last,
    )


def _is_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] in _CHANNELS and shape[0] not in _CHANNELS


def _turned(spec: TensorSpec) -> TensorSpec:
    height, width, channels = spec.shape
    return replace(spec, shape=(channels, height, width))


def _first_that_opens(path: Path, runtimes: list[RuntimeName]) -> tuple[RuntimeName, Session]:
    """Open a file in the first runtime that can; older ones take files that newer ones refuse.  Raises ModelError."""
    refusals: list[ModelError] = []
    for runtime in runtimes:
        try:
            return runtime, open_session(path, runtime, exact=True)
        except ModelError as error:
            refusals.append(error)
    raise refusals[0]


# ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _asked(question: Question, opened: _Opened, beside: _Opened | None) -> _Asked:
    card = card_named(question.data)
    if card is not None:
        if question.carry:
            remedy = 'say it there: [inputs.NAME] carried = "OUTPUT"; and leave --carry out'
            raise ConfigError(f"the card {card} says what is carried", where="--carry", remedy=remedy)
        return _of_card(*catalog.load_card(str(card)))
    own_names = [replace(spec, name=outside_name(spec.name)) for spec in opened.inputs]
    inputs = opened.inputs if len(own_names) == 1 else own_names
    carried, _ = carried_of(inputs, opened.outputs, question.carry)
    if question.carry and carried and beside is None:
        raise ConfigError("nobody says what is right", where="--carry", remedy="name the float file: --float FILE")
    if carried and beside is not None:
        _check_carried(beside, carried)
        return _of_sequences(question, beside, Signature(tuple(inputs), opened.outputs, carried))
    given = given_by(Path(question.data), inputs, opened.outputs)
    if not given.inputs:
        return _of_card(DatasetCard.model_validate(tomllib.loads(_card(given, opened))), Path.cwd())
    if beside is None:
        raise ConfigError(
            f"{given.said}: nobody says what is right", where="--data", remedy="name the float file: --float FILE"
        )
    shaped = zip(inputs, given.inputs.values(), strict=True)
    names = [INPUT] if len(inputs) == 1 else [spec.name for spec in inputs]
    return _agreeing(
        {name: _prepared(x, spec, given) for name, (spec, x) in zip(names, shaped, strict=True)}, beside, {}
    )


def _check_carried(beside: _Opened, carried: Mapping[str, str]) -> None:
    """Refuse a float file whose state has other names."""
    there = {"output": [each.name for each in beside.outputs], "input": [outside_name(e.name) for e in beside.inputs]}
    for kind, names in (("output", list(carried)), ("input", list(carried.values()))):
        for name in names:
            if name not in there[kind]:
                what = f"has no {kind} '{name}', which the other file carries{nearest(name, there[kind])}"
                raise ModelError(what, where=str(beside.path), remedy="both files have to call their state alike")


def _of_sequences(question: Question, beside: _Opened, signature: Signature) -> _Asked:
    given = sequences_by(Path(question.data), signature, beside.predict({}))
    return _agreeing(given.inputs, beside, signature.carried)


def _agreeing(inputs: Arrays, beside: _Opened, carried: Mapping[str, str]) -> _Asked:
    """Ask for what the float file gives."""
    wanted = [np.asarray(each, np.float32) for each in beside.predict(carried)(inputs).values()]
    several = np.concatenate([each.reshape(len(each), -1) for each in wanted], 1)
    source = ArraySource(inputs=inputs, labels={"output": wanted[0] if len(wanted) == 1 else several})
    return _Asked(task=named("agreement"), source=source, prepared=lambda inputs: inputs, carried=carried)


def _prepared(x: NDArray[Any], spec: TensorSpec, given: Given) -> NDArray[np.float32]:
    shaped = x.reshape(-1, *spec.shape).astype(np.float32)
    return np.asarray(shaped / np.float32(given.divide), np.float32)


def _of_card(card: DatasetCard, folder: Path) -> _Asked:
    dataset = load(reference(card, folder))
    return _Asked(
        task=named(card.task),
        source=dataset.test,
        prepared=lambda inputs: prepare(inputs, dataset.frontend),
        carried=card.carried,
    )


def _card(given: Given, opened: _Opened) -> str:
    """Return a card that keeps as many samples as it can for measuring."""
    least = opened.outputs[0].shape[0] if given.task == "classification" else 1
    return render(
        "samples.toml",
        given=given,
        name="validated",
        place=relative(given.place),
        files=files_of(given),
        arrays=[pair for pair in given.arrays if pair[0] != pair[1]],
        inputs=[replace(spec, name=outside_name(spec.name)) for spec in opened.inputs],
        outputs=(),
        carried={},
        val=least,
        test=given.samples - 2 * least,
    )


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _times(files: list[_Opened], asked: _Asked) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Time all files together on one sample: (S, R) ms of each."""
    carried = Signature((), (), dict(asked.carried))
    sample = first_step(asked.prepared(asked.source.read(np.arange(1)).inputs), carried)

    def opener(each: _Opened) -> Callable[[], Timer]:
        def opened() -> Timer:
            session = open_session(each.path, each.runtime)
            run = session.timer(each.fed(sample))

            def timer(count: int) -> list[float]:
                return run(count)

            weakref.finalize(timer, session.close)
            return timer

        return opened

    openers = {str(number): opener(each) for number, each in enumerate(files)}
    found = measure(openers, sessions=_SESSIONS, rounds=ROUNDS, budget_s=_BUDGET_S * len(files), seed=0)
    return [found[key] for key in openers]
