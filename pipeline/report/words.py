"""Numbers and names as people read them; the same in the terminal and on the page.

A number that does not exist is ``—``, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.artifacts.evidence import Beside, Measurement, Metric
from pipeline.artifacts.files import Variant, Way
from pipeline.artifacts.outcome import Check, State

MISSING = "—"
_FORMATS = {"torch": "torch", "onnx": "ONNX", "tflite": "TFLite"}
_SHORT_PROGRAMS = {"tflite-runtime": "tflite-rt"}  # programs that are named beside the file: its format has two


def percent(share: float | None, decimals: int = 2) -> str:
    """``0.975`` → ``97.50 %``."""
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.{decimals}f} %"


def points(value_pp: float | None, *, signed: bool = False) -> str:
    """Percentage points: ``-0.2777`` → ``−0.28 pp``; never a negative zero."""
    if value_pp is None or not math.isfinite(value_pp):
        return MISSING
    rounded = round(value_pp, 2) or 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.2f} pp".replace("-", "−")


def change(metric: Metric, value: float | None, *, signed: bool = True) -> str:
    """Write a difference of two values of a metric: ``−0.28 pp`` for shares, ``+0.0021`` or ``−0.4 dB`` for others."""
    if value is None or not math.isfinite(value):
        return MISSING
    if metric.unit == "share":
        return points(100 * value, signed=signed)
    number = f"{value or 0.0:{'+' if signed and value else ''}.3g}".replace("-", "−")
    return f"{number} {metric.unit}".rstrip()


def metric_value(metric: Metric, value: float | None, decimals: int = 2) -> str:
    """Write a value of a metric: ``97.50 %``, ``0.4312``, ``31.2 dB``."""
    return MISSING if value is None else metric.text(value, decimals)


def axis(metric: Metric) -> str:
    """Name an axis: ``mIoU, %``, ``PSNR, dB``, ``RMSE``."""
    unit = "%" if metric.unit == "share" else metric.unit
    return f"{metric.name}, {unit}" if unit else metric.name


def size(count: float | None) -> str:
    """Bytes: ``29081`` → ``28.4 KiB``."""
    if count is None or not math.isfinite(count):
        return MISSING
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.2f} GiB"


def milliseconds(value_ms: float | None) -> str:
    """Three significant digits, without the unit: ``0.0214``, ``1.23``, ``123``."""
    if value_ms is None or not math.isfinite(value_ms):
        return MISSING
    decimals = 2 - (math.floor(math.log10(abs(value_ms))) if value_ms else 0)
    return f"{value_ms:.{min(max(decimals, 0), 4)}f}"


def estimated(found: Measurement, write: Callable[[float], str]) -> str:
    """Write a number, and of an estimate between what it lies: ``7.4 (5.9-9.3)``."""
    if found.place.how != "estimated" or found.low == found.high:
        return write(found.value)
    return f"{write(found.value)} ({write(found.low)}–{write(found.high)})"


def steps_apart(found: Beside) -> str:
    """Write the largest difference between two places: ``none``, ``under half a step``, ``3 steps``."""
    if found.identical == 1:
        return "none"
    if found.max_steps < 1:
        return "under half a step"
    return f"{found.max_steps:.3g} {'step' if found.max_steps == 1 else 'steps'}"


def duration(seconds: float) -> str:
    """``3.21`` → ``3.2 s``; ``125`` → ``2 min 05 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def count(number: float) -> str:
    """``1234567`` → ``1.23 M``; below 10,000 in full."""
    if number < 9999.5:
        return f"{number:,.0f}".replace(",", "\u202f")
    factor, letter = next(each for each in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if number >= 0.9995 * each[0])
    scaled = number / factor
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {letter}"


def decibels(value_db: float | None) -> str:
    """One decimal, without the unit; ``∞`` where nothing was lost."""
    if value_db is None or math.isnan(value_db):
        return MISSING
    return "∞" if value_db == math.inf else f"{value_db:.1f}"


def p_value(p: float) -> str:
    """``0.0321`` → ``= 0.032``; ``0.00001`` → ``< 0.001``; with the relation sign."""
    if not math.isfinite(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"= {p:.{2 if p >= 0.1 else 3}f}"


def quantity(value: float | None, unit: str) -> str:
    """Value and unit as a check or a measurement carries them."""
    if value is None or not math.isfinite(value):
        return MISSING
    known: dict[str, Callable[[float], str]] = {"bytes": size, "pp": points, "share": percent}
    if unit in known:
        return known[unit](value)
    number = milliseconds(value) if unit == "ms" else f"{value:.2f}" if unit == "%" else f"{value:.4g}"
    return f"{number} {unit}".rstrip().replace("-", "−")


def shape(sides: tuple[int, ...]) -> str:
    """``(32, 8, 8)`` → ``32×8×8``."""
    return "×".join(str(side) for side in sides)


def artifact_title(variant: Variant) -> str:
    """``ONNX int8``, ``torch int8``, ``ONNX float before pruning``; weights of an unusual width are named."""
    precision = "float" if variant.precision == "fp32" else variant.precision
    narrow = f" ({variant.weight_bits}-bit weights)" if variant.weight_bits not in (8, 32) else ""
    return f"{_FORMATS[variant.format]} {precision}{narrow}{' before pruning' if variant.unpruned else ''}"


def way_title(way: Way) -> str:
    """Name a way of running; the program is named where the format leaves it open: ``TFLite int8, tflite-rt``."""
    short = _SHORT_PROGRAMS.get(way.program)
    return artifact_title(way.variant) + (f", {short}" if short else "")


def full_way(way: Way) -> str:
    """``TFLite int8 in litert``."""
    title = artifact_title(way.variant)
    return title if way.program == "torch" else f"{title} in {way.program}"


def check_limit(check: Check) -> str:
    """Write a limit with its direction: ``≥ 97.00 %``, ``≤ 8.0 MiB``."""
    return f"{'≥' if check.bound == 'at least' else '≤'} {quantity(check.limit, check.unit)}"


def check_got(check: Check) -> str:
    """Write what was found, or that nothing could be measured."""
    return "not measured" if check.got is None else quantity(check.got, check.unit)


def state_sign(state: State) -> str:
    """``✓``, ``✗``, ``≈`` where chance could turn it, ``?`` where nobody knows."""
    return {"met": "✓", "missed": "✗", "uncertain": "≈", "open": "?"}[state]


def state_word(state: State) -> str:
    """Say it of all limits of a target."""
    return {
        "met": "limits met",
        "missed": "limit missed",
        "uncertain": "met, not for sure",
        "open": "a limit is open",
    }[state]


def check_sign(check: Check) -> str:
    """Return the sign of what was found: ``✗`` also where the estimate misses the limit and chance could turn it."""
    return state_sign("missed" if check.holds is False else check.state)


def check_word(check: Check) -> str:
    """``met``, ``missed``, both also ``not for sure`` where the limit lies inside the interval; ``open``."""
    if check.holds is None:
        return "open"
    word = "met" if check.holds else "missed"
    return f"{word}, not for sure" if check.state == "uncertain" else word


def check_range(check: Check) -> str:
    """Write the bounds of what was found, where they are not the value itself: ``−0.20 … 0.80 pp``."""
    if check.low is None or check.high is None or check.low == check.high:
        return ""
    low, high = quantity(check.low, check.unit), quantity(check.high, check.unit)
    unit = high.rpartition(" ")[2]
    return f"{low.removesuffix(f' {unit}')} … {high}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 input``, ``3 inputs``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
