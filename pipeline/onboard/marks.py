"""Marks in the instructions that are executed: an emulator counts what lies between them, a processor passes over them.

HINT #126 begins a region and HINT #127 ends it; every ARM64 processor executes both as NOP.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from typing import Callable

_HINT_126, _HINT_127, _RET = 0xD5032FDF, 0xD5032FFF, 0xD65F03C0


class Marks:
    """Two functions in a page of their own; off ARM64 they do nothing."""

    def __init__(self) -> None:
        self.start: Callable[[], object] = _nothing
        self.stop: Callable[[], object] = _nothing
        if platform.machine() != "aarch64":
            return
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page[:16] = struct.pack("<IIII", _HINT_126, _RET, _HINT_127, _RET)
        first = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self.start, self.stop = (ctypes.CFUNCTYPE(None)(first + offset) for offset in (0, 8))


def _nothing() -> None:
    return None
