"""The figures of the report, each an ``<svg>`` element.  K classes, R rounds of a latency measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from pipeline.artifacts import Comparison, Epoch, PruneStep, TransferPoint
from pipeline.report.svg import BAD, FLOAT, FONT_PT, GOOD, INK, INT8, MUTED, RULE, drawing, figure, quiet_axes, to_svg

CELLS_WITH_NUMBERS = 16  # more classes than this: the matrix is a picture without numbers
_LONGEST_LABEL = 10  # characters of a class name beside a matrix
_STRONGEST = 0.62  # opacity of a full cell: its number stays readable in light and dark
_ECDF_POINTS = 200
_NARROWEST = 0.17  # share of the width that the shortest stage gets
_MANY_EPOCHS = 40  # beyond this the dots of single epochs run together


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The epochs of one stage, in order."""

    name: str
    epochs: tuple[Epoch, ...]


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def learning_curves(stages: Sequence[Stage], name: str = "curves") -> Markup:
    """Draw validation accuracy over training loss, one column per stage; a short stage gets room to be read."""
    with drawing():
        drawn = figure(270)
        total = sum(len(stage.epochs) for stage in stages)
        widths = [max(len(stage.epochs), _NARROWEST * total) for stage in stages]
        grid = drawn.subplots(2, len(stages), sharey="row", squeeze=False, height_ratios=(3, 2), width_ratios=widths)
        for (accuracy, loss), stage in zip(grid.T, stages, strict=True):
            x = np.arange(1, len(stage.epochs) + 1)
            colour = INT8 if stage.name.startswith(("quantize", "int8")) else FLOAT
            dots = "-" if len(x) > _MANY_EPOCHS else ".-"
            accuracy.plot(x, [100 * epoch.val_accuracy for epoch in stage.epochs], dots, color=colour)
            loss.plot(x, [epoch.train_loss for epoch in stage.epochs], dots, color=MUTED)
            accuracy.set_title(stage.name, loc="left", fontsize=FONT_PT - 1, color=INK)
            for axes in (accuracy, loss):
                axes.grid(visible=False, axis="x")
                axes.set_xlim(0.5, len(x) + 0.5)
                axes.set_xticks(sorted({1, len(x)}) if axes is loss else [])
                axes.spines["left"].set_visible(stage is stages[0])
                quiet_axes(axes)
        _accuracy_range(grid[0, 0], [100 * epoch.val_accuracy for stage in stages for epoch in stage.epochs])
        grid[0, 0].set_ylabel("validation accuracy, %")
        grid[1, 0].set_ylabel("training loss")
        grid[1, 0].set_ylim(bottom=0)
        drawn.supxlabel("epoch of the stage", fontsize=FONT_PT, color=MUTED)
        return to_svg(drawn, name, "Validation accuracy and training loss per epoch")


def _accuracy_range(axes: Axes, values_percent: list[float]) -> None:
    """Leave out the first steep epochs below: they would press everything of interest against the upper edge."""
    low, high = float(np.quantile(values_percent, 0.1)), max(values_percent)
    room = max(high - low, 1.0) * 0.15
    axes.set_ylim(max(low - room, 0), min(high + room, 100.4))


def transfer(points: Sequence[TransferPoint], name: str = "transfer") -> Markup:
    """Draw test accuracy over labels per class, transferred and from scratch; the last place is for all labels."""
    with drawing():
        drawn = figure(220)
        axes = drawn.subplots()
        x = np.arange(len(points))
        for values, colour, label, marker in (
            ([100 * each.transferred for each in points], FLOAT, "transferred", "o"),
            ([100 * each.from_scratch for each in points], MUTED, "from scratch", "s"),
        ):
            axes.plot(x, values, color=colour, label=label, marker=marker)
        axes.set_xticks(x, ["all" if each.labels_per_class is None else f"{each.labels_per_class}" for each in points])
        axes.set_xlim(-0.3, len(points) - 0.7)
        axes.set_xlabel("labels per class")
        axes.set_ylabel("test accuracy, %")
        axes.legend(loc="lower right")
        quiet_axes(axes)
        return to_svg(drawn, name, "Test accuracy, transferred against from scratch")


