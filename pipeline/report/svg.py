"""A matplotlib figure as inline SVG that takes its colours and its font from the page, the same bytes every time.

Colours of a figure are *marks*: unlikely hex values that stand for a CSS variable, so that one drawing serves the light
and the dark page.  Text stays text.
"""

from __future__ import annotations

import contextlib
import html
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.visible import shown_text

INK, MUTED, RULE = "#101011", "#707071", "#d0d0d1"
FLOAT, INT8, GOOD, BAD = "#3566c5", "#d9730e", "#1a7f4c", "#c2352c"
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", FLOAT: "float", INT8: "int8", GOOD: "good", BAD: "bad"}

WIDTH_PT = 360.0  # drawn size = size on a phone; the page enlarges it a little on a desktop
FONT_PT = 10.5
_STYLE: Any = {  # matplotlib types its keys one by one, differently in each version
    "svg.fonttype": "none",
    "svg.hashsalt": "karui",
    "text.parse_math": False,  # a class may be called "$"
    "font.family": "sans-serif",
    "font.size": FONT_PT,
    "axes.labelsize": FONT_PT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": FONT_PT - 1,
    "ytick.labelsize": FONT_PT - 1,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": FONT_PT - 1,
}
_TAG = re.compile(r"<[^>]+>")
_FONT = re.compile(r"; font-family: [^;\"]*(\"[^;\"]*)?(?=[;\"])")
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Give figures made and written inside the block the page's style, whatever the user's matplotlibrc says."""
    with warnings.catch_warnings(), mpl.rc_context():
        # the browser's fonts draw the text, whatever matplotlib's own cannot
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def figure(height_pt: float, width_pt: float = WIDTH_PT) -> Figure:
    """Return an empty figure of that size whose parts find their own room."""
    return Figure(figsize=(width_pt / 72, height_pt / 72), layout="constrained")


def to_svg(drawn: Figure, name: str, description: str, *, details: str = "") -> Markup:
    """Return the figure as an ``<svg>`` element for an HTML page; ``name`` keeps its ids apart from other figures'.

    ``description`` is its title, ``details`` what there is to see, for those who do not see it.  What would act in any
    of its texts is written out.
    """
    for each in drawn.findobj(Text):
        if isinstance(each, Text):
            each.set_text(shown_text(each.get_text()))
    buffer = io.StringIO()
    # savefig() would draw a figure with a layout twice
    FigureCanvasSVG(drawn).print_svg(buffer, metadata=_NO_METADATA)  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"(?:href=\"|url\()#([\w-]+)", text))
    body = _TAG.sub(lambda tag: _page_tag(tag[0], name, used), text[text.index(">") + 1 :])
    body = re.sub(r"\n\s*", "\n", body).replace("<g/>\n", "").replace("<g>\n</g>\n", "")
    body = shown_text(body)  # the texts of axes are made while drawing
    said = f"<title>{_escaped(description)}</title>" + (f"<desc>{_escaped(details)}</desc>" if details else "")
    width, height = (72 * side for side in drawn.get_size_inches())
    return Markup(  # noqa: S704  matplotlib escapes text; title and details are escaped here
        f'<svg class="figure" role="img" aria-label="{_escaped(description)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="max-width: {width * 1.28:.0f}px" xmlns="http://www.w3.org/2000/svg">{said}{body}'
    )


def standalone(element: str) -> str:
    """Return an ``<svg>`` element as the text of a file of its own: with the colours that a page would give it."""
    colours = "; ".join(f"--{variable}: {mark}" for mark, variable in _VARIABLES.items())
    style = f"<style>svg {{ {colours}; background: #ffffff; font-family: sans-serif }}</style>"
    text = str(element)  # no Markup, which would write the style out
    begin = text.index(">") + 1
    return text[:begin] + style + text[begin:] + "\n"


def _escaped(text: str) -> str:
    return html.escape(shown_text(" ".join(text.split())))


def _page_tag(tag: str, name: str, used: set[str]) -> str:
    """Rewrite one tag: the page's font and colours, only ids that something refers to."""
    tag = tag.replace("xlink:href", "href")
    tag = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", tag)
    tag = re.sub(r"((?:href=\"|url\()#)", rf"\g<1>{name}-", tag)
    if tag.startswith("<text"):
        tag = _FONT.sub("", tag)
        tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    for mark, variable in _VARIABLES.items():
        tag = tag.replace(mark, f"var(--{variable})")
    return tag


def quiet_axes(axes: Axes) -> None:
    """No tick marks: the grid shows where values are."""
    axes.tick_params(length=0)
