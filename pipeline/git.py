"""Which commit a folder stands at, asked of git without letting the repository run anything.

A repository may be somebody else's: what its configuration names as a program (hooks, file watchers, content filters,
transports) is switched off before git looks at any file, and git gets a few seconds and no terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.artifacts.outcome import Commit

_TIMEOUT_S = 3.0  # of each question: large repositories take a second
_SHOWN = 10  # characters of the hash
_SAFE = (
    "core.fsmonitor=",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "protocol.allow=never",  # a partial clone would fetch what it lacks
    "safe.bareRepository=explicit",  # a folder that only looks like a repository
    "submodule.recurse=false",
)
_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_PAGER": "cat",
    "LC_ALL": "C",
}
_HASH = re.compile(r"[0-9a-f]{40,64}")
_FILTER = re.compile(r"filter\.[\w.-]+\.(clean|smudge|process|required)")
_NOTHING_FOUND = 1  # git config's exit status for no such key


def commit_of(folder: Path, *, without: Iterable[Path] = ()) -> Commit | None:
    """Return the commit of a folder, and whether anything in it differs from it; None where git knows of none.

    ``without``: what lies in the folder and is no part of it, such as the run's own files.
    """
    git = shutil.which("git")
    if git is None:
        return None
    found = _ask(git, folder, _SAFE, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    if not _HASH.fullmatch(found):
        return None
    return Commit(sha=found[:_SHOWN], changed=_changed(git, folder, without))


def _changed(git: str, folder: Path, without: Iterable[Path]) -> bool | None:
    """Tell whether there are uncommitted changes; None where that cannot be asked safely or in time."""
    settings = _without_filters(git, folder)
    if settings is None:
        return None
    inside = (path.resolve() for path in without)
    here = folder.resolve()
    left_out = (f":(exclude,literal){path.relative_to(here).as_posix()}" for path in inside if here in path.parents)
    try:
        status = (
            "status",
            "--porcelain",
            "-z",
            "--untracked-files=normal",
            "--ignore-submodules=all",
            "--no-renames",
            "--",
            ".",
            *left_out,
        )
        return bool(_asked(git, folder, settings, *status))
    except (OSError, subprocess.SubprocessError):
        return None


def _without_filters(git: str, folder: Path) -> tuple[str, ...] | None:
    """Return settings that empty every content filter: git would run one to see whether a file differs.

    None where a filter has a name that a setting on the command line cannot carry.
    """
    try:
        found = _asked(git, folder, _SAFE, "config", "-z", "--name-only", "--get-regexp", r"^filter\.")
    except subprocess.CalledProcessError as error:
        return _SAFE if error.returncode == _NOTHING_FOUND else None
    except (OSError, subprocess.SubprocessError):
        return None
    names = list(dict.fromkeys(filter(None, found.split("\0"))))
    if not all(_FILTER.fullmatch(name) for name in names):
        return None
    drivers = dict.fromkeys(name.rpartition(".")[0] for name in names)
    return (*_SAFE, *(f"{each}.{key}" for each in drivers for key in ("clean=", "process=", "required=false")))


def _ask(git: str, folder: Path, settings: Sequence[str], *question: str) -> str:
    """Return what git answers; empty where it answers nothing."""
    try:
        return _asked(git, folder, settings, *question)
    except (OSError, subprocess.SubprocessError):
        return ""


def _asked(git: str, folder: Path, settings: Sequence[str], *question: str) -> str:
    # what GIT_… variables name (another repository, another git) is not the folder's
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    options = [word for each in settings for word in ("-c", each)]
    done = subprocess.run(  # noqa: S603  git, with words of ours and a folder as an argument of its own
        [git, *options, "-C", str(folder), *question],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=own | _ENVIRONMENT,
        timeout=_TIMEOUT_S,
        check=True,
    )
    return done.stdout.decode("utf-8", "replace")
