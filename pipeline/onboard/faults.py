"""What can go wrong on a device, in words for whoever stands before it; the workstation turns them into its own errors.

One root.  ``what`` happened, ``where`` (a file, an input), and the ``remedy``: what to do about it.
"""

from __future__ import annotations


class OnboardFault(Exception):  # noqa: N818  # not to be taken for the project's own errors
    """Root of all faults on a device."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(f"{where}: {what}" if where else what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"\n  {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{remedy}"


class FileRefused(OnboardFault):
    """A file that is missing, damaged, unknown to the runtime or not what its signature says."""


class InputRefused(OnboardFault):
    """Inputs that do not fit the network."""


class RuntimeMissing(OnboardFault):
    """A runtime that is not installed or does not start here."""


class ProcessDied(OnboardFault):
    """The process in which a runtime worked came to an end of its own."""


class FrameRefused(OnboardFault):
    """Bytes between two processes that are no message."""


FAULTS: dict[str, type[OnboardFault]] = {
    fault.__name__: fault
    for fault in (OnboardFault, FileRefused, InputRefused, RuntimeMissing, ProcessDied, FrameRefused)
}


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, or the kind of error where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
