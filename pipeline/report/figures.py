"""The figures of the report, each an ``<svg>`` element.  R points of a line, or inferences of a latency measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Comparison, Metric
from pipeline.artifacts.training import Epoch, PruneStep, TransferPoint
from pipeline.report import words
from pipeline.report.svg import BAD, FLOAT, FONT_PT, GOOD, INK, INT8, MUTED, RULE, drawing, figure, quiet_axes, to_svg

CELLS_WITH_NUMBERS = 16  # more classes than this: the matrix is a picture without numbers
_LONGEST_LABEL = 10  # characters of a class name beside a matrix
_STRONGEST = 0.62  # opacity of a full cell: its number stays readable in light and dark
_ECDF_POINTS = 200
_MOST_POINTS = 600  # of a line or a cloud: more would only make the page heavy
_SERIES = (FLOAT, INT8, GOOD, MUTED)
_NARROWEST = 0.17  # share of the width that the shortest stage gets
_MANY_EPOCHS = 40  # beyond this the dots of single epochs run together


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The epochs of one stage, in order."""

    name: str
    epochs: tuple[Epoch, ...]
    int8: bool = False  # it trains the fake-quantized network


@dataclass(frozen=True, kw_only=True, eq=False)
class Times:
    """Single-inference times (R,) of one way of running."""

    title: str
    int8: bool
    samples_ms: NDArray[np.float64]


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def learning_curves(curves: Sequence[Curve], metric: Metric, name: str = "curves") -> Markup:
    """Draw the validation metric over training loss, one column per stage; a short stage gets room to be read."""
    factor = _display_factor(metric)
    with drawing():
        drawn = figure(270)
        total = sum(len(curve.epochs) for curve in curves)
        widths = [max(len(curve.epochs), _NARROWEST * total) for curve in curves]
        grid = drawn.subplots(2, len(curves), sharey="row", squeeze=False, height_ratios=(3, 2), width_ratios=widths)
        for (upper, loss), curve in zip(grid.T, curves, strict=True):
            x = np.arange(1, len(curve.epochs) + 1)
            dots = "-" if len(x) > _MANY_EPOCHS else ".-"
            values = [factor * epoch.val_metric for epoch in curve.epochs]
            upper.plot(x, values, dots, color=INT8 if curve.int8 else FLOAT)
            loss.plot(x, [epoch.train_loss for epoch in curve.epochs], dots, color=MUTED)
            upper.set_title(curve.name, loc="left", fontsize=FONT_PT - 1, color=INK)
            for axes in (upper, loss):
                axes.grid(visible=False, axis="x")
                axes.set_xlim(0.5, len(x) + 0.5)
                axes.set_xticks(sorted({1, len(x)}) if axes is loss else [])
                axes.spines["left"].set_visible(curve is curves[0])
                quiet_axes(axes)
        _metric_range(grid[0, 0], metric, [factor * epoch.val_metric for curve in curves for epoch in curve.epochs])
        grid[0, 0].set_ylabel(f"validation {words.axis(metric)}")
        grid[1, 0].set_ylabel("training loss")
        grid[1, 0].set_ylim(bottom=0)
        drawn.supxlabel("epoch of the stage", fontsize=FONT_PT, color=MUTED)
        return to_svg(drawn, name, f"Validation {metric.name} and training loss per epoch")


def _display_factor(metric: Metric) -> float:
    return 100.0 if metric.unit == "share" else 1.0


