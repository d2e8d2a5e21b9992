"""What a way of running gave on a split: into the store, back, and how far two ways agree.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Agreement, Answered, Answers, Interval, Place
from pipeline.artifacts.files import Way
from pipeline.data.source import ArraySource, Source, everything, fits_in_memory
from pipeline.runs.store import Store


def keep(
    answers: Answers,
    *,
    way: Way,
    version: str,
    place: Place,
    interval: Interval,
    steps: dict[str, float],
    store: Store,
) -> Answered:
    """Put outputs, decisions and scores into the store and describe them.

    ``version``: of what ran it; ``interval``: of the metric; ``steps``: output → one step of it.
    """
    return Answered(
        way=way,
        version=version,
        place=place,
        samples=len(answers.score),
        value=answers.value,
        low=interval.low,
        high=interval.high,
        others=dict(answers.others),
        outputs={name: store.put_array(np.asarray(array, np.float32)) for name, array in answers.outputs.items()},
        decisions=store.put_array(answers.decisions),
        score=store.put_array(answers.score),
        steps=steps,
    )


def load_answers(answered: Answered, store: Store) -> Answers:
    """Return what was kept.  Raises StorageError when some of it is gone or altered."""
    return Answers(
        outputs={name: store.get_array(digest) for name, digest in answered.outputs.items()},
        decisions=store.get_array(answered.decisions),
        score=store.get_array(answered.score),
        value=answered.value,
        others=answered.others,
    )


def held(source: Source) -> Source:
    """Return the same samples read once and held, where they fit in memory: many ways of running read them again."""
    if isinstance(source, ArraySource) or len(source) == 0:
        return source
    values = sum(array[0].size for array in source.read(everything(source)[:1]).inputs.values())
    if not fits_in_memory(len(source), (values,)):
        return source
    batch = source.read(everything(source))
    return ArraySource(inputs=batch.inputs, labels=batch.wanted, strata=source.strata, groups=source.groups)


# ── agreement ───────────────────────────────────────────────────────────────────────────────────────────────────────


Given = tuple[Way, Answers, Mapping[str, float]]  # a way, what it answered, and output → one step of it


def agreement(first: Given, second: Given) -> Agreement:
    """Compare two ways of running one int8 network, sample by sample, in steps of its quantized outputs."""
    (way, one, steps), (other_way, other, other_steps) = first, second
    apart = steps_apart(one, other, {**other_steps, **steps})
    return Agreement(
        first=way,
        second=other_way,
        same=float(np.mean(same_decisions(one, other, apart))),
        max_steps=max(float(each.max()) for each in apart),
        mean_steps=float(np.mean(np.concatenate([each.ravel() for each in apart]))),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Apart:
    """How far the same file is apart from itself at another place, on the same samples."""

    same: float  # share of samples with the same decision, 0 … 1
    identical: float  # share of the numbers that are the same bit by bit
    max_steps: float  # largest difference in output steps
    different: NDArray[np.int64]  # samples of which some number is not


def apart(one: Answers, other: Answers, steps: Mapping[str, float]) -> Apart:
    """Compare what was answered at two places; ``steps``: output → one step of it."""
    far = steps_apart(one, other, steps)
    same = np.asarray(same_decisions(one, other, far))
    equal = [(one.outputs[name] == other.outputs[name]).reshape(len(same), -1) for name in one.outputs]
    return Apart(
        same=float(same.reshape(len(same), -1).all(axis=1).mean()),
        identical=float(np.concatenate(equal, axis=1).mean()),
        max_steps=max(float(each.max()) for each in far),
        different=np.flatnonzero(~np.concatenate(equal, axis=1).all(axis=1)),
    )


def same_decisions(one: Answers, other: Answers, apart: Sequence[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Return which decisions are the same, (N, …); of numbers: where no output of the sample is a step away, (N,)."""
    if np.issubdtype(one.decisions.dtype, np.floating):
        return np.asarray(np.all([each.reshape(len(each), -1).max(axis=1) < 1 for each in apart], axis=0))
    return np.asarray(one.decisions == other.decisions)


def steps_apart(one: Answers, other: Answers, steps: Mapping[str, float]) -> list[NDArray[np.float32]]:
    """Return how many steps of each output lie between, (N, …) each; of a float output 1/255 of its range is one."""
    return [_steps_apart(one.outputs[name], other.outputs[name], steps.get(name)) for name in one.outputs]


def _steps_apart(first: NDArray[np.float32], second: NDArray[np.float32], step: float | None) -> NDArray[np.float32]:
    step = step or max(float(np.ptp(first)) / 255, 1e-30)
    # rounded: both are whole steps, computed as step * scale in float32
    return np.asarray(np.rint(np.abs(first - second) / np.float32(step)), np.float32)
