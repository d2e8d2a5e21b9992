"""The figures that show a whole run at once: stage by stage, and all files by metric, latency and size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pipeline.artifacts.evidence import Metric
from pipeline.report import words
from pipeline.report.svg import FLOAT, FONT_PT, INK, INT8, MUTED, drawing, figure, quiet_axes, to_svg
from pipeline.visible import shown_text

_KIB = 1024
_PANEL_PT = 78.0
_LABEL_AWAY_PT, _ROOM = 10.0, 0.35  # of a number from its dot; above and below all dots, as a share of their span
_LARGEST_DOT_PT2, _SMALLEST_DOT_PT2 = 420.0, 16.0  # areas of the largest file and of one without bytes
_CHARACTER_PT = 0.56 * (FONT_PT - 1)  # the page's font may be wider than matplotlib's
_LINE_PT = 1.25 * (FONT_PT - 1)
_LABEL_STEPS_PT = tuple(range(0, 160, 6))  # how far a label may move from its dot

Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True, kw_only=True)
class Point:
    """A network after one stage, or one file: what it reaches, what it takes; None: not measured."""

    title: str
    int8: bool
    value: float  # the task's metric, as low and high: its 95 % interval
    low: float
    high: float
    size_bytes: int | None
    latency_ms: float | None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One number of every stage."""

    title: str
    values: tuple[float, ...]
    texts: tuple[str, ...]
    errors: tuple[tuple[float, float], ...]  # how far the interval reaches down and up
    from_zero: bool


# ── stage by stage ──────────────────────────────────────────────────────────────────────────────────────────────────


def stage_by_stage(points: Sequence[Point], metric: Metric, name: str) -> Markup:
    """Draw metric, size and latency after each stage, as far as all stages have them, one below the other."""
    panels = list(_panels(points, metric))
    with drawing():
        drawn = figure(_PANEL_PT * len(panels) + 24)
        grid = drawn.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(grid, panels, strict=True):
            _draw_panel(axes, panel, points)
        grid[-1].set_xticks(range(len(points)), [shown_text(point.title) for point in points])
        grid[-1].tick_params(axis="x", labelcolor=INK)
        names = ", ".join(panel.title for panel in panels)
        return to_svg(drawn, name, f"Stage by stage: {names}", details=_told(points, panels))


def _panels(points: Sequence[Point], metric: Metric) -> Iterator[_Panel]:
    factor = 100.0 if metric.unit == "share" else 1.0
    yield _Panel(
        title=words.axis(metric),
        values=tuple(factor * point.value for point in points),
        texts=tuple(words.metric_value(metric, point.value) for point in points),
        errors=tuple((factor * (point.value - point.low), factor * (point.high - point.value)) for point in points),
        from_zero=False,
    )
    sizes = [point.size_bytes for point in points if point.size_bytes is not None]
    if len(sizes) == len(points):
        yield _Panel(
            title="size, KiB",
            values=tuple(size / _KIB for size in sizes),
            texts=tuple(map(words.size, sizes)),
            errors=tuple((0.0, 0.0) for _ in points),
            from_zero=True,
        )
    times = [point.latency_ms for point in points if point.latency_ms is not None]
    if len(times) == len(points):
        yield _Panel(
            title="latency p50, ms",
            values=tuple(times),
            texts=tuple(f"{words.milliseconds(time)} ms" for time in times),
            errors=tuple(_reach(point) for point in points),
            from_zero=True,
        )


def _reach(point: Point) -> tuple[float, float]:
    """Return how far the interval of the latency reaches down and up; 0 where there is none."""
    ms = _ms(point)
    return ms - (point.latency_low_ms or ms), (point.latency_high_ms or ms) - ms


def _draw_panel(axes: Axes, panel: _Panel, points: Sequence[Point]) -> None:
    x = np.arange(len(points))
    axes.plot(x, panel.values, color=MUTED, linewidth=1)
    for place, (value, text, point) in enumerate(zip(panel.values, panel.texts, points, strict=True)):
        colour = INT8 if point.int8 else FLOAT
        down, up = panel.errors[place]
        axes.plot([place, place], [value - max(down, 0), value + max(up, 0)], color=colour, linewidth=1)
        axes.plot(place, value, "o", color=colour, markersize=6)
        axes.annotate(
            text,
            (place, value),
            xytext=(0, _LABEL_AWAY_PT if _stands_free(panel.values, place) else -_LABEL_AWAY_PT),
            textcoords="offset points",
            ha="center",
            va="center",
            color=INK,
            fontsize=FONT_PT - 1,
        )
    axes.set_title(panel.title, loc="left", fontsize=FONT_PT - 1, color=MUTED, pad=3)
    axes.set_xlim(-0.35, len(points) - 0.65)
    low, high = axes.get_ylim()
    axes.set_ylim(0 if panel.from_zero else low - _ROOM * (high - low), high + _ROOM * (high - low))  # for the numbers
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_locator(MaxNLocator(3))
    quiet_axes(axes)


def _stands_free(values: Sequence[float], place: int) -> bool:
    """Tell whether a number above its dot keeps clear of the line: it does not where all neighbours lie higher."""
    return min((values[each] for each in (place - 1, place + 1) if 0 <= each < len(values)), default=0) <= values[place]


def _told(points: Sequence[Point], panels: Sequence[_Panel]) -> str:
    """Return the numbers of the figure as a sentence, for those who do not see it."""
    columns = zip(*(panel.texts for panel in panels), strict=True)
    return "; ".join(f"{point.title}: {', '.join(texts)}" for point, texts in zip(points, columns, strict=True))


