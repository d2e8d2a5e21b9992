"""TFLite Metadata: what Android and MediaPipe read about a model, as a flatbuffer inside it and files behind it.

Follows tensorflow_lite_support/metadata/metadata_schema.fbs, version 1.1.0; the numbers of tables' fields are those of
its lines.  The same contents always give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import flatbuffers

from pipeline.onboard.about import LABELS_FILE, PICTURE, PROBABILITIES, About, Input, Output, labels_text

NAME = "TFLITE_METADATA"  # of the metadata entry whose buffer holds the flatbuffer
FILE_IDENTIFIER = b"M001"
_MIN_PARSER_VERSION = "1.0.0"  # nothing younger is written here
_ROOM_BYTES = 1 << 10  # the builder grows when it is not enough
_DESCRIPTIONS, _TENSOR_AXIS_LABELS = 1, 2  # AssociatedFileType
_RGB, _GRAYSCALE = 1, 2  # ColorSpaceType
_FEATURE, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions
_LARGEST_PIXEL = 255


@dataclass(frozen=True, kw_only=True)
class _Scalar:
    """A number in a table, and how the builder writes one of its type."""

    value: int
    write: Callable[[flatbuffers.Builder, int, int, int], None]


_byte = partial(_Scalar, write=flatbuffers.Builder.PrependInt8Slot)
_uint = partial(_Scalar, write=flatbuffers.Builder.PrependUint32Slot)
_int = partial(_Scalar, write=flatbuffers.Builder.PrependInt32Slot)
_Table = Mapping[int, "_Field | None"]  # number of the field in the schema → value; None: left out
_Field = str | _Scalar | _Table | Sequence[_Table] | Sequence[float]


def metadata_of(about: About) -> bytes:
    """Return a ModelMetadata flatbuffer that says what ``about`` says, as far as its schema has words for it."""
    on_axis = any(_labels_an_axis(about, each) for each in about.outputs)
    model: _Table = {
        0: about.recipe,
        1: f"{about.task}, trained on {about.data}; written by karui {about.karui}, whose own metadata says more",
        3: [
            {
                0: "main",
                2: [_input(each) for each in about.inputs],
                3: [_output(about, each) for each in about.outputs],
            }
        ],
        6: [_labels(_DESCRIPTIONS)] if about.labels and not on_axis else None,
        7: _MIN_PARSER_VERSION,
    }
    builder = flatbuffers.Builder(_ROOM_BYTES)
    builder.Finish(_packed(builder, model), FILE_IDENTIFIER)
    return bytes(builder.Output())


def with_files(content: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return a model with files behind it, as an archive that begins with the model; itself where there are none."""
    if not files:
        return content
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:  # stored: some readers map them from the file
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # dated 1980: the same bytes every time
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return whole.getvalue()


def files_of(about: About) -> dict[str, bytes]:
    """Return the files that ``metadata_of`` names."""
    return {LABELS_FILE: labels_text(about.labels).encode()} if about.labels else {}


# ── tensors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _input(source: Input) -> _Table:
    steps = ", then ".join(call.step for call in source.steps) or "nothing"
    scaled = _scaled(source)
    return {
        0: source.name,
        1: f"{source.raw.named}; done to it beforehand: {steps}",
        3: _image(source) if source.raw.kind == PICTURE else {0: _byte(value=_FEATURE), 1: {}},
        4: [{0: _byte(value=_NORMALIZATION), 1: dict(enumerate(map(list, zip(*scaled, strict=True))))}]
        if scaled
        else None,
        5: _stats(source, scaled),
    }


def _image(source: Input) -> _Table:
    _, height, width = source.raw.shape
    colours = _byte(value=_GRAYSCALE if source.raw.colours == "L" else _RGB)
    size: _Table = {0: _uint(value=width), 1: _uint(value=height)}
    return {0: _byte(value=_IMAGE), 1: {0: colours, 1: size}}


def _scaled(source: Input) -> list[tuple[float, float]]:
    """Return mean and std of each channel, with (raw - mean) / std as all that is done; none where more is done."""
    if [call.step for call in source.steps] not in ([], ["normalize"]):
        return []
    settings = source.steps[0].settings if source.steps else {}
    divide = float(settings.get("divide", 1.0))
    mean, std = (list(map(float, settings.get(name, (usual,)))) for name, usual in (("mean", 0.0), ("std", 1.0)))
    count = max(len(mean), len(std))
    pairs = zip(mean * (count // len(mean)), std * (count // len(std)), strict=True)
    found = [(divide * middle, divide * spread) for middle, spread in pairs]
    return found[:1] if len(set(found)) == 1 else found  # one value stands for all; some readers know nothing else


def _stats(source: Input, scaled: Sequence[tuple[float, float]]) -> _Table | None:
    """Return the range of the values that the tensor takes, where it is known."""
    if source.stored.scale:
        return {0: [127.0], 1: [-128.0]}
    if source.raw.kind != PICTURE or not scaled:
        return None
    return {0: [(_LARGEST_PIXEL - mean) / std for mean, std in scaled], 1: [-mean / std for mean, std in scaled]}


def _output(about: About, output: Output) -> _Table:
    probabilities = output.holds == PROBABILITIES and not output.stored.scale
    maps: _Table = {0: _byte(value=_IMAGE), 1: {0: _byte(value=_GRAYSCALE)}, 2: {0: _int(value=1), 1: _int(value=2)}}
    return {
        0: output.name,
        1: output.holds + (f", times {output.times:g}" if output.times != 1 else ""),
        3: maps if len(output.shape) == 3 else {0: _byte(value=_FEATURE), 1: {}},
        5: {0: [1.0], 1: [0.0]} if probabilities else None,
        6: [_labels(_TENSOR_AXIS_LABELS)] if _labels_an_axis(about, output) else None,
    }


def _labels_an_axis(about: About, output: Output) -> bool:
    """Tell whether there is a label for each value of the output's first axis: yes or no is one value."""
    return bool(about.labels) and output.shape[:1] == (len(about.labels),)


def _labels(kind: int) -> _Table:
    return {0: LABELS_FILE, 1: "one label per line, in the order of their numbers", 2: _byte(value=kind)}


# ── packing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _packed(builder: flatbuffers.Builder, table: _Table) -> int:
    """Write a table behind all that it refers to; return where it stands."""
    given = {number: value for number, value in table.items() if value is not None}
    places = {n: _written(builder, value) for n, value in given.items() if not isinstance(value, _Scalar)}
    builder.StartObject(max(given, default=-1) + 1)
    for number, value in given.items():
        if isinstance(value, _Scalar):
            value.write(builder, number, value.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, places[number], 0)
    return int(builder.EndObject())


def _written(builder: flatbuffers.Builder, value: str | _Table | Sequence[_Table] | Sequence[float]) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Mapping):
        return _packed(builder, value)
    places = [_packed(builder, each) for each in value if isinstance(each, Mapping)]
    builder.StartVector(4, len(value), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    for each in reversed([number for number in value if isinstance(number, float)]):
        builder.PrependFloat32(each)
    return int(builder.EndVector())
