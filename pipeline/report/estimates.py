"""How good estimates of latencies are: published times beside what is estimated without having seen the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, NullLocator

from pipeline.estimating.fit import Fit
from pipeline.estimating.modelled import judged as modelled_judged
from pipeline.estimating.modelled import modelled
from pipeline.estimating.predicted import corrections, fitted_rows, held_out
from pipeline.estimating.table import Row, own, reference
from pipeline.report.svg import FLOAT, FONT_PT, INK, INT8, MUTED, RULE, drawing, figure, quiet_axes, to_svg

_FURTHEST = 5  # of a processor that are named


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A published time and what was estimated for it by a fit that had not seen its network."""

    row: Row
    error: float  # estimated / published - 1
    fitted: bool  # in the end; False: its runtime never is

    @property
    def estimated_ms(self) -> float:
        """Return the estimate."""
        return (1 + self.error) * self.row.published_ms

    @property
    def name(self) -> str:
        """``resnet18 int8`` or ``EfficientDet-Lite0 int8 in litert``."""
        return f"{self.row.model} {self.row.precision}" + ("" if self.fitted else f" in {self.row.runtime}")


def judged(fit: Fit) -> tuple[Judged, ...]:
    """Return all published times of a processor, those that were left out in turn and those of other runtimes."""
    rows = {f"{row.model} {row.precision}": row for row in fitted_rows(fit.cpu)}
    own = [Judged(row=rows[name], error=error, fitted=True) for name, error in fit.errors.items()]
    return (*own, *(Judged(row=row, error=error, fitted=False) for row, error in held_out(fit)))


def lines_of(fit: Fit) -> tuple[str, ...]:
    """Say how good a fit is."""
    found = judged(fit)
    inside = sorted((each for each in found if each.fitted), key=lambda each: -abs(each.error))
    ninth = float(np.quantile([abs(each.error) for each in inside], 0.9))
    return (
        f"{fit.cpu} at {fit.clock_mhz} MHz: {len(inside)} published times, each network left out in turn",
        f"  median error {100 * fit.median_error:.1f} %, nine of ten within {100 * ninth:.1f} %",
        f"  ns each: {', '.join(f'{kind} {ns:.2f}' for kind, ns in fit.ns.items())}",
        f"  furthest off: {', '.join(f'{each.name} {100 * each.error:+.0f} %' for each in inside[:_FURTHEST])}",
        *_own_lines(fit),
        *(
            f"  never fitted: {each.name}, published {each.row.published_ms:g} ms, "
            f"estimated {each.estimated_ms:.3g} ms ({100 * each.error:+.0f} %)"
            for each in found
            if not each.fitted
        ),
    )


def _own_lines(fit: Fit) -> Iterator[str]:
    """Say how many times are the user's own, and what they teach of their runtimes."""
    times = [row for row in own() if row.cpu == fit.cpu]
    if times:
        yield f"  your own: {len(times)} of all times of a {fit.cpu}"
    for runtime, learnt in corrections(fit).items():
        if learnt.factor != 1:
            gave = f"which {learnt.networks} networks gave"
            yield f"  {runtime} takes {learnt.factor:.2f} times what is estimated, {gave}"


def modelled_lines() -> tuple[str, ...]:
    """Say how far off times are that follow from what kernels have to do, where nothing was counted."""
    found = modelled_judged()
    lines = []
    for key in dict.fromkeys((each.row.cpu, each.row.runtime, each.row.precision) for each in found):
        own = [each for each in found if (each.row.cpu, each.row.runtime, each.row.precision) == key]
        instructions, times = (np.abs([getattr(each, name) for each in own]) for name in ("instructions", "time"))
        lines.append(
            f"{', '.join(key)}: {len(own)} networks; median {100 * np.median(instructions):.1f} % of instructions "
            f"and {100 * np.median(times):.1f} % of times; nine of ten within {100 * np.quantile(times, 0.9):.0f} %"
        )
    return tuple(lines)


