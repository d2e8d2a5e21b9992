"""How a command ends that cannot do what it was asked: what happened, where, what to do, and the exit status."""

from __future__ import annotations

import errno
import io
import json
import signal
import sys
import traceback
from dataclasses import dataclass

import click

from pipeline.errors import ConfigError, KaruiError
from pipeline.visible import shown_text

EXIT_ERROR = 1
_SIGNALLED = 128  # and the signal's number, as shells say it: 130 for Ctrl-C
_GOES_ON = "the same command goes on where this one stopped"
# Python's words about paths that no system can have; wherever they come from, karui is not to blame
_NO_PATH = ("embedded null", "Symlink loop", "Could not determine home directory", "Can't determine home directory")
_MOST_LINES = 60
_LONGEST_LINE, _LONGEST_PLACE = 1000, 400


class Stopped(BaseException):
    """Somebody asks this process to end, and it should end as cleanly as with Ctrl-C."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What to tell a person or a program."""

    what: str
    where: str = ""
    remedy: str = ""
    exit_status: int


def ending_of(error: BaseException) -> Ending:
    """Return the end that an error makes; what nobody thought of is a bug in karui and says so."""
    where = ""
    match error:
        case KaruiError():
            what, where, remedy, status = error.what, error.where, error.remedy, error.exit_code
        case click.Abort() | KeyboardInterrupt():
            what, remedy, status = "stopped", str(error) or _GOES_ON, _SIGNALLED + signal.SIGINT
        case Stopped():
            what, remedy = f"stopped by {signal.Signals(error.number).name}", _GOES_ON
            status = _SIGNALLED + error.number
        case click.ClickException():
            what, remedy, status = error.format_message(), "", error.exit_code
        case UnicodeEncodeError():  # half a character: bytes of a file name that are no UTF-8
            near = error.object[max(0, error.start - 20) : error.end + 20]
            what, status = f"a name or path is no UTF-8 text, near {near!a}", ConfigError.exit_code
            remedy = "rename it; if it looks right in a file browser, set PYTHONUTF8=1"
        case OSError(errno=errno.ELOOP | errno.ENAMETOOLONG):
            what, where, status = str(error.strerror).lower(), str(error.filename or ""), ConfigError.exit_code
            remedy = "remove links that lead to themselves; choose shorter names"
        case OSError():
            what = error.strerror or str(error) if error.filename else f"the result cannot be printed: {error}"
            where, status = str(error.filename or ""), EXIT_ERROR
            remedy = "the run folder keeps what was done; the same command goes on from there"
        case ValueError() | RuntimeError() if any(words in str(error) for words in _NO_PATH):
            what, status = f"a path is none that there can be: {error}", ConfigError.exit_code
            remedy = "look for a zero byte, a '~name' without such a user, or a link to itself"
        case _:
            what, status = f"{type(error).__name__}: {error}".partition("\n")[0], EXIT_ERROR
            remedy = "this is a bug in karui; add --debug to see where it happened"
    return Ending(what=what, where=where, remedy=remedy, exit_status=status)


def tell(error: BaseException, *, debug: bool, as_json: bool) -> int:
    """Print an error for people on stderr, and with ``as_json`` for programs on stdout; return the exit status."""
    ending = ending_of(error)
    if debug:
        click.echo(shown_text("".join(traceback.format_exception(error))), err=True, nl=False)
    if isinstance(error, click.UsageError):
        said_by_click = io.StringIO()
        error.show(file=said_by_click)
        click.echo(shown_text(said_by_click.getvalue()), err=True, nl=False)
    else:
        place = f"{_ends(ending.where)}: " if ending.where else ""
        click.echo(f"{click.style('error:', fg='red', bold=True)} {_cut(place + ending.what)}", err=True)
        if ending.remedy:
            click.echo(f"  {_cut(ending.remedy)}", err=True)
    if as_json:
        told = {"what": ending.what, "where": ending.where, "remedy": ending.remedy, "exit_status": ending.exit_status}
        click.echo(json.dumps({"error": told}, indent=2))  # ASCII: nothing in it can act on a terminal
        sys.stdout.flush()
    return ending.exit_status


def _ends(place: str) -> str:
    """Return a place whose beginning and end can be read, however long it is."""
    return place if len(place) <= _LONGEST_PLACE else f"{place[: _LONGEST_PLACE // 2]}…{place[-_LONGEST_PLACE // 2 :]}"


def _cut(text: str) -> str:
    lines = [
        line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…" for line in shown_text(text).split("\n")
    ]
    more = [f"… and {len(lines) - _MOST_LINES} lines more"] if len(lines) > _MOST_LINES else []
    return "\n".join([*lines[:_MOST_LINES], *more])
