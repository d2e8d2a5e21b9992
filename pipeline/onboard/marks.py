"""Marks in the instructions that are executed: an emulator counts what lies between them, a processor passes over them.

HINT #126 begins a region and HINT #127 ends it; from HINT #125 on caches are simulated.  Every ARM64 processor executes
all three as NOP.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from typing import Callable

_HINTS, _RET = (0xD5032FBF, 0xD5032FDF, 0xD5032FFF), 0xD65F03C0


class Marks:
    """Three functions in a page of their own; off ARM64 they do nothing."""

    def __init__(self) -> None:
        self.simulate: Callable[[], object] = _nothing
        self.start: Callable[[], object] = _nothing
        self.stop: Callable[[], object] = _nothing
        if platform.machine() != "aarch64":
            return
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code = b"".join(struct.pack("<II", hint, _RET) for hint in _HINTS)
        self._page[: len(code)] = code
        first = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self.simulate, self.start, self.stop = (ctypes.CFUNCTYPE(None)(first + offset) for offset in (0, 8, 16))


def _nothing() -> None:
    return None
