"""A flatbuffer, read where it stands: tables, their fields, and vectors.

Raises ValueError, IndexError or struct.error where it is damaged.
"""

from __future__ import annotations

import struct


def offset(content: bytes, place: int) -> int:
    """Follow the offset that stands at ``place``."""
    found: int = place + struct.unpack_from("<I", content, place)[0]
    if found > len(content):
        raise ValueError("an offset beyond its end")
    return found


def field(content: bytes, table: int, number: int) -> int | None:
    """Return where a field of a table stands; None where it is left out."""
    layout = table - struct.unpack_from("<i", content, table)[0]
    if layout < 0 or 4 + 2 * number >= struct.unpack_from("<H", content, layout)[0]:
        return None
    shift: int = struct.unpack_from("<H", content, layout + 4 + 2 * number)[0]
    return table + shift if shift else None


def vector(content: bytes, place: int) -> bytes:
    """Return the bytes of a vector whose offset stands at ``place``."""
    start = offset(content, place)
    (size,) = struct.unpack_from("<I", content, start)
    if start + 4 + size > len(content):
        raise ValueError("a vector beyond its end")
    return content[start + 4 : start + 4 + size]


def tables(content: bytes, place: int | None) -> list[int]:
    """Return where the tables of a vector stand, whose offset stands at ``place``; [] for None."""
    if place is None:
        return []
    start = offset(content, place)
    (count,) = struct.unpack_from("<I", content, start)
    if start + 4 + 4 * count > len(content):
        raise ValueError("a vector beyond its end")
    return [offset(content, start + 4 + 4 * index) for index in range(count)]


def number_of_values(content: bytes, place: int) -> int:
    """Return how long the vector is whose offset stands at ``place``."""
    found: int = struct.unpack_from("<I", content, offset(content, place))[0]
    return found
