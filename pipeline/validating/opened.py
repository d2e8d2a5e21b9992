"""A model file in a runtime, with inputs and outputs as the data have them; and what was asked about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.artifacts.files import RUNTIME_OF_FORMAT
from pipeline.declare.card import outside_name
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import RuntimeName
from pipeline.errors import ConfigError, ModelError, nearest
from pipeline.onboard.arrays import Arrays, Predict, Signature, TensorSpec, chosen, concatenated, length
from pipeline.onboard.stepping import stepping
from pipeline.runtimes import Session, open_session, unavailable
from pipeline.tasks import OUTPUT

_LAST = (0, 2, 3, 1)  # (n, C, H, W) → (n, H, W, C)
_CHANNELS = (1, 3, 4)
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
    emulate: bool = False  # on the target's own processor, too
    budget_minutes: float = 10.0  # for that
    measurements: tuple[Path, ...] = ()  # of the target itself, from `karui bench`
    carry: tuple[str, ...] = ()  # "stateN=state": what is handed on to the next call, or "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
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


def open_file(path: Path, question: Question, target: TargetProfile | None = None) -> Opened:
    """Open a file in the runtime that is asked for, or in the first that can, of those that exist for a target.

    Raises ConfigError and ModelError.
    """
    kind = path.suffix.lower().removeprefix(".")
    runtimes = [runtime for key, some in RUNTIME_OF_FORMAT.items() if key == kind for runtime in some]
    if not path.is_file():
        raise ConfigError("there is no such file", where=str(path))
    if not runtimes:
        raise ConfigError(f"'{path}' is no .onnx or .tflite file", where="validate", remedy="name a model file")
    there = [each for each in runtimes if target is None or each in target.runtimes]
    if target is not None and not there:
        what = f"{target.name} has no runtime for {path.name}: {' and '.join(runtimes)} cannot be installed there"
        raise ConfigError(what, where="--target", remedy=f"it has {' and '.join(target.runtimes)}: give it such a file")
    usable = [each for each in there if not unavailable(each)]
    wanted = [each for each in usable if question.runtime in ("", each)]
    if not wanted:
        what = f"{question.runtime or ' and '.join(there)} cannot run {path.name} here"
        raise ConfigError(what, where="--runtime", remedy=f"usable: {', '.join(usable) or 'none'}")
    runtime, session = _first_that_opens(path, wanted)
    signature = session.signature
    names = [each.name for each in signature.outputs]
    asked = [name.strip() for name in question.output.split(",") if name.strip()]
    for name in asked:
        if name not in names:
            raise ModelError(f"has no output '{name}'{nearest(name, names)}", where=str(path))
    last = frozenset(each.name for each in signature.inputs if kind == "onnx" and _is_last(each.shape))
    return Opened(
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
