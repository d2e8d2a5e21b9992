"""Curves for TensorBoard: an event file with a number per epoch, written without TensorBoard.

Format: records of length, CRC, message, CRC (TensorFlow's record_writer), CRC-32C masked; each message is an ``Event``
in protocol-buffer encoding (tensorflow/core/util/event.proto).
"""

from __future__ import annotations

import importlib.util
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.artifacts.training import Checkpoint
from pipeline.runs.store import storing

BOARD_FOLDER = "tensorboard"
_CASTAGNOLI = 0x82F63B78  # the polynomial, reflected
_MASK = 0xA282EAD8
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types


@dataclass(frozen=True, kw_only=True)
class Board:
    """The event file of one run; made when the first number comes."""

    folder: Path
    began_s: float = field(default_factory=time.time)

    @property
    def how_to_look(self) -> str:
        """Say where the curves are and what shows them."""
        missing = "" if importlib.util.find_spec("tensorboard") else "   (pip install 'karui[tensorboard]' brings it)"
        return f"curves: tensorboard --logdir {self.folder}{missing}"

    def epoch(self, step: str, phase: str, index: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of an epoch, as curves called ``phase/name``.  Raises StorageError."""
        curve = phase if step == phase else f"{step} {phase}"
        values = b"".join(_field(1, _value(f"{curve}/{name}", number)) for name, number in numbers.items())
        self._append(_event(_tag(2, _VARINT) + _varint(index) + _field(5, values)))

    def recalled(self, step: str, artifact: object) -> None:
        """Add the curves of a step that was made before.  Raises StorageError."""
        checkpoint = getattr(artifact, "checkpoint", artifact)
        if isinstance(checkpoint, Checkpoint):
            for epoch in checkpoint.history:
                numbers = {"loss": epoch.train_loss, f"val {checkpoint.metric.name}": epoch.val_metric}
                self.epoch(step, epoch.phase, epoch.index, numbers)

    def _append(self, event: bytes) -> None:
        file = self.folder / f"events.out.tfevents.{self.began_s:.0f}.karui"  # the usual name has the machine's in it
        with storing(file):
            self.folder.mkdir(parents=True, exist_ok=True)
            begin = b"" if file.exists() else _record(_event(_field(3, b"brain.Event:2")))
            with file.open("ab") as events:
                events.write(begin + _record(event))


def _event(rest: bytes) -> bytes:
    return _tag(1, _DOUBLE) + struct.pack("<d", time.time()) + rest


def _value(name: str, number: float) -> bytes:
    return _field(1, name.encode()) + _tag(2, _FLOAT) + struct.pack("<f", number)


def _field(number: int, content: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(content)) + content


def _tag(number: int, wire_type: int) -> bytes:
    return bytes([number << 3 | wire_type])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return length + _masked_crc(length) + message + _masked_crc(message)


def _masked_crc(content: bytes) -> bytes:
    crc = crc32c(content)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + _MASK) & 0xFFFFFFFF)


def crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table() -> Iterator[int]:
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
        yield crc


_TABLE = tuple(_table())
