"""Find what kernels take from what networks of them took: the fit behind ``static.json``, and how far off it is.

Events of a network are the sum over its kernels; numbers of events for each thing that they follow from are found by
non-negative least squares of the relative error, in which what is far off weighs less (Huber).

Shapes: R rows of the table, P pairs of a kernel and what its events follow from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear, nnls

from pipeline.estimating.features import MISSES, Footprint, Tile, follows, instructions_from, kernel_of, misses_from
from pipeline.estimating.fit import EVENTS, Fit, estimate_of
from pipeline.estimating.layers_table import Counted
from pipeline.estimating.static import INFERENCE, Costs, Errors, costs
from pipeline.estimating.work import PRODUCTS

TILES = tuple(
    Tile(rows=rows, columns=columns, depth=depth)
    for rows, columns in (
        (1, 8),
        (2, 8),
        (4, 8),
        (6, 8),
        (1, 16),
        (4, 16),
        (6, 16),
        (8, 4),
        (16, 2),
        (16, 4),
        (16, 6),
        (8, 8),
    )
    for depth in (1, 4, 8)
)
_SMALL = 0.01  # of all instructions: fewer events of a kind are counted as so many when errors are weighed
_OUTLIER, _ROUNDS = 0.1, 6
_MOST_MISSES = 1.0  # of one line, each time that it is read
_COVERED = 0.9  # share of networks that lie inside the error bar

Floats = NDArray[np.float64]
Tiles = Mapping[str, Mapping[bool, Tile]]  # processor → whether integers → tile


def fitted_costs(rows: Sequence[Counted], tiles: Tiles) -> dict[str, Costs]:
    """Fit the rows of one runtime; processor → what kernels take there."""
    events: dict[str, dict[str, dict[str, dict[str, float]]]] = {cpu: {} for cpu in tiles}
    for misses in (False, True):
        pairs, sizes = _sizes(rows, tiles, misses=misses)
        for kind in EVENTS:
            if (kind in MISSES) != misses:
                continue
            most = np.array([_most(name) if misses else np.inf for _, _, name in pairs])
            could = np.array([follows(kind, kernel, name) for kernel, _, name in pairs])
            numbers = np.zeros(len(pairs))
            numbers[could] = _solved(sizes[:, could], *_wanted(rows, kind), most=most[could])
            for (kernel, cpu, name), number in zip(pairs, numbers, strict=True):
                for own in (cpu,) if cpu else tiles:
                    found = events[own].setdefault(kernel, {}).setdefault(kind, {})
                    if number > 0:
                        found[name] = float(f"{number:.4g}")
    return {cpu: Costs(tiles=tiles[cpu], events=events[cpu]) for cpu in tiles}


def best_tiles(rows: Sequence[Counted]) -> Tiles:
    """Return processor → tiles of floats and of integers, with which multiplications and loads are met best."""
    found: dict[str, Mapping[bool, Tile]] = {}
    for cpu in dict.fromkeys(row.cpu for row in rows):
        own = [row for row in rows if row.cpu == cpu]
        floats = [row for row in rows if row.precision == "fp32" and (row.cpu == cpu or row.runtime == "onnxruntime")]
        integers = [row for row in own if row.precision == "int8"]
        best = min(TILES, key=lambda tile: _badness(floats, tile, tile))
        found[cpu] = {False: best, True: min(TILES, key=lambda tile: _badness(integers, best, tile))}
    return found


def _badness(rows: Sequence[Counted], floats: Tile, integers: Tile) -> float:
    tiles = {row.cpu: {False: floats, True: integers} for row in rows}
    _, sizes = _sizes(rows, tiles, misses=False)
    total = 0.0
    for kind in ("multiply", "load"):
        wanted, weights = _wanted(rows, kind)
        numbers = _solved(sizes, wanted, weights, rounds=2)
        total += float(np.abs((sizes @ numbers - wanted) * weights).mean())
    return total


def _sizes(rows: Sequence[Counted], tiles: Tiles, *, misses: bool) -> tuple[tuple[tuple[str, str, str], ...], Floats]:
    """Return kernels, processors and what their events follow from, and how much of each there is, (R, P).

    Products are other instructions on each processor, but those of floats in ONNX Runtime; all else is the same: "".
    """
    sums: list[dict[tuple[str, str, str], float]] = []
    for row in rows:
        footprint, own = Footprint.of(row.works), dict[tuple[str, str, str], float]()
        for work in (*row.works, INFERENCE):
            tile = tiles[row.cpu][work.integer]
            found = misses_from(work, tile, footprint) if misses else instructions_from(work, tile)
            kernel = f"{kernel_of(work)}{8 if work.integer else ''}"
            own_kernel = work.kernel in PRODUCTS and (work.integer or row.runtime != "onnxruntime")
            cpu = row.cpu if own_kernel else ""
            for name, size in found.items():
                own[kernel, cpu, name] = own.get((kernel, cpu, name), 0.0) + size
        sums.append(own)
    pairs = tuple(dict.fromkeys(pair for own in sums for pair in own))
    return pairs, np.array([[own.get(pair, 0.0) for pair in pairs] for own in sums])


def _wanted(rows: Sequence[Counted], kind: str) -> tuple[Floats, Floats]:
    """Return the events of a kind, (R,), and what an event too many weighs."""
    wanted = np.array([row.events[kind] for row in rows])
    return wanted, 1 / (wanted + _SMALL * np.array([row.instructions for row in rows]))


def _most(name: str) -> float:
    """Return how many misses there can be for each line: what is drawn says little of the largest networks."""
    return np.inf if name in ("one", "tiles") else _MOST_MISSES


def _solved(
    sizes: Floats, wanted: Floats, weights: Floats, *, rounds: int = _ROUNDS, most: Floats | None = None
) -> Floats:
    """Return the numbers (P,), none above ``most``, with which sizes (R, P) come to what is wanted (R,)."""
    relative, target = sizes * weights[:, None], wanted * weights
    largest = relative.max(axis=0)
    largest = np.where(largest > 0, largest, 1.0)
    scaled, less = relative / largest, np.ones(len(relative))
    numbers = np.zeros(relative.shape[1])
    for _ in range(rounds):
        _, upper = np.linalg.qr(np.column_stack([scaled, target]) * less[:, None])  # (P + 1, P + 1): same problem
        numbers, _ = nnls(upper[:, :-1], upper[:, -1])
        if most is not None and (numbers > most * largest).any():
            numbers = lsq_linear(upper[:, :-1], upper[:, -1], (0, most * largest), method="bvls").x
        off = np.abs(scaled @ numbers - target)
        less = np.sqrt(np.minimum(1.0, _OUTLIER / np.maximum(off, 1e-9)))
    found: Floats = numbers / largest
    return found


# ── how far off ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Off:
    """How far the model is off for one counted network."""

    row: Counted
    instructions: float  # modelled / counted - 1
    time: float  # likewise, of the time that follows from either


def errors_of(found: Sequence[Off]) -> Errors:
    """Sum up how far off times are."""
    times = np.array([each.time for each in found])
    ratios = np.abs(np.log1p(times))
    return Errors(median=float(np.median(np.abs(times))), bar=float(np.exp(np.quantile(ratios, _COVERED))))


def off(
    rows: Sequence[Counted], fits: Mapping[str, Fit], model: Mapping[tuple[str, str], Costs] | None = None
) -> tuple[Off, ...]:
    """Return how far off rows are; ``fits``: processor → what events take there."""
    found = []
    for row in rows:
        own = model.get((row.runtime, row.cpu)) if model else costs(row.runtime, row.cpu)
        if own is None:
            continue
        events = dict(zip(EVENTS, own.of((*row.works, INFERENCE)).sum(axis=0).tolist(), strict=True))
        fit = fits[row.cpu]
        time = estimate_of(fit, events, clock_mhz=fit.clock_mhz, error_bar=1.0).value
        counted = estimate_of(fit, row.events, clock_mhz=fit.clock_mhz, error_bar=1.0).value
        instructions = sum(number for kind, number in events.items() if kind not in MISSES)
        really = sum(number for kind, number in row.events.items() if kind not in MISSES)
        found.append(Off(row=row, instructions=instructions / really - 1, time=time / counted - 1))
    return tuple(found)