def _modelled_and_published() -> list[str]:
    lines = []
    for each in modelled_judged():
        key = (each.row.network, each.row.precision, each.row.runtime, each.row.cpu)
        for row in reference():
            if (row.model, row.precision, row.runtime, row.cpu) == key:
                found = modelled(
                    [each.row.works], runtime=row.runtime, precision=row.precision, cpu=row.cpu, clock_mhz=row.clock_mhz
                )
                assert found is not None  # noqa: S101  (it is judged, so there is a model)
                assert found.latency_ms is not None  # noqa: S101  (and there are published times)
                ms = found.latency_ms
                lines.append(
                    f"- {row.model} {row.precision} in {row.runtime}, {row.board}: published {row.published_ms:g} ms, "
                    f"modelled {ms.value:.3g} ms ({ms.low:.3g}–{ms.high:.3g})"
                )
    return lines


def _modelled_section() -> list[str]:
    return [
        "## Without an emulator",
        "",
        "`karui inspect NAME --target raspberry-pi-4` runs nothing: events follow from what each kernel has to do",
        "(products in tiles, values in lines of a cache), as drawn layers and short chains of them took them once in",
        "the same runtimes (`pipeline/estimating/layers.csv`). Below, against counts, networks on which no number was",
        "fitted. What events follow from was chosen looking at all but EfficientDet-Lite0; others may be further off.",
        "",
        "```",
        *modelled_lines(),
        "```",
        "",
        "| network | runtime | processor | instructions | time |",
        "|---|---|---|---|---|",
        *(
            f"| {each.row.network} {each.row.precision} | {each.row.runtime} | {each.row.cpu} "
            f"| {100 * each.instructions:+.0f} % | {100 * each.time:+.0f} % |"
            for each in modelled_judged()
        ),
        "",
        "Against published times, through the ns of each event:",
        "",
        *_modelled_and_published(),
        "",
    ]


def picture(fits: Sequence[Fit]) -> Markup:
    """Draw estimated over published times, one square for each processor, both on logarithmic scales."""
    with drawing():
        drawn = figure(270)
        for axes, fit in zip(drawn.subplots(1, len(fits), squeeze=False)[0], fits, strict=True):
            found = judged(fit)
            ends = np.array([0.7, 1.4]) * [f(each.row.published_ms for each in found) for f in (min, max)]
            axes.fill_between(ends, ends / fit.error_bar, ends * fit.error_bar, color=RULE, linewidth=0)
            axes.plot(ends, ends, color=MUTED, linewidth=1)
            for each in found:
                axes.plot(
                    each.row.published_ms, each.estimated_ms, "o" if each.fitted else "D",
                    color=FLOAT if each.row.precision == "fp32" else INT8, markersize=4 if each.fitted else 6,
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlim(*ends)
            axes.set_ylim(*ends)
            for scale in (axes.xaxis, axes.yaxis):
                scale.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
                scale.set_minor_locator(NullLocator())
            axes.set_title(found[0].row.board, loc="left", fontsize=FONT_PT, color=INK)
            axes.set_xlabel("published, ms")
            axes.set_ylabel("estimated, ms")
            quiet_axes(axes)
        return to_svg(
            drawn, "estimates", "Estimated over published latencies of networks that were left out of the fit"
        )


def page(fits: Sequence[Fit], picture_name: str) -> str:
    """Return a page in Markdown, with the picture that lies beside it."""
    text = [
        "# Estimated latencies",
        "",
        "What one inference executes on an emulated processor, in the target's own runtime, is counted: instructions",
        "by class, and misses of a simulated data cache. The time of each kind is fitted on published times; each",
        "network was left out of the fit that estimated it, in both precisions.",
        "",
        f"![Estimated over published latencies]({picture_name})",
        "",
        "Blue float, orange int8; diamonds are of a runtime that is never fitted. Grey: within what nine of ten",
        "networks lay. Written by `karui estimate --refit --page docs/latency.md`.",
        "",
    ]
    for fit in fits:
        text += ["```", *lines_of(fit), "```", ""]
        text += ["| network | runtime | published ms | estimated ms | error |", "|---|---|---|---|---|"]
        for each in sorted(judged(fit), key=lambda each: each.row.published_ms):
            row = each.row
            name = f"{row.model} {row.precision}"
            times = f"{row.published_ms:g} | {each.estimated_ms:.3g} | {100 * each.error:+.0f} %"
            text.append(f"| {name} | {row.runtime} | {times} |")
        text.append("")
    return "\n".join([*text, *_modelled_section()])
