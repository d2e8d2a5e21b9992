"""State that a network carries from call to call: recognised by names and shapes, or named; and samples in their order.

Shapes: N sequences of T steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.declare.card import outside_name
from pipeline.errors import ConfigError, DataError, nearest
from pipeline.onboard.arrays import Arrays, Predict, Signature, TensorSpec
from pipeline.onboard.stepping import steps
from pipeline.starting.given import FEWEST, Given
from pipeline.starting.samples import read_arrays

NOTHING = "none"  # --carry none: whatever names look like
_OF_INPUTS = re.compile(r"^(past|prev|previous|old|initial|in)[_.]|[_.](in|prev|old|init)$|(In|Prev|Old|Init)$|_?0$")
_OF_OUTPUTS = re.compile(r"^(present|next|new|out)[_.]|[_.](out|next|new|n|N)$|(Out|Next|New|N)$|n$|_?1$")
_PLAIN = frozenset({"", "x", "y", "input", "inputs", "image", "images", "data", "audio", "output", "outputs"})
_FEWEST_STEPS, _SEQUENCES = 4, 16  # of one long sequence that is cut


def carried_of(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], named: Sequence[str]
) -> tuple[dict[str, str], str]:
    """Return output → input that it becomes at the next call, and what is to be said of it; {} where nothing is.

    ``named``: "stateN=state" each, or "none".  Raises ConfigError for names that there are not, or of other shapes.
    """
    if not named:
        found = _recognised(inputs, outputs)
        pairs = ", ".join(f"{name} → {into}" for name, into in found.items())
        told = f"carried from call to call: {pairs}, as their names say; if not: --carry {NOTHING}"
        return found, told if found else ""
    if list(named) == [NOTHING]:
        return {}, ""
    ends = {"output": {spec.name: spec for spec in outputs}, "input": {spec.name: spec for spec in inputs}}
    found = {}
    for each in named:
        name, into = (part.strip() for part in each.partition("=")[::2])
        into = outside_name(into) if into not in ends["input"] else into
        for kind, one in (("output", name), ("input", into)):
            if one not in ends[kind]:
                raise ConfigError(
                    f"there is no {kind} '{one}'{nearest(one, ends[kind])}",
                    where="--carry",
                    remedy="write for example --carry stateN=state: the output, then the input that it becomes",
                )
        shapes = ends["output"][name].shape, ends["input"][into].shape
        if shapes[0] != shapes[1]:
            raise ConfigError(f"{name} has the shape {shapes[0]}, and {into} takes {shapes[1]}", where="--carry")
        found[name] = into
    if len(found) == len(inputs):
        raise ConfigError("all inputs are carried: one of them has to be new at each call", where="--carry")
    return found, ""


def _recognised(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> dict[str, str]:
    bases = {spec.name: _base(_OF_INPUTS, spec.name.removesuffix("_in")) for spec in inputs}
    found: dict[str, str] = {}
    for output in outputs:
        base = _base(_OF_OUTPUTS, output.name)
        for each in inputs:
            if base not in _PLAIN and base == bases[each.name] and output.shape == each.shape:
                found.setdefault(output.name, each.name)
    return found if len(set(found.values())) == len(found) < len(inputs) else {}


def _base(around: re.Pattern[str], name: str) -> str:
    return around.sub("", name).casefold()


def sequences_by(place: Path, signature: Signature, predict: Predict) -> Given:
    """Return the sequences at ``place``, an .npz file, for a network that carries a state; few long ones are cut.

    The state before the first step is what the file holds under its input's name, else zero; of what is cut, the one
    that the network has by then.  Raises ConfigError and DataError in words.
    """
    if place.suffix.lower() != ".npz" or not place.is_file():
        raise ConfigError(
            f"'{place}' is no .npz file",
            where="--data",
            remedy="store sequences: np.savez(file, INPUT=array (N, T, …))",
        )
    arrays = read_arrays(place)
    carried = set(signature.carried.values())
    new = {spec.name: _sequences(place, arrays, spec) for spec in signature.inputs if spec.name not in carried}
    counts = {name: each.shape[:2] for name, each in new.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"the inputs hold different numbers of sequences and steps: {told}", where=str(place))
    count, length = next(iter(counts.values()))
    states = {spec.name: _state(place, arrays, spec, count) for spec in signature.inputs if spec.name in carried}
    if count < FEWEST:
        new, states = _cut(signature, predict, {**new, **states}, pieces=max(FEWEST, _SEQUENCES) // count + 1)
    found = {spec.name: {**new, **states}[spec.name] for spec in signature.inputs}
    cut, of = next(iter(new.values())).shape[:2]
    if cut < FEWEST:
        what = f"{count} sequences of {length} steps"
        raise DataError(
            what, where=str(place), remedy=f"give at least {FEWEST}, or one of {_FEWEST_STEPS * FEWEST} steps"
        )
    return Given(
        task="agreement",
        kind="npz",
        place=place,
        samples=cut,
        divide=1,
        said=f"{count:,} sequences of {length:,} steps" + (f", cut into {cut} of {of}" if cut != count else ""),
        inputs=found,
        steps=of,
    )


def _array(arrays: Arrays, name: str) -> NDArray[Any] | None:
    return next((arrays[each] for each in (name, name.removesuffix("_in")) if each in arrays), None)


def _sequences(place: Path, arrays: Arrays, spec: TensorSpec) -> NDArray[np.float32]:
    """Return an input's array as (N, T, *shape)."""
    found = _array(arrays, spec.name)
    if found is None:
        held = ", ".join(sorted(arrays)) or "nothing"
        remedy = f"store sequences under this name, (N, T, {', '.join(map(str, spec.shape))})"
        raise ConfigError(f"{place} holds no array '{spec.name}', found {held}", where="--data", remedy=remedy)
    for shaped in (found, found[None]):  # many sequences, or one
        if shaped.shape[2:] == spec.shape and shaped.ndim > 1:
            return np.asarray(shaped, np.float32)
        if shaped.shape[2:] == (1, *spec.shape):  # of calls with one sample each
            return np.asarray(shaped[:, :, 0], np.float32)
    raise DataError(
        f"'{spec.name}' has the shape {found.shape}, and the network takes {spec.shape} at each call",
        where=str(place),
        remedy=f"store sequences: (N, T, {', '.join(map(str, spec.shape))})",
    )


