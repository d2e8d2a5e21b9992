"""Changes that keep a container whole, so that what lies inside is reached: zip, .npy, gzip, PNG, safetensors."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from tests.fuzz.mutations import STRINGS, mutated_bytes, mutated_tree

_DTYPES = (
    "|O",
    "<f4",
    ">f8",
    "<f2",
    "<c16",
    "<U4",
    "|S3",
    "|V8",
    "|b1",
    "<M8[ns]",
    "<i8",
    "<u8",
    "[('a','<f4')]",
    "<f3",
    "",
)
_SHAPES = (
    *("()", "(0,)", "(-1,)", "(2**40,)", "(1099511627776, 4)", "(99999999999999999999,)", "(4,)", "(1,1,1,1)"),
    *("(True,)", "(4", "None", "(" * 200, "(1e3,)", "'a'", "(60, 4, 0)", "(" + "1," * 70 + ")"),
)
_BOMB_BYTES = 64 << 20


def mutated_npy(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return an array whose header says another shape, type, order or length; a third as bytes."""
    data = rng.choice(seeds)
    found = re.search(rb"\{.*?\}", data[:200])
    if rng.random() < 0.35 or found is None:
        return mutated_bytes(rng, seeds)
    header, rest = found[0].decode(), data[10 + struct.unpack("<H", data[8:10])[0] :]
    match rng.randrange(4):
        case 0:
            header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {rng.choice(_DTYPES)!r}", header)
        case 1:
            header = re.sub(r"\([^)]*\)", lambda _: rng.choice(_SHAPES), header)
        case 2:
            header = header.replace("False", rng.choice(("True", "None", "1", "'x'")))
        case _:
            header = rng.choice(
                (header[1:], header * 2, header.replace("shape", "sh"), header + "\0", "[" * 5000, "{}")
            )
    if rng.random() < 0.3:
        rest = rest[: rng.randint(0, len(rest))]
    text = header.encode() + b" " * 8 + b"\n"
    length = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 0xFFFF))
    version = rng.choice((b"\1\0", b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\xff\0"))
    size = struct.pack("<H" if version == b"\1\0" else "<I", length)
    return b"\x93NUMPY" + version + size + text + rest


def mutated_zip(inside: Callable[[random.Random, Sequence[bytes]], bytes]) -> Callable[..., bytes]:
    """Return what changes one member of an archive by ``inside``, or the archive's own records; some as bytes."""

    def mutate(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
        if rng.random() < 0.25:
            return mutated_bytes(rng, seeds)
        with zipfile.ZipFile(io.BytesIO(rng.choice(seeds))) as archive:
            members = [(each.filename, archive.read(each)) for each in archive.infolist()]
        place = rng.randrange(len(members))
        name, content = members[place]
        match rng.randrange(8):
            case 0 | 1 | 2 | 3:
                members[place] = (name, inside(rng, [content]))
            case 4:
                members[place] = (rng.choice((*STRINGS[:20], "../" + name, "/" + name, name + "/", "x.npy")), content)
            case 5:
                members.insert(rng.randrange(len(members) + 1), (name, inside(rng, [content])))
            case 6:
                del members[place]
            case _:
                zeros = bytes(rng.choice((*(1 << 10, 1 << 16) * 8, _BOMB_BYTES)))
                members[place] = (name, content[:128] + zeros)
        return _with_odd_records(rng, _zipped(rng, members))

    return mutate


def _zipped(rng: random.Random, members: Sequence[tuple[str, bytes]]) -> bytes:
    written = io.BytesIO()
    how = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    with warnings.catch_warnings(), zipfile.ZipFile(written, "w", how) as archive:
        warnings.simplefilter("ignore")  # two members of one name are meant
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "")[:60_000] or "a"), content, how)
    return written.getvalue()