def pruning(steps: Sequence[PruneStep], name: str = "pruning") -> Markup:
    """Draw MACs and latency after each step as shares of the start; undone steps are hollow and lead nowhere."""
    with drawing():
        drawn = figure(220)
        axes = drawn.subplots()
        for colour, label, offset, marker in ((MUTED, "MACs", -0.05, "s"), (FLOAT, "latency", 0.05, "o")):
            share, kept_x = 1.0, 0
            axes.plot([], [], color=colour, marker=marker, label=label)
            axes.plot(offset, 100, marker, color=colour)
            for step in steps:
                ratio, errors = _step_ratio(step, label)
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
        axes.set_xticks(range(len(steps) + 1), ["start", *(f"step {step.index}" for step in steps)])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("% of the start")
        axes.legend(loc="lower left")
        quiet_axes(axes)
        return to_svg(drawn, name, "MACs and latency after each pruning step")


def _step_ratio(step: PruneStep, label: str) -> tuple[float, tuple[float, float] | None]:
    """Return the ratio of one step and, for a latency, how far its interval reaches down and up."""
    if label == "MACs":
        return step.macs_after / (step.macs_before or 1), None
    ratio = step.latency_ratio
    return ratio, (max(ratio - step.latency_ratio_low, 0), max(step.latency_ratio_high - ratio, 0))


# ── float against int8 ──────────────────────────────────────────────────────────────────────────────────────────────


def difference(found: Comparison, margin_pp: float | None, name: str) -> Markup:
    """Draw the difference int8 - float with its interval, zero, and the loss that is allowed."""
    with drawing():
        drawn = figure(92)
        axes = drawn.subplots()
        reach = 1.15 * max(abs(found.low_pp), abs(found.high_pp), margin_pp or 0, 0.1)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-1, 1)
        axes.axvline(0, color=MUTED, linewidth=1)
        if margin_pp is not None:
            axes.axvspan(-reach, -margin_pp, color=BAD, alpha=0.14, linewidth=0)
            axes.axvline(-margin_pp, color=BAD, linewidth=1, linestyle="--")
            left = margin_pp < reach / 2  # the text goes where there is more room
            axes.annotate(
                "margin",
                (-margin_pp, 1),
                xytext=(-4 if left else 4, -2),
                textcoords="offset points",
                ha="right" if left else "left",
                va="top",
                color=BAD,
                fontsize=FONT_PT - 1,
            )
        axes.plot([found.low_pp, found.high_pp], [-0.15, -0.15], color=INT8, linewidth=3, solid_capstyle="butt")
        axes.plot(found.difference_pp, -0.15, "o", color=INT8, markersize=8)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.set_xlabel("int8 − float, percentage points")
        quiet_axes(axes)
        return to_svg(drawn, name, "Difference in accuracy with its 95 % interval")


# ── confusion matrices ──────────────────────────────────────────────────────────────────────────────────────────────


