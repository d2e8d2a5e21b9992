"""``report.html``: one self-contained page.

The page loads nothing and runs no script; whatever a class, a layer or a file is called is escaped.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from pipeline.artifacts.outcome import Outcome
from pipeline.report import sentences, words
from pipeline.report.draw import ArrayStore
from pipeline.report.looked import Looked
from pipeline.report.views import layers_views, looked_views, target_view, training_view
from pipeline.report.yourself import yourselves
from pipeline.visible import shown_text

_QUANTITY = re.compile(r"(?<=[0-9]) (?=(?:%|pp|ms|dB|s|B|KiB|MiB|GiB|k|M|G)(?![A-Za-z0-9]))")


def render(
    outcome: Outcome,
    store: ArrayStore,
    folder: Path,
    looked: Sequence[Looked] = (),
    *,
    command: Sequence[str] = (),
) -> str:
    """Return the page as text; the same for the same outcome.

    ``looked``: the task's figures.  ``command``: what the user typed, for "how to repeat"; without it a command is put
    together that leaves out changed settings.  Raises StorageError when an array of the store is gone.
    """
    return _template().render(
        outcome=outcome,
        metric=outcome.metric,
        folder=folder.as_posix(),
        targets=[target_view(outcome, target, store, number) for number, target in enumerate(outcome.targets)],
        looked=looked_views(looked, store),
        layers=layers_views(outcome),
        training=training_view(outcome),
        yourselves=yourselves(outcome),
        command=sentences.repeat_command(outcome, command),
        made=sentences.made_line(outcome),
        settings=sentences.settings_lines(outcome),
        repeat=sentences.repeat_sentences(outcome),
    )


def _unbroken(value: object) -> object:
    """Keep a number and its unit on one line and make visible what would act; markup stays as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _QUANTITY.sub("\u00a0", shown_text(value))


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
        "size": words.size,
        "ms": words.milliseconds,
        "duration": words.duration,
        "count": words.count,
        "decibels": words.decibels,
        "shape": words.shape,
        "artifact": words.artifact_title,
        "full_way": words.full_way,
        "check_limit": words.check_limit,
        "check_got": words.check_got,
        "check_range": words.check_range,
        "check_sign": words.check_sign,
        "state_sign": words.state_sign,
        "state_word": words.state_word,
        "check_word": words.check_word,
        "plural": words.plural,
        "estimated": words.estimated,
        "steps_apart": words.steps_apart,
    }
    environment.globals |= {
        "headline": sentences.headline,
        "prune_result": sentences.prune_result,
        "prune_decided": sentences.prune_decided,
        "sparsity_result": sentences.sparsity_result,
        "value": words.metric_value,
        "change": words.change,
        "quantity": words.quantity,
        "milliseconds": words.milliseconds,
        "bytes": words.size,
    }
    return environment.get_template("page.html")
