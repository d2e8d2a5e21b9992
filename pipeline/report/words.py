"""Numbers as people read them; the same in the terminal and on the page.

A number that does not exist is ``—``, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.artifacts import Check

MISSING = "—"
ARTIFACT_TITLES = {
    "torch-fp32": "torch float",
    "torch-fake-quant": "torch fake-quant",
    "onnx-fp32": "ONNX float",
    "onnx-int8": "ONNX int8",
    "tflite-fp32": "TFLite float",
    "tflite-int8": "TFLite int8",
}


def percent(share: float | None, decimals: int = 2) -> str:
    """``0.975`` → ``97.50 %``."""
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.{decimals}f} %"


def points(value_pp: float | None, *, signed: bool = False) -> str:
    """Percentage points: ``-0.2777`` → ``−0.28 pp``; never a negative zero."""
    if value_pp is None or not math.isfinite(value_pp):
        return MISSING
    rounded = round(value_pp, 2) or 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.2f} pp".replace("-", "−")


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
    return "< 0.001" if p < 0.001 else f"= {p:.{2 if p >= 0.1 else 3}f}"


def quantity(value: float | None, unit: str) -> str:
    """Value and unit as a check or a measurement carries them."""
    if value is None or not math.isfinite(value):
        return MISSING
    known: dict[str, Callable[[float], str]] = {"bytes": size, "pp": points, "share": percent}
    if unit in known:
        return known[unit](value)
    if unit in ("ms", "%"):
        return f"{milliseconds(value) if unit == 'ms' else f'{value:.2f}'} {unit}"
    return f"{value:.4g} {unit}".rstrip()


def shape(sides: tuple[int, ...]) -> str:
    """``(32, 8, 8)`` → ``32×8×8``."""
    return "×".join(str(side) for side in sides)


def artifact_title(key: str) -> str:
    """``onnx-int8`` → ``ONNX int8``, also before `` in onnxruntime 1.32.0``; what is not known stays as it is."""
    name, place, runtime = key.partition(" in ")
    base, _, bits = name.partition("-w")
    if base not in ARTIFACT_TITLES:
        return key
    return ARTIFACT_TITLES[base] + (f" ({bits}-bit weights)" if bits else "") + place + runtime


def check_limit(check: Check) -> str:
    """Write a limit with its direction: shares (``%``) are a least, all others a most: ``≥ 97.00 %``, ``≤ 8.0 MiB``."""
    return f"{'≥' if check.unit == '%' else '≤'} {quantity(check.limit, check.unit)}"


def check_got(check: Check) -> str:
    """Write what was found, or that nothing could be measured."""
    return "not measured" if check.got is None else quantity(check.got, check.unit)


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 input``, ``3 inputs``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
