"""What ``karui bench`` measured or counted, as lines and tables for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console

from pipeline.artifacts.evidence import Interval
from pipeline.artifacts.measured import Benched, Counted, CountsBeside, Measurements
from pipeline.onboard.machine import State
from pipeline.report import words
from pipeline.report.paper import Paper

_NAMES = 16  # characters of the first column
_NARROWEST = 20  # of the second


def print_measurements(found: Measurements, console: Console) -> None:
    """Print each file, how they compare, and what the machine was like."""
    paper = Paper(console=console)
    for trouble in found.troubles:
        paper.line(f"! {trouble}", "bold yellow")
    if len({(each.sha256, each.runtime) for each in found.files}) > 1:
        _print_table(paper, found.files)
    else:
        for each in found.files:
            paper.line(f"{each.file} in {each.runtime} {each.version}, {words.plural(each.threads, 'thread')}", "bold")
            _print_pairs(paper, _lines_of(each), indent=2)
    _print_pairs(paper, _conditions(found))


def _print_pairs(paper: Paper, pairs: Iterable[tuple[str, str]], indent: int = 0) -> None:
    """Print names and texts in two columns."""
    for name, text in pairs:
        lines = textwrap.wrap(text, max(_NARROWEST, paper.console.width - indent - _NAMES)) or [""]
        for number, line in enumerate(lines):
            paper.command(f"{'':{indent}}{'' if number else name:<{_NAMES}}{line}")


def _lines_of(each: Benched) -> Iterator[tuple[str, str]]:
    latency, cold, kept_up = each.latency, each.cold, each.kept_up
    for name in ("p50", "p90", "p95", "p99"):
        interval: Interval = getattr(latency, name)
        yield f"latency {name}", f"{words.milliseconds(interval.value)} ms ({_ends(interval)})"
    sessions = f"{len(latency.session_medians_ms)} fresh sessions, {words.count(latency.inferences)} inferences"
    yield "", f"({sessions}; 95 % intervals)"
    start = f"{words.milliseconds(cold.start_ms.value)} ms ({_ends(cold.start_ms)}) for file and inference"
    processes = f"{cold.processes} fresh processes"
    yield "first answer", f"{start}, {words.milliseconds(cold.library_ms)} ms before for the library ({processes})"
    kept = f"{words.count(kept_up.per_second)} inferences per second for {words.duration(kept_up.seconds)}"
    yield "without a pause", "; ".join(filter(None, (kept, _drifted(each))))
    if each.peak_memory_bytes is not None:
        yield "peak memory", f"{words.size(each.peak_memory_bytes)} more than the runtime alone"
    if kept_up.joules_each is not None:
        yield "energy", f"{1000 * kept_up.joules_each:.3g} mJ per inference, of the whole processor"


def _print_table(paper: Paper, files: Sequence[Benched]) -> None:
    table = paper.table(
        ("", "fold"),
        ("threads", "right"),
        ("p50 ms", "right"),
        ("p95 ms", "right"),
        ("p99 ms", "right"),
        ("× the first [95 %]", "right"),
        ("first\nanswer ms", "right"),
        ("per\nsecond", "right"),
        *([("mJ", "right")] if any(each.kept_up.joules_each is not None for each in files) else []),
    )
    for each in files:
        latency, joules = each.latency, each.kept_up.joules_each
        cells = [
            each.name,
            str(each.threads),
            *(words.milliseconds(one.value) for one in (latency.p50, latency.p95, latency.p99)),
            f"{each.ratio.value:.2f} [{each.ratio.low:.2f}–{each.ratio.high:.2f}]" if each.ratio else "1",
            words.milliseconds(each.cold.start_ms.value),
            words.count(each.kept_up.per_second),
            *([words.MISSING if joules is None else f"{1000 * joules:.3g}"] if len(table.columns) > 8 else []),
        ]
        paper.row(table, *cells)
    paper.print(table)
    for each in files:
        drift, drifted = each.kept_up.drift, _drifted(each)
        if drift and not drift.low <= 1 <= drift.high:
            paper.line(f"{each.name}, {words.plural(each.threads, 'thread')}: {drifted}")


def _drifted(each: Benched) -> str:
    drift = each.kept_up.drift
    if drift is None:
        return ""
    return f"an inference took {drift.value:.3f} times as long at its end as at its beginning ({_share(drift)})"


def _as_target(found: Measurements) -> str:
    return f", which is the target {found.place.profile}" if found.place.profile else ""


def _conditions(found: Measurements) -> Iterator[tuple[str, str]]:
    """Say what the machine was like, as far as it tells."""
    before, after, usage = found.conditions.before, found.conditions.after, found.conditions.usage
    yield "place", f"{found.place.text}{_as_target(found)}"
    if before.clocks_mhz and after.clocks_mhz:
        most = f", at most {max(after.highest_mhz):.0f}" if after.highest_mhz else ""
        yield "clock", f"{_clocks(before)} MHz before, {_clocks(after)} after{most}"
    if after.governors:
        yield "governor", ", ".join(dict.fromkeys(after.governors))
    if before.temperature_c is not None and after.temperature_c is not None:
        yield "temperature", f"{before.temperature_c:.0f} °C before, {after.temperature_c:.0f} °C after"
    if after.firmware_bits is not None or after.slowed is not None:
        yield "throttling", "see above" if found.troubles else "none"
    if usage is not None:
        stolen = f", {words.percent(usage.stolen, 1)} taken away by the machine below" if usage.stolen else ""
        yield "other load", f"{words.percent(usage.others, 1)} of {words.plural(usage.cores, 'core')}{stolen}"


def _clocks(state: State) -> str:
    low, high = min(state.clocks_mhz), max(state.clocks_mhz)
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f}–{high:.0f}"


def _ends(interval: Interval) -> str:
    return f"{words.milliseconds(interval.low)}–{words.milliseconds(interval.high)}"


def _share(interval: Interval) -> str:
    return f"{interval.low:.3f}–{interval.high:.3f}"


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def print_counts(found: CountsBeside, at_most: float | None, console: Console) -> None:
    """Print the instructions of one inference of each file by class, each beside those of the first file."""
    paper = Paper(console=console)
    first, *others = found.files
    table = paper.table(("", "left"), *((_counted_name(each, found), "right") for each in found.files))
    names = dict.fromkeys(name for each in found.files for name in each.classes)
    rows = {"instructions": "total", **{f"  {_said(name)}": name for name in names}, **_OF_CACHES}
    for title, name in rows.items():
        base = first.counts.get(name, 0.0)
        paper.row(table, title, words.count(base), *(_times(each.counts.get(name, 0.0), base) for each in others))
    paper.print(table)
    paper.line(f"one inference on the emulated {found.processor} of {found.target}, one thread")
    if at_most is not None:
        sign = words.state_sign("missed" if found.most > at_most else "met")
        paper.line(f"{sign} at most {at_most:g} times the first: it takes {found.most:.3f} times")


_OF_CACHES = {"L1 misses": "l1d_miss", "L2 misses": "l2_miss"}


def _counted_name(each: Counted, found: CountsBeside) -> str:
    several = len({one.runtime for one in found.files}) > 1
    return f"{each.file}\n{each.runtime}" if several else each.file


def _said(name: str) -> str:
    return name.replace("_", " ")


def _times(number: float, base: float) -> str:
    return f"{words.count(number)} (× {number / base:.3f})" if base else words.count(number)
