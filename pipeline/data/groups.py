"""Drawing whole groups (speakers, subjects, machines), so that none lies in two splits.

The groups that come nearest to a number of samples are a knapsack's: they are looked for from a random start by moves
that add, take away or exchange one group, until none of them comes nearer.

Shapes: N samples, G groups, K strata; column K of what is counted stands for all samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_MOST_EXCHANGES = 4_000_000  # pairs of groups that are looked at together; with more groups single moves do
_NEARER = 1e-9  # rounding is no progress


@dataclass(frozen=True, kw_only=True, eq=False)
class _Groups:
    samples: NDArray[np.float64]  # (G, K+1): of each group in each stratum
    wanted: NDArray[np.float64]  # (K+1,)
    weight: NDArray[np.float64]  # (K+1,): what missing one sample costs; more where few are wanted
    keep: int  # so many groups that hold a stratum must be left

    @property
    def holds(self) -> NDArray[np.int64]:
        """(G, K+1): 1 where a group holds a stratum."""
        return (self.samples > 0).astype(np.int64)

    def distance(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """(…, K+1) samples per stratum → (…): how far that is from what is wanted."""
        off: NDArray[np.float64] = ((samples - self.wanted) ** 2 * self.weight).sum(-1)
        return off

    def possible(self, chosen: NDArray[np.bool_]) -> bool:
        """Every stratum is in a chosen group, and in enough groups that are left."""
        inside = self.holds[chosen].sum(0)
        return bool((inside >= 1).all() and (self.holds.sum(0) - inside >= self.keep).all())


def grouped_draw(strata: Indices, groups: Indices, count: int, order: Indices, *, keep: int = 0) -> Indices:
    """Return sorted indices of whole groups that hold about ``count`` samples, each stratum in about its share.

    Every stratum is in the draw, and in at least ``keep`` of the groups that are left.  ``order``: 0 … N-1 at random;
    the same one gives the same draw.  Raises ValueError when no such draw is found.
    """
    names, first, number = np.unique(groups[order], return_index=True, return_inverse=True)
    by_chance = names[np.argsort(first)]  # groups in the order in which their first sample was drawn
    place = {int(name): index for index, name in enumerate(by_chance)}
    of_sample = np.empty(len(groups), dtype=np.int64)
    of_sample[order] = np.array([place[int(name)] for name in names], dtype=np.int64)[number]
    table = _counted(strata, of_sample, len(names), count, keep)
    chosen = _nearest(table, _start(table))
    return np.flatnonzero(chosen[of_sample]).astype(np.int64)


def _counted(strata: Indices, of_sample: Indices, groups: int, count: int, keep: int) -> _Groups:
    present, stratum = np.unique(strata, return_inverse=True)
    samples = np.zeros((groups, len(present) + 1))
    np.add.at(samples, (of_sample, stratum), 1)
    samples[:, -1] = samples.sum(1)
    wanted = samples.sum(0) * (count / len(strata))
    return _Groups(samples=samples, wanted=wanted, weight=1 / np.maximum(wanted, 1), keep=keep)


def _start(table: _Groups) -> NDArray[np.bool_]:
    """Return (G,): a choice that holds every stratum, the rarest ones seen to first.  Raises ValueError."""
    chosen = np.zeros(len(table.samples), dtype=bool)
    holds, in_groups = table.holds, table.holds.sum(0)
    if (in_groups < 1 + table.keep).any():
        raise ValueError("a stratum is in too few groups")
    for stratum in np.argsort(in_groups, kind="stable"):
        if holds[chosen, stratum].any():
            continue
        left = in_groups - holds[chosen].sum(0)
        free = ~chosen & (holds[:, stratum] > 0) & (left - holds >= table.keep).all(1)
        if not free.any():
            raise ValueError("no choice of groups holds every stratum and leaves enough")
        gain = table.distance(table.samples[chosen].sum(0) + table.samples)
        chosen[np.argmin(np.where(free, gain, np.inf))] = True
    return chosen


def _nearest(table: _Groups, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Move single groups in and out, then exchange pairs, as long as that comes nearer to what is wanted."""
    for group in range(len(chosen)):  # in their random order, so that another seed ends elsewhere
        chosen = _better(table, chosen, [_flipped(chosen, group)])
    while True:
        moved = _better(table, chosen, [_flipped(chosen, group) for group in _best_moves(table, chosen)])
        if moved is chosen:
            moved = _better(table, chosen, [_flipped(chosen, *pair) for pair in _best_exchanges(table, chosen)])
        if moved is chosen:
            return chosen
        chosen = moved


def _better(table: _Groups, chosen: NDArray[np.bool_], others: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return the first of the others that is possible and nearer, or what was chosen."""
    now = table.distance(table.samples[chosen].sum(0))
    for other in others:
        if table.distance(table.samples[other].sum(0)) < now - _NEARER and table.possible(other):
            return other
    return chosen


def _flipped(chosen: NDArray[np.bool_], *groups: int) -> NDArray[np.bool_]:
    flipped = chosen.copy()
    flipped[list(groups)] ^= True
    return flipped


def _best_moves(table: _Groups, chosen: NDArray[np.bool_], most: int = 32) -> list[int]:
    sign = np.where(chosen, -1.0, 1.0)[:, None]
    after = table.distance(table.samples[chosen].sum(0) + sign * table.samples)
    return [int(group) for group in np.argsort(after, kind="stable")[:most]]


def _best_exchanges(table: _Groups, chosen: NDArray[np.bool_], most: int = 32) -> list[tuple[int, int]]:
    inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    if len(inside) * len(outside) > _MOST_EXCHANGES:
        return []
    scaled = table.samples * np.sqrt(table.weight)  # distances are then those of Euclid
    off = (table.samples[chosen].sum(0) - table.wanted) * np.sqrt(table.weight)
    out, into = off - scaled[inside], scaled[outside]
    after = (out**2).sum(1)[:, None] + (into**2).sum(1)[None] + 2 * out @ into.T  # |off - out + in|²
    best = np.argsort(after, axis=None, kind="stable")[:most]
    return [(int(inside[pair // len(outside)]), int(outside[pair % len(outside)])) for pair in best]
