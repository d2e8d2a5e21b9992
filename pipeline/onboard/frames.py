"""Messages between two processes: a small JSON header, and arrays as the bytes of .npy files.  No pickle.

A frame is ``karu``, the length of the header (4 bytes) and of the arrays (8 bytes), big-endian, the header, the arrays.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import numpy as np

from pipeline.onboard.arrays import Arrays, Signature, TensorSpec
from pipeline.onboard.faults import FrameRefused

_PREFIX = struct.Struct(">4sIQ")
_MAGIC = b"karu"
_LONGEST_HEADER = 1 << 20
_LONGEST_BODY = 1 << 33  # a length that a stray byte makes up would ask for all memory


@dataclass(frozen=True)
class Frame:
    """One message: words and numbers, and named arrays."""

    header: Mapping[str, Any]  # what JSON can hold
    arrays: Arrays = field(default_factory=dict)


def write_frame(stream: BinaryIO, frame: Frame) -> None:
    """Send a message.  Raises OSError when nobody reads any more."""
    parts = {name: _npy(array) for name, array in frame.arrays.items()}
    sizes = [[name, len(part)] for name, part in parts.items()]
    header = json.dumps({**frame.header, "arrays": sizes}).encode()
    stream.write(_PREFIX.pack(_MAGIC, len(header), sum(map(len, parts.values()))) + header)
    stream.writelines(parts.values())
    stream.flush()


def read_frame(stream: BinaryIO) -> Frame | None:
    """Wait for a message; None when the stream ends between two of them.  Raises FrameRefused for anything else."""
    prefix = stream.read(_PREFIX.size)
    if not prefix:
        return None
    magic, header_size, body_size = _PREFIX.unpack(_whole(prefix, _PREFIX.size))
    if magic != _MAGIC or header_size > _LONGEST_HEADER or body_size > _LONGEST_BODY:
        raise FrameRefused(f"no message: it begins with {prefix!r}")
    header = _whole(stream.read(header_size), header_size)
    body = _whole(stream.read(body_size), body_size)
    try:
        words = json.loads(header)
        return Frame(words, _arrays(words.pop("arrays"), body))
    except (ValueError, TypeError, KeyError, AttributeError, EOFError) as error:
        raise FrameRefused(f"a damaged message: {error}") from error


def signature_words(signature: Signature) -> dict[str, Any]:
    """Return a signature as JSON has it."""
    return asdict(signature)


def signature_from(words: Mapping[str, Any]) -> Signature:
    """Return the signature that ``signature_words`` wrote."""
    inputs, outputs = (
        tuple(TensorSpec(each["name"], each["dtype"], tuple(each["shape"]), each["axes"]) for each in words[side])
        for side in ("inputs", "outputs")
    )
    return Signature(inputs, outputs, dict(words["carried"]))


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, order="C"), allow_pickle=False)
    return buffer.getvalue()


def _arrays(sizes: list[list[Any]], body: bytes) -> Arrays:
    if sum(size for _, size in sizes) != len(body):
        raise ValueError("its arrays are shorter or longer than said")
    stream = io.BytesIO(body)
    return {name: np.load(io.BytesIO(stream.read(size)), allow_pickle=False) for name, size in sizes}


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise FrameRefused(f"it ends after {len(data)} of {size} bytes")
    return data
