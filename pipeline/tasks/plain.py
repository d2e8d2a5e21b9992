"""What most tasks say alike; a task module imports those of its names that it has nothing of its own to say about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.artifacts.evidence import Answers, Comparison
from pipeline.data.source import Source


def exported(network: Any, /) -> Any:
    """Ship the whole network."""
    return network


def choose(answers: Answers, source: Source, /) -> Mapping[str, float]:
    """Return nothing: no setting turns outputs into decisions."""
    del answers, source
    return {}


def legacy_names(comparison: Comparison, /) -> Mapping[str, float]:
    """Return no further names."""
    del comparison
    return {}
