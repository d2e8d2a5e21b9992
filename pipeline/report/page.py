"""``report.html``: one self-contained page, and ``report.json`` beside it.

The page loads nothing and runs no script; whatever a class, a layer or a file is called is escaped.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from pipeline.artifacts import Outcome
from pipeline.report import sentences, words
from pipeline.report.document import artifact_key, report_json
from pipeline.report.evidence import ArrayStore, Samples
from pipeline.report.views import evidence_views, layers_views, target_view, training_view
from pipeline.store import write_atomic

_QUANTITY = re.compile(r"(?<=[0-9]) (?=(?:%|pp|ms|dB|s|B|KiB|MiB|GiB|k|M|G)(?![A-Za-z0-9]))")
HTML_NAME, JSON_NAME = "report.html", "report.json"


def write_report(
    outcome: Outcome, store: ArrayStore, folder: Path, samples: Samples, *, command: Sequence[str] = ()
) -> Path:
    """Write ``report.json`` and ``report.html`` into ``folder``, each whole or not at all; return the page's path.

    ``samples``: labels, class names and raw values of the test split.  ``command``: what the user typed, for "how to
    repeat"; without it a command is put together that leaves out changed settings.
    Raises StorageError when an array of the store is gone or the folder cannot be written.
    """
    write_atomic(folder / JSON_NAME, (report_json(outcome, folder) + "\n").encode())
    page = folder / HTML_NAME
    write_atomic(page, render(outcome, store, folder, samples, command=command).encode())
    return page


def render(outcome: Outcome, store: ArrayStore, folder: Path, samples: Samples, *, command: Sequence[str] = ()) -> str:
    """Return the page as text; the same for the same outcome."""
    typed = shlex.join(command) if command else _command(outcome)
    return _template().render(
        outcome=outcome,
        folder=folder.as_posix(),
        targets=[target_view(outcome, target, store, number) for number, target in enumerate(outcome.targets)],
        evidence=evidence_views(outcome, store, samples),
        layers=layers_views(outcome),
        training=training_view(outcome),
        files=[
            (artifact_key(outcome, bits, exported.key), exported)
            for bits in sorted(outcome.exports, reverse=True)
            for exported in outcome.exports[bits].files
        ],
        command=typed,
    )


def _unbroken(value: object) -> object:
    """Keep a number and its unit on one line; what is markup already stays as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _QUANTITY.sub("\u00a0", value)


def _command(outcome: Outcome) -> str:
    targets = [part for target in outcome.targets for part in ("--target", target.target)]
    return shlex.join(["karui", "run", outcome.recipe, *targets])


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_unbroken,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "points": words.points,
        "size": words.size,
        "ms": words.milliseconds,
        "duration": words.duration,
        "count": words.count,
        "decibels": words.decibels,
        "p_value": words.p_value,
        "shape": words.shape,
        "artifact": words.artifact_title,
        "check_limit": words.check_limit,
        "check_got": words.check_got,
        "plural": words.plural,
    }
    environment.globals |= {
        "headline": sentences.headline,
        "prune_result": sentences.prune_result,
        "sparsity_result": sentences.sparsity_result,
        "quantity": words.quantity,
    }
    return environment.get_template("page.html")
