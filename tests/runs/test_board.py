"""Event files for TensorBoard, read by a protocol-buffer parser that knows nothing of karui."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from pipeline.artifacts.networks import NetworkRef
from pipeline.artifacts.training import Checkpoint, Epoch
from pipeline.progress import Silent
from pipeline.runs.board import BOARD_FOLDER, Board, crc32c
from pipeline.runs.run import Work, open_run, stage
from tests.runs.made import ACCURACY, NETWORK

_EVENT = {  # tensorflow/core/util/event.proto and framework/summary.proto, what is used of them
    "Value": [("tag", 1, "string"), ("simple_value", 2, "float")],
    "Summary": [("value", 1, "Value")],
    "Event": [
        ("wall_time", 1, "double"),
        ("step", 2, "int64"),
        ("file_version", 3, "string"),
        ("summary", 5, "Summary"),
    ],
}


def event_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="tensorboard", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for name, fields in _EVENT.items():
        message = file.message_type.add(name=name)
        for called, number, kind in fields:
            added = message.field.add(name=called, number=number, label=field.LABEL_OPTIONAL)
            if kind in _EVENT:
                added.type, added.type_name = field.TYPE_MESSAGE, f".tensorboard.{kind}"
            else:
                added.type = getattr(field, f"TYPE_{kind.upper()}")
            if called == "value":
                added.label = field.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorboard.Event"))


def events(folder: Path) -> Iterator[Any]:
    (file,) = folder.iterdir()
    content, parsed = file.read_bytes(), event_class()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield parsed.FromString(content[12 : 12 + length])
        for checked, crc in ((content[:8], content[8:12]), (content[12 : 12 + length], content[12 + length :][:4])):
            rotated = (struct.unpack("<I", crc)[0] - 0xA282EAD8) & 0xFFFFFFFF  # as TensorFlow unmasks it
            assert (rotated >> 17 | rotated << 15) & 0xFFFFFFFF == crc32c(checked)
        content = content[16 + length :]


def curves(folder: Path) -> list[tuple[str, int, float]]:
    first, *others = events(folder)
    assert first.file_version == "brain.Event:2"
    return [(value.tag, each.step, value.simple_value) for each in others for value in each.summary.value]


@pytest.mark.parametrize(
    ("content", "expected"), [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA)]
)  # RFC 3720, B.4; the check value of CRC-32C
def test_crc(content: bytes, expected: int) -> None:
    assert crc32c(content) == expected


def test_every_epoch_is_a_point(tmp_path: Path) -> None:
    board = Board(folder=tmp_path / "board")
    board.epoch("train", "train", 1, {"loss": 0.5, "val accuracy": 0.25})
    board.epoch("quantize-w7", "qat", 300, {"loss": float("nan")})
    found = curves(tmp_path / "board")
    assert found[:2] == [("train/loss", 1, 0.5), ("train/val accuracy", 1, 0.25)]
    assert found[2][:2] == ("quantize-w7 qat/loss", 300)
    assert np.isnan(found[2][2])
    (file,) = (tmp_path / "board").iterdir()
    assert socket.gethostname() not in file.name


@stage(version=1)
def learn(work: Work, *, network: NetworkRef) -> Checkpoint:
    work.progress.start("train", 20)
    work.progress.advance(0, epoch=1, epochs=2, loss=0.5, **{"val share": 0.75})
    weights = work.store.put_array(np.zeros(4, np.float32))
    epoch = Epoch(phase="train", index=1, learning_rate=0.1, train_loss=0.5, val_metric=0.75, duration_s=1.0)
    return Checkpoint(network=network, weights=weights, metric=ACCURACY, val_metric=0.5, history=(epoch,))


@pytest.mark.parametrize("made_before", [False, True])
def test_a_run_writes_what_it_trains_and_what_it_recalls(tmp_path: Path, made_before: bool) -> None:
    folder = tmp_path / "run"
    if made_before:
        with open_run(folder, progress=Silent()) as run:
            run.step("train", learn, network=NETWORK)
        assert not (folder / BOARD_FOLDER).exists()
    with open_run(folder, progress=Silent(), tensorboard=True) as run:
        run.step("train", learn, network=NETWORK)
    name = ACCURACY.name if made_before else "share"
    assert curves(folder / BOARD_FOLDER) == [("train/loss", 1, 0.5), (f"train/val {name}", 1, 0.75)]


def test_one_is_told_what_shows_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(folder=tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "pip install 'karui[tensorboard]'" in board.how_to_look
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    assert board.how_to_look == f"curves: tensorboard --logdir {tmp_path}"