def _metric_range(axes: Axes, metric: Metric, values: list[float]) -> None:
    """Leave out the first steep epochs: they would press everything of interest against the other edge."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return
    ends = (0.1, 1.0) if metric.higher_is_better else (0.0, 0.9)
    low, high = (float(each) for each in np.quantile(known, ends))
    smallest = 1.0 if metric.unit == "share" else max(0.01 * abs(high), 1e-9)
    room = max(high - low, smallest) * 0.15
    if metric.unit == "share":
        axes.set_ylim(max(low - room, 0), min(high + room, 100.4))
    else:
        axes.set_ylim(low - room, high + room)


def transfer(points: Sequence[TransferPoint], metric: Metric, name: str = "transfer") -> Markup:
    """Draw the test metric over labels per class, transferred and from scratch; the last place is for all labels."""
    factor = _display_factor(metric)
    with drawing():
        drawn = figure(220)
        axes = drawn.subplots()
        x = np.arange(len(points))
        for values, colour, label, marker in (
            ([factor * each.transferred for each in points], FLOAT, "transferred", "o"),
            ([factor * each.from_scratch for each in points], MUTED, "from scratch", "s"),
        ):
            axes.plot(x, values, color=colour, label=label, marker=marker)
        axes.set_xticks(x, ["all" if each.labels_per_class is None else f"{each.labels_per_class}" for each in points])
        axes.set_xlim(-0.3, len(points) - 0.7)
        axes.set_xlabel("labels per class")
        axes.set_ylabel(f"test {words.axis(metric)}")
        axes.legend(loc="best")
        quiet_axes(axes)
        return to_svg(drawn, name, f"Test {metric.name}, transferred against from scratch")


def pruning(steps: Sequence[PruneStep], name: str = "pruning") -> Markup:
    """Draw MACs and latency after each step as shares of the start; undone steps are hollow and lead nowhere."""
    timed = any(step.paid and step.paid.of == "latency" for step in steps)
    with drawing():
        drawn = figure(220)
        axes = drawn.subplots()
        _step_line(axes, steps, latency=False)
        if timed:
            _step_line(axes, steps, latency=True)
        axes.set_xticks(range(len(steps) + 1), ["start", *(f"step {step.index}" for step in steps)])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("% of the start")
        axes.legend(loc="lower left")
        quiet_axes(axes)
        return to_svg(drawn, name, f"MACs{' and latency' if timed else ''} after each pruning step")


def _step_line(axes: Axes, steps: Sequence[PruneStep], *, latency: bool) -> None:
    colour, label, offset, marker = (FLOAT, "latency", 0.05, "o") if latency else (MUTED, "MACs", -0.05, "s")
    share, kept_x = 1.0, 0
    axes.plot([], [], color=colour, marker=marker, label=label)
    axes.plot(offset, 100, marker, color=colour)
    for step in steps:
        found = _step_ratio(step, latency=latency)
        if found is None:
            continue
        ratio, errors = found
        value = 100 * share * ratio
        style = "-" if step.kept else ":"
        axes.plot([kept_x + offset, step.index + offset], [100 * share, value], style, color=colour)
        axes.errorbar(
            step.index + offset,
            value,
            yerr=[[100 * share * each] for each in errors] if errors else None,
            fmt=marker,
            color=colour,
            markerfacecolor=colour if step.kept else "none",
            elinewidth=1,
        )
        if step.kept:
            share, kept_x = share * ratio, step.index


def _step_ratio(step: PruneStep, *, latency: bool) -> tuple[float, tuple[float, float] | None] | None:
    """Return the ratio of one step and, for a latency, how far its interval reaches down and up."""
    if not latency:
        return step.macs_after / (step.macs_before or 1), None
    if step.paid is None or step.paid.of != "latency":
        return None
    ends = (max(step.paid.ratio - step.paid.low, 0), max(step.paid.high - step.paid.ratio, 0))
    return step.paid.ratio, ends if np.isfinite(ends).all() else None


# ── float against int8 ──────────────────────────────────────────────────────────────────────────────────────────────


def difference(found: Comparison, margin: float | None, metric: Metric, name: str) -> Markup:
    """Draw the difference int8 - float with its interval, zero, and the loss ``margin`` that is allowed."""
    factor = _display_factor(metric)
    value, low, high = (factor * each for each in (found.difference, found.low, found.high))
    allowed = None if margin is None else factor * (-margin if metric.higher_is_better else margin)
    with drawing():
        drawn = figure(92)
        axes = drawn.subplots()
        least = 0.1 if metric.unit == "share" else 1e-3 * max(abs(found.value_float), 1e-9)
        reach = 1.15 * max(abs(low), abs(high), abs(allowed or 0), least)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-1, 1)
        axes.axvline(0, color=MUTED, linewidth=1)
        if allowed is not None:
            _margin_line(axes, allowed, reach)
        axes.plot([low, high], [-0.15, -0.15], color=INT8, linewidth=3, solid_capstyle="butt")
        axes.plot(value, -0.15, "o", color=INT8, markersize=8)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        unit = "percentage points" if metric.unit == "share" else words.axis(metric)
        axes.set_xlabel(f"int8 − float, {unit}")
        quiet_axes(axes)
        return to_svg(drawn, name, f"Difference in {metric.name} with its 95 % interval")


def _margin_line(axes: Axes, allowed: float, reach: float) -> None:
    """Shade what lies beyond the margin: below it where higher is better, above it where lower is."""
    axes.axvspan(-reach if allowed <= 0 else reach, allowed, color=BAD, alpha=0.14, linewidth=0)
    axes.axvline(allowed, color=BAD, linewidth=1, linestyle="--")
    on_left = allowed > -reach / 2 if allowed <= 0 else allowed > reach / 2  # the text goes where there is more room
    axes.annotate(
        "margin",
        (allowed, 1),
        xytext=(-4 if on_left else 4, -2),
        textcoords="offset points",
        ha="right" if on_left else "left",
        va="top",
        color=BAD,
        fontsize=FONT_PT - 1,
    )


# ── matrices and lines ──────────────────────────────────────────────────────────────────────────────────────────────


def matrix(
    counts: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    name: str,
    *,
    signed: bool = False,
    colour: str = FLOAT,
) -> Markup:
    """Draw counts (rows, columns), shaded by their share of the row.

    ``signed``: a difference, green where it is better and red where it is worse: in a square matrix (a confusion
    matrix) more is better on the diagonal and worse beside it, elsewhere more is better.
    """
    is_square = tuple(rows) == tuple(columns)
    if signed:
        more_is_better = np.eye(len(rows), len(columns)) > 0 if is_square else np.ones(counts.shape, bool)
        better = np.where(more_is_better, counts > 0, counts < 0)
        strength = np.abs(counts) / (np.abs(counts).max() or 1)  # (rows, columns)
        shade = np.where(counts != 0, 0.25 + 0.75 * strength, 0.0)
        colours = np.where(better[..., None], to_rgb(GOOD), to_rgb(BAD))
    else:
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)  # (rows, columns)
        # errors are few: the square root lets one in a hundred be seen
        shade, colours = np.sqrt(np.clip(shares, 0, 1)), np.full((*counts.shape, 3), to_rgb(colour))
    with drawing():
        drawn = figure(330)
        axes = drawn.subplots()
        axes.grid(visible=False)
        if max(counts.shape) <= CELLS_WITH_NUMBERS:
            _numbered_cells(axes, counts, shade, colours, signed=signed)
        else:
            alpha = np.where(counts != 0, np.maximum(shade, 0.3), 0.0)  # a single error must be seen at two pixels
            axes.imshow(np.dstack([colours, alpha]), interpolation="nearest")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_aspect("equal")
        _name_ticks(axes, rows, columns)
        if is_square:
            axes.set_xlabel("predicted")
            axes.set_ylabel("true")
        for spine in axes.spines.values():
            spine.set_visible(max(counts.shape) > CELLS_WITH_NUMBERS)
        read = "true class down, predicted class across" if is_square else "rows and columns of numbers"
        return to_svg(drawn, name, f"Matrix: {read}")


def _numbered_cells(
    axes: Axes, numbers: NDArray[Any], shade: NDArray[np.float64], colours: NDArray[np.float64], *, signed: bool
) -> None:
    texts = {place: _cell_text(numbers[place], signed=signed) for place in zip(*np.nonzero(numbers), strict=True)}
    longest = max((len(text) for text in texts.values()), default=1)
    font = min(FONT_PT, 150 / max(numbers.shape), 360 / max(numbers.shape) / longest)
    for (row, column), text in texts.items():
        corner, alpha = (column - 0.46, row - 0.46), _STRONGEST * float(shade[row, column])
        axes.add_patch(Rectangle(corner, 0.92, 0.92, facecolor=tuple(colours[row, column]), alpha=alpha, linewidth=0))
        axes.text(column, row, text, ha="center", va="center_baseline", fontsize=font, color=INK)
    empty_rows, empty_columns = np.nonzero(numbers == 0)  # most cells are: as texts they would take a second to lay out
    axes.plot(empty_columns, empty_rows, ".", markersize=1.5, color=RULE)


def _cell_text(number: float, *, signed: bool) -> str:
    """Write counts below 100,000 in full, larger ones (of pixels) with a letter, shares with two digits."""
    sign = ("+" if number > 0 else "−") if signed else "−" if number < 0 else ""
    size = abs(number)
    if size != round(size):
        return f"{sign}{size:.2g}"
    return sign + (f"{size:.0f}" if size < 1e5 else words.count(size).replace(" ", ""))


def _name_ticks(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    numbered = max(len(rows), len(columns)) > CELLS_WITH_NUMBERS
    for names, set_ticks, is_x in ((columns, axes.set_xticks, True), (rows, axes.set_yticks, False)):
        places = range(0, len(names), max(1, -(-len(names) // 20)))
        labels = [str(each) if numbered else short(names[each]) for each in places]
        upright = numbered or max(len(label) for label in labels) <= 2
        set_ticks(list(places), labels, rotation=90 if is_x and not (upright and len(names) <= 40) else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    quiet_axes(axes)


def short(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Cut a class name so that it fits beside a matrix."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def lines(
    series: Sequence[tuple[str, NDArray[np.float64]]], x: str, y: str, name: str, *, dots: bool, description: str
) -> Markup:
    """Draw curves (R, 2), or points where ``dots`` says so: first in the colour of float, then in that of int8."""
    with drawing():
        drawn = figure(240)
        axes = drawn.subplots()
        for number, (title, points) in enumerate(series):
            colour = _SERIES[number % len(_SERIES)]
            thin = points[:: max(1, -(-len(points) // _MOST_POINTS))]
            if dots:
                axes.plot(thin[:, 0], thin[:, 1], "o", markersize=2.5, alpha=0.6, color=colour, label=title)
            else:
                style = ("-", "--", ":", "-.")[min(number // len(_SERIES), 3)]
                axes.plot(thin[:, 0], thin[:, 1], style, color=colour, label=title)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(series) > 1:
            drawn.legend(loc="outside upper left", ncols=2)
        quiet_axes(axes)
        return to_svg(drawn, name, description)


# ── latency ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def latencies(times: Sequence[Times], name: str) -> Markup:
    """Draw the share of inferences done after so many milliseconds; float in full lines first, then dashed ones."""
    with drawing():
        drawn = figure(230)
        axes = drawn.subplots()
        seen = {True: 0, False: 0}
        for each in times:
            x, y = _ecdf(each.samples_ms)
            style = ("-", "--", ":", "-.")[min(seen[each.int8], 3)]
            axes.step(x, 100 * y, style, where="post", color=INT8 if each.int8 else FLOAT, label=each.title)
            seen[each.int8] += 1
        for share in (50, 95):
            axes.axhline(share, color=RULE, linewidth=1)
        axes.set_yticks([0, 50, 95, 100], ["0", "p50", "p95", ""])
        axes.set_ylim(0, 101)
        # runtimes differ by factors; a busy machine's worst moments lie outside, to the right
        axes.set_xscale("log")
        lowest = min(float(each.samples_ms.min()) for each in times)
        highest = max(float(np.quantile(each.samples_ms, 0.95)) for each in times)
        axes.set_xlim(0.9 * lowest, 1.3 * highest)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest < 30 * lowest else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("one inference, ms (logarithmic)")
        drawn.legend(loc="outside upper left", ncols=2)
        quiet_axes(axes)
        return to_svg(drawn, name, "Share of inferences done after so many milliseconds")


def _ecdf(times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most ``_ECDF_POINTS`` points: thousands of rounds would only make the page heavy."""
    shares = np.linspace(0, 1, min(len(times), _ECDF_POINTS))
    return np.quantile(times, shares), shares