def confusion(counts: NDArray[np.int64], class_names: Sequence[str], name: str, colour: str = FLOAT) -> Markup:
    """Draw counts (K, K), true class down, predicted across; cells are shaded by their share of the true class."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # (K, K)
    # errors are few: the square root lets one in a hundred be seen
    return _matrix(counts, np.sqrt(shares), np.full((*shares.shape, 3), to_rgb(colour)), class_names, name)


def confusion_difference(change: NDArray[np.int64], class_names: Sequence[str], name: str) -> Markup:
    """Draw int8 minus float (K, K): green is better (more on the diagonal, fewer beside it), red is worse."""
    better = np.where(np.eye(len(change), dtype=bool), change > 0, change < 0)
    strength = np.abs(change) / max(np.abs(change).max(), 1)  # (K, K)
    shade = np.where(change != 0, 0.25 + 0.75 * strength, 0.0)
    return _matrix(change, shade, np.where(better[..., None], to_rgb(GOOD), to_rgb(BAD)), class_names, name)


def _matrix(
    numbers: NDArray[np.int64],
    shade: NDArray[np.float64],
    colours: NDArray[np.float64],
    names: Sequence[str],
    name: str,
) -> Markup:
    classes = len(numbers)
    with drawing():
        drawn = figure(330)
        axes = drawn.subplots()
        axes.grid(visible=False)
        if classes <= CELLS_WITH_NUMBERS:
            _numbered_cells(axes, numbers, shade, colours)
        else:
            alpha = np.where(numbers != 0, np.maximum(shade, 0.3), 0.0)  # a single error must be seen at two pixels
            axes.imshow(np.dstack([colours, alpha]), interpolation="nearest")
        axes.set_xlim(-0.5, classes - 0.5)
        axes.set_ylim(classes - 0.5, -0.5)
        axes.set_aspect("equal")
        _class_ticks(axes, names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for spine in axes.spines.values():
            spine.set_visible(classes > CELLS_WITH_NUMBERS)
        return to_svg(drawn, name, "Confusion matrix: true class down, predicted class across")


def _numbered_cells(
    axes: Axes, numbers: NDArray[np.int64], shade: NDArray[np.float64], colours: NDArray[np.float64]
) -> None:
    font = min(FONT_PT, 150 / len(numbers))
    signed = bool((numbers < 0).any())
    for (row, column), number in np.ndenumerate(numbers):
        place = (column - 0.46, row - 0.46)
        alpha = _STRONGEST * float(shade[row, column])
        axes.add_patch(Rectangle(place, 0.92, 0.92, facecolor=tuple(colours[row, column]), alpha=alpha, linewidth=0))
        text = f"{number:+d}".replace("-", "−") if signed and number else f"{number}" if number else "·"
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center_baseline",
            fontsize=font,
            color=INK if number else RULE,
        )


def _class_ticks(axes: Axes, names: Sequence[str]) -> None:
    classes = len(names)
    shown = range(0, classes, max(1, -(-classes // 20)))
    numbered = classes > CELLS_WITH_NUMBERS
    labels = [str(each) if numbered else short(names[each]) for each in shown]
    upright = numbered or max(len(label) for label in labels) <= 2
    axes.set_xticks(list(shown), labels, rotation=0 if upright and classes <= 40 else 90)
    axes.set_yticks(list(shown), labels)
    axes.xaxis.set_minor_locator(NullLocator())
    quiet_axes(axes)


def short(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Cut a class name so that it fits beside a matrix."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


# ── latency ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def latencies(samples_ms: Sequence[tuple[str, NDArray[np.float64]]], name: str) -> Markup:
    """Draw the share of inferences done after so many milliseconds; each entry: a title and times (R,).

    A title with ``int8`` in it takes the int8 colour, the first runtime full lines, the others dashed ones.
    """
    with drawing():
        drawn = figure(230)
        axes = drawn.subplots()
        seen = {"float": 0, "int8": 0}
        for title, times in samples_ms:
            kind = "int8" if "int8" in title else "float"
            x, y = _ecdf(times)
            style = ("-", "--", ":", "-.")[min(seen[kind], 3)]
            axes.step(x, 100 * y, style, where="post", color=INT8 if kind == "int8" else FLOAT, label=title)
            seen[kind] += 1
        for share in (50, 95):
            axes.axhline(share, color=RULE, linewidth=1)
        axes.set_yticks([0, 50, 95, 100], ["0", "p50", "p95", ""])
        axes.set_ylim(0, 101)
        # runtimes differ by factors; a busy machine's worst moments lie outside, to the right
        axes.set_xscale("log")
        lowest = min(float(times.min()) for _, times in samples_ms)
        highest = max(float(np.quantile(times, 0.95)) for _, times in samples_ms)
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
