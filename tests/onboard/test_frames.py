"""Messages between processes: they survive, and what is no message is refused without asking for memory."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.faults import FrameRefused
from pipeline.onboard.frames import Frame, read_frame, signature_from, signature_words, write_frame


def sent(frame: Frame) -> bytes:
    stream = io.BytesIO()
    write_frame(stream, frame)
    return stream.getvalue()


def read(data: bytes) -> Frame | None:
    return read_frame(io.BytesIO(data))


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.sampled_from(["<f4", "|i1", "|u1", "<i8", "<f2", "|b1"]).flatmap(
            lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["ask", "count", "Schlüssel"]), st.text() | st.integers() | st.none()),
)
def test_a_message_survives(arrays: dict[str, np.ndarray], words: dict[str, Any]) -> None:
    stream = io.BytesIO(sent(Frame(words, arrays)) + sent(Frame({"second": True})))
    first, second, end = (read_frame(stream) for _ in range(3))
    assert first is not None
    assert first.header == words
    assert list(first.arrays) == list(arrays)
    for name, array in arrays.items():
        assert (first.arrays[name].dtype, first.arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(first.arrays[name], array)
    assert second == Frame({"second": True})
    assert end is None


def test_it_may_end_between_messages_only() -> None:
    whole = sent(Frame({"ask": "run"}, {"x": np.zeros((2, 3))}))
    assert read(b"") is None
    for size in range(1, len(whole)):
        with pytest.raises(FrameRefused, match=r"ends after \d+ of \d+ bytes"):
            read(whole[:size])


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(FrameRefused, match="no message: it begins with b'INFO: Create"):
        read(b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.")
    for header, body in ((1 << 30, 0), (2, 1 << 40)):  # would be read into memory
        with pytest.raises(FrameRefused, match="no message"):
            read(struct.pack(">4sIQ", b"karu", header, body) + b"{}")


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"{", b""),
        (b"\xff\xff", b""),
        (b"[1]", b""),
        (b"3", b""),
        (b"{}", b""),
        (b'{"arrays": 3}', b""),
        (b'{"arrays": [["x", 5]]}', b""),
        (b'{"arrays": []}', b"left over"),
        (b'{"arrays": [["x", 4]]}', b"\x93NUM"),
        (b'{"arrays": [["x"]]}', b""),
    ],
)
def test_damaged_messages_are_refused(header: bytes, body: bytes) -> None:
    with pytest.raises(FrameRefused, match="damaged"):
        read(struct.pack(">4sIQ", b"karu", len(header), len(body)) + header + body)


def test_nothing_is_unpickled() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], object), allow_pickle=True)
    body = buffer.getvalue()
    header = json.dumps({"arrays": [["x", len(body)]]}).encode()
    with pytest.raises(FrameRefused, match="allow_pickle"):
        read(struct.pack(">4sIQ", b"karu", len(header), len(body)) + header + body)
    with pytest.raises(ValueError, match="allow_pickle"):
        sent(Frame({}, {"x": np.array([print], object)}))


def test_a_signature_survives() -> None:
    spec = TensorSpec("x", "float32", (3, 4, 5), "CHW")
    signature = Signature((spec,), (spec, TensorSpec("n", "int64", (), "")), {"n": "x"})
    assert signature_from(json.loads(json.dumps(signature_words(signature)))) == signature