def _with_odd_records(rng: random.Random, data: bytes) -> bytes:
    """Let, in a third of the archives, a record say something else than what is there: size, method, flags, offset."""
    if rng.random() > 0.35:
        return data
    mark, fields = rng.choice(((b"PK\3\4", (6, 8, 14, 18, 22, 26, 28)), (b"PK\1\2", (8, 10, 16, 20, 24, 28, 30, 42))))
    places = [found.start() for found in re.finditer(re.escape(mark), data)]
    place = rng.choice(places or [0]) + rng.choice(fields)
    value = rng.choice((0, 1, 8, 99, 0xFFFF, 2**31 - 1, 2**32 - 1, rng.randrange(2**32)))
    size = 2 if place % 4 != 2 else rng.choice((2, 4))
    return data[:place] + (value & ((1 << 8 * size) - 1)).to_bytes(size, "little") + data[place + size :]


def mutated_gzip(inside: Callable[[random.Random, Sequence[bytes]], bytes]) -> Callable[..., bytes]:
    """Return what changes a file by ``inside`` and zips half of the results, some of them damaged."""

    def mutate(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
        data = inside(rng, seeds)
        if rng.random() < 0.5:
            return data
        zipped = gzip.compress(data, 1, mtime=0)
        return mutated_bytes(rng, [zipped]) if rng.random() < 0.3 else zipped

    return mutate


def mutated_picture(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a picture with other bytes; of a PNG, two thirds have a changed chunk whose checksum is right."""
    data = rng.choice(seeds)
    if not data.startswith(b"\x89PNG") or rng.random() < 0.35:
        return mutated_bytes(rng, [data, *seeds])
    chunks = _png_chunks(data)
    place = rng.randrange(len(chunks)) if rng.random() < 0.6 else 0
    kind, content = chunks[place]
    if kind == b"IHDR" and rng.random() < 0.7:
        side = rng.choice((0, 1, 9000, 65_535, 2**31 - 1, 2**32 - 1))
        depth, colour = rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 7))
        content = struct.pack(">IIBB", side, rng.choice((1, 8, 9000, side)), depth, colour) + content[10:]
    elif kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(bytes(rng.choice((0, 10, 1000, 1 << 24))))
    else:
        content = mutated_bytes(rng, [content, b"", b"\0" * 32])
    chunks[place] = (rng.choice((kind, kind, kind, b"tRNS", b"PLTE", b"eXIf", b"acTL", b"zTXt", b"iCCP")), content)
    return data[:8] + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place + 8 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += size + 12
    return chunks


def mutated_safetensors(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return weights whose header says something else: types, shapes, offsets, metadata; a quarter as bytes."""
    if rng.random() < 0.25:
        return mutated_bytes(rng, seeds)
    data = rng.choice(seeds)
    (size,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    for _ in range(rng.choice((1, 1, 2))):
        header = mutated_tree(rng, header)
    if isinstance(header, dict) and rng.random() < 0.4:
        for each in header.values():
            if isinstance(each, dict) and "dtype" in each:
                each["dtype"] = rng.choice(
                    ("F64", "F8_E4M3", "F8_E5M2", "BF16", "F16", "I4", "BOOL", "U64", "C64", "X")
                )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if rng.random() < 0.9 else rng.choice((0, 2**40, 2**64 - 1))) + text + rest


def mutated_json(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return JSON with one to three values replaced; a quarter as text."""
    text = rng.choice(seeds)
    if rng.random() < 0.25:
        from_text = mutated_bytes(rng, [text])
        return from_text if rng.random() < 0.9 else b"[" * 5000
    tree = json.loads(text)
    for _ in range(rng.choice((1, 1, 2))):
        tree = mutated_tree(rng, tree)
    return json.dumps(tree).encode()


def mutated_model(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a model file with other bytes; of three quarters, what it says about itself stays as it is."""
    data = rng.choice(seeds)
    begin, end = data.find(b'{"recipe"'), data.rfind(b"}") + 1
    if rng.random() < 0.25 or begin < 0:
        return mutated_bytes(rng, seeds)
    changed = bytearray(data)
    places = [place for place in range(len(data) - 4) if not begin - 4 < place < end]
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.choice(places)
        if rng.random() < 0.5:
            changed[place] ^= 1 << rng.randrange(8)
        else:
            changed[place : place + 4] = rng.choice((0, 1, 255, 2**31 - 1, 2**32 - 1)).to_bytes(4, "little")
    return bytes(changed)


def idx_bytes(array: np.ndarray) -> bytes:
    """Return an array of bytes as IDX has it."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
