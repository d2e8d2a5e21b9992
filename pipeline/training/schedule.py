"""How many steps an epoch takes, and the learning rate of each."""

from __future__ import annotations

import math

from pipeline.declare.recipe import TrainSpec

_ONE_CYCLE_WARM_SHARE = 0.3


def samples_used(count: int, batch_size: int) -> int:
    """Leave out a last batch of a single sample (another one every epoch): batch norm cannot train on it."""
    return count - 1 if count > batch_size > 1 and count % batch_size == 1 else count


def steps_in(count: int, batch_size: int) -> int:
    """Return how many steps one epoch over ``count`` samples takes."""
    return math.ceil(samples_used(count, batch_size) / batch_size)


def learning_rate_at(plan: TrainSpec, done: float) -> float:
    """Return the learning rate when the share ``done`` (0 … 1) of all steps is done."""
    if plan.schedule == "constant":
        return plan.learning_rate
    if plan.schedule == "one-cycle" and done < _ONE_CYCLE_WARM_SHARE:  # Smith & Topin 2018
        return plan.learning_rate * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * done / _ONE_CYCLE_WARM_SHARE)))
    if plan.schedule == "one-cycle":
        done = (done - _ONE_CYCLE_WARM_SHARE) / (1 - _ONE_CYCLE_WARM_SHARE)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * done))  # Loshchilov & Hutter 2017
