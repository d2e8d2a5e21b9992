"""The text that karui leaves inside a model file, found without any runtime: ONNX and TFLite are read where it stands.

ONNX: ``ModelProto.metadata_props`` (field 14).  TFLite: ``Model.metadata`` (field 6) names a buffer (field 4).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.onboard.about import KEY, About, from_text
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.flatbuffer import field, offset, tables, vector

_LARGEST_FILE_BYTES = 2 << 30  # of a protobuf or flatbuffer
_METADATA_PROPS = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BUFFERS, _METADATA = 4, 6
_TFLITE_MARK = b"TFL3"


def about_file(path: Path) -> About:
    """Return what a model file says about itself.

    Raises FileRefused for a file that is missing or damaged, and for one that says nothing.
    """
    text = text_in(_content(path), str(path))
    if text is None:
        raise FileRefused(
            "says nothing about its inputs and labels",
            where=str(path),
            remedy="use a file that this version of karui exported: run its recipe again",
        )
    return from_text(text, str(path))


def text_in(content: bytes, where: str, key: str = KEY) -> str | None:
    """Return the text under a key in an ONNX or TFLite file; None where there is none.  Raises FileRefused."""
    try:
        found = _in_tflite(content, key) if content[4:8] == _TFLITE_MARK else _in_onnx(content, key)
        return None if found is None else found.decode()
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
        raise FileRefused(f"is no readable ONNX or TFLite file ({error})", where=where) from error


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise FileRefused("no such model file", where=str(path))
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise FileRefused("is too large for an ONNX or TFLite file", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise FileRefused(f"cannot be read: {error.strerror}", where=str(path)) from error


# ── ONNX: a protobuf ────────────────────────────────────────────────────────────────────────────────────────────────


def _in_onnx(content: bytes, key: str) -> bytes | None:
    for number, value in _fields(content):
        if number == _METADATA_PROPS:
            entry = dict(_fields(value))
            if entry.get(1) == key.encode():
                return entry.get(2, b"")
    return None


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field that holds bytes; others are passed over."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _BYTES:
            size, place = _varint(message, place)
            if place + size > len(message):
                raise ValueError("it ends in the middle of a field")
            yield tag >> 3, message[place : place + size]
            place += size
        elif kind == _VARINT:
            _, place = _varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            place += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"field of kind {kind}")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number without end")


# ── TFLite: a flatbuffer ────────────────────────────────────────────────────────────────────────────────────────────


def _in_tflite(content: bytes, key: str) -> bytes | None:
    model = offset(content, 0)
    for entry in tables(content, field(content, model, _METADATA)):
        name = field(content, entry, 0)
        if name is None or vector(content, name) != key.encode():
            continue
        number = field(content, entry, 1)
        index = 0 if number is None else struct.unpack_from("<I", content, number)[0]
        data = field(content, tables(content, field(content, model, _BUFFERS))[index], 0)
        return b"" if data is None else vector(content, data)
    return None
