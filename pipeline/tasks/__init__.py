"""What is asked of a network: one file per task, each a module with the names of ``Task``, and one line below.

A recalled run must load no torch, so a task imports it inside ``updates`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import ConfigError, nearest
from pipeline.tasks import agreement, binary, classification, regression, segmentation
from pipeline.tasks.protocol import OUTPUT, Prepare, Put, Task, Update, batched

__all__ = ["OUTPUT", "TASKS", "Prepare", "Put", "Task", "Update", "batched", "named"]

TASKS: Mapping[str, Task] = {
    "agreement": agreement,
    "binary": binary,
    "classification": classification,
    "regression": regression,
    "segmentation": segmentation,
}


def named(name: str) -> Task:
    """Return the task of this name.  Raises ConfigError with the nearest known one."""
    if name not in TASKS:
        raise ConfigError(f"there is no task '{name}'{nearest(name, TASKS)}", remedy="write it into the card: task = …")
    return TASKS[name]
