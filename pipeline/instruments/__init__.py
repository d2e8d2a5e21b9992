"""Where numbers come from: one file per instrument, each a module with the names of ``Instrument``, one line below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.instruments import counts, here
from pipeline.instruments.protocol import Contender, Instrument, Works

__all__ = ["INSTRUMENTS", "Contender", "Instrument", "Works"]

# by what they tell the cost in: the words of a recipe's ``prune.decide_by``
INSTRUMENTS: Mapping[Literal["latency", "macs"], Instrument] = {
    "latency": here,
    "macs": counts,
}