# ── all files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def all_files(points: Sequence[Point], metric: Metric, name: str) -> Markup:
    """Draw the metric over the latency, each file a dot whose area is its size; every point has both."""
    factor = 100.0 if metric.unit == "share" else 1.0
    times = [_ms(point) for point in points]
    largest = max((point.size_bytes or 0 for point in points), default=0) or 1
    with drawing():
        drawn = figure(270)
        drawn.set_layout_engine("none")  # labels are placed by where the dots lie, which must not move afterwards
        axes = drawn.add_axes((0.15, 0.16, 0.82, 0.8))
        axes.set_xscale("log")
        axes.set_xlim(min(times) / 1.5, max(times) * 3)
        _set_heights(axes, metric, points, factor)
        for point in sorted(points, key=lambda each: -(each.size_bytes or 0)):  # small ones in front
            _draw_dot(axes, point, factor, largest)
        _label_dots(axes, points, factor, largest)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(times) < 30 * min(times) else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("latency p50, ms (logarithmic)")
        axes.set_ylabel(words.axis(metric))
        quiet_axes(axes)
        told = "; ".join(_file_told(point, metric) for point in points)
        return to_svg(drawn, name, f"All files: {metric.name}, latency and size", details=told)


def _set_heights(axes: Axes, metric: Metric, points: Sequence[Point], factor: float) -> None:
    low, high = factor * min(point.low for point in points), factor * max(point.high for point in points)
    room = 0.15 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)
    if metric.unit == "share":
        axes.set_yticks([tick for tick in MaxNLocator(5).tick_values(low, high) if tick <= 100])
        axes.set_ylim(low - room, high + room)


def _draw_dot(axes: Axes, point: Point, factor: float, largest: int) -> None:
    colour = INT8 if point.int8 else FLOAT
    low, high = factor * point.low, factor * point.high
    axes.plot([_ms(point), _ms(point)], [low, high], color=colour, linewidth=1, alpha=0.35)
    axes.scatter(_ms(point), factor * point.value, s=_area(point, largest), color=colour, alpha=0.75, linewidth=0)


def _ms(point: Point) -> float:
    assert point.latency_ms is not None  # noqa: S101  files without a latency have no place here
    return point.latency_ms


def _area(point: Point, largest: int) -> float:
    """Return the area of a dot in square points: with its file's bytes it grows in proportion."""
    return max(_LARGEST_DOT_PT2 * (point.size_bytes or 0) / largest, _SMALLEST_DOT_PT2)


def _file_told(point: Point, metric: Metric) -> str:
    reached, took = words.metric_value(metric, point.value), words.milliseconds(point.latency_ms)
    return f"{point.title}: {reached}, {took} ms, {words.size(point.size_bytes)}"


def _label_dots(axes: Axes, points: Sequence[Point], factor: float, largest: int) -> None:
    """Write each file's name and size near its dot, where it covers no other label, no dot and no frame."""
    frame = _in_points(axes, np.array([[*axes.get_xlim()], [*axes.get_ylim()]]).T)  # (2, 2): corners
    places = _in_points(axes, np.array([[_ms(point), factor * point.value] for point in points]))
    radii = [float(np.sqrt(_area(point, largest) / np.pi)) for point in points]
    taken: list[Box] = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(places, radii, strict=True)]
    for place in sorted(range(len(points)), key=lambda each: -places[each][1]):
        text = f"{points[place].title}, {words.size(points[place].size_bytes)}"
        box = _free_box(tuple(places[place]), radii[place], text, taken, frame)
        taken.append(box)
        _write_label(axes, text, box, tuple(places[place]), radii[place])


def _in_points(axes: Axes, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[list[float]]:
    figure_of_it = axes.get_figure()
    assert isinstance(figure_of_it, Figure)  # noqa: S101  no figure inside another one here
    return (axes.transData.transform(values) * 72 / figure_of_it.dpi).tolist()  # type: ignore[no-any-return]


def _free_box(
    dot: tuple[float, ...], radius: float, text: str, taken: Sequence[Box], frame: Sequence[Sequence[float]]
) -> Box:
    """Return the nearest free place for a text, or the last one tried where nothing is free."""
    width, height = _CHARACTER_PT * len(text), _LINE_PT
    (left, bottom), (right, top) = frame
    box: Box = (0, 0, 0, 0)
    for step, side in itertools.product(_LABEL_STEPS_PT, (0, 1, -1)):
        if step and not side:
            continue
        for to_the_right in (True, False):
            x = dot[0] + radius + 4 if to_the_right else dot[0] - radius - 4 - width
            x = min(max(x, left + 2), right - width - 2) if step > radius else x
            y = dot[1] + side * step - height / 2
            box = (x, y, x + width, y + height)
            inside = left <= box[0] and box[2] <= right and bottom <= box[1] and box[3] <= top
            if inside and not any(_overlap(box, other) for other in taken):
                return box
    return box


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _write_label(axes: Axes, text: str, box: Box, dot: tuple[float, ...], radius: float) -> None:
    x, y = box[0] - dot[0], (box[1] + box[3]) / 2 - dot[1]
    far = abs(y) > radius + 2
    axes.annotate(
        text,
        (dot[0], dot[1]),
        xycoords="figure points",
        xytext=(x, y),
        textcoords="offset points",
        ha="left",
        va="center",
        color=INK,
        fontsize=FONT_PT - 1,
        arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 1, "shrinkB": radius}
        if far
        else None,
    )
