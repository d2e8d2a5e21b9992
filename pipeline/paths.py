"""Paths as people write them: ``~`` is their home, and what can be no path is refused in words."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError


def expanded(path: str | Path, *, where: str = "") -> Path:
    """Return the path with ``~`` and ``~name`` replaced; ``where``: who names it.

    Raises ConfigError for a user that does not exist and for a path with a zero byte in it.
    """
    if "\0" in str(path):
        raise ConfigError(f"the path {str(path)!a} holds a zero byte", where=where, remedy="correct the path")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = str(path).partition("/")[0]
        raise ConfigError(
            f"'{path}': there is no user '{user[1:]}' with a home folder",
            where=where,
            remedy=f"write the whole path, or ./{path} for a folder of that name",
        ) from error


def resolved(path: Path, *, where: str = "") -> Path:
    """Return the absolute path without links in it.  Raises ConfigError for a link that leads to itself."""
    try:
        return path.resolve()
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            "is a link that leads to itself",
            where=where or str(path),
            remedy="remove the link, or let it lead to a file",
        ) from error