def _state(place: Path, arrays: Arrays, spec: TensorSpec, count: int) -> NDArray[np.float32]:
    found = _array(arrays, spec.name)
    if found is None:
        return np.zeros((count, *spec.shape), np.float32)
    if found.size != count * np.prod(spec.shape, dtype=int):
        what = f"'{spec.name}' has the shape {found.shape}, expected ({count}, {', '.join(map(str, spec.shape))})"
        raise DataError(what, where=str(place), remedy="the state before the first step; left out, it is zero")
    return np.asarray(found, np.float32).reshape(count, *spec.shape)


def _cut(
    signature: Signature, predict: Predict, inputs: Mapping[str, NDArray[np.float32]], *, pieces: int
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Return each sequence as so many shorter ones; what is left over at its end is gone."""
    carried = set(signature.carried.values())
    length = next(each.shape[1] for name, each in inputs.items() if name not in carried)
    each = max(_FEWEST_STEPS, length // pieces)
    starts = range(0, length - each + 1, each)
    made = [now for now, _ in steps(predict, signature, inputs)]

    def pieces_of(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [made[start][name] if name in carried else array[:, start : start + each] for start in starts]
        return np.concatenate(parts or [array[:0]])

    cut = {name: pieces_of(name, array) for name, array in inputs.items()}
    return {name: cut[name] for name in inputs if name not in carried}, {name: cut[name] for name in carried}
