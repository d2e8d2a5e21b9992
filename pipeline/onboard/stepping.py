"""Networks that carry a state: what one step gives becomes an input of the next.

Shapes: n sequences of T steps.  Arrays of sequences are (n, T, …); of what is carried there is the state before the
first step, (n, …).
"""

from __future__ import annotations

import numpy as np

from pipeline.onboard.arrays import Arrays, Predict, Signature


def stepping(predict: Predict, signature: Signature) -> Predict:
    """Return a network for one step as a function of sequences; as it is where nothing is carried."""
    if not signature.carried:
        return predict

    def over_time(inputs: Arrays) -> Arrays:
        made = [outputs for _, outputs in steps(predict, signature, inputs)]
        return {name: np.stack([outputs[name] for outputs in made], 1) for name in made[0]}

    return over_time


def steps(predict: Predict, signature: Signature, inputs: Arrays) -> list[tuple[Arrays, Arrays]]:
    """Return what goes in and comes out at each step of sequences, state and all, (n, …) each."""
    states = {into: inputs[into] for into in signature.carried.values()}
    given = {name: array for name, array in inputs.items() if name not in states}
    count = next(iter(given.values())).shape[1]
    found: list[tuple[Arrays, Arrays]] = []
    for step in range(count):
        now = {name: states[name] if name in states else given[name][:, step] for name in inputs}
        outputs = predict(now)
        found.append((now, outputs))
        states = {into: outputs[name] for name, into in signature.carried.items()}
    return found


def first_step(inputs: Arrays, signature: Signature) -> Arrays:
    """Return what goes in at the first step, (n, …) each."""
    carried = set(signature.carried.values())
    if not carried:
        return inputs
    return {name: array if name in carried else array[:, 0] for name, array in inputs.items()}
