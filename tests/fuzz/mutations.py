"""Changes of valid files: of bytes, of text, of trees as JSON has them.  All are drawn from a seeded ``Random``."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

_MOST_BYTES = 1 << 20  # what grows by repetition ends there
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
NUMBERS = (
    *("0", "-0", "-1", "1", "255", "256", "1e39", "1e308", "1e999", "-1e999", "nan", "inf", "-inf", "1_000", "0x10"),
    *("4294967296", "18446744073709551616", "9" * 40, "9" * 5000, "0.1", "1e-320", "١٢", "1,5", "true", "1e", ".5"),
)
STRINGS = (
    *("", " ", "\0", "a\0b", "~", "~nosuchuser/x", "/", "..", ".", "../" * 40, "/dev/null", "a" * 300, "x" * 70_000),
    *(
        "\u202egnp.exe",
        "\x1b[31m",
        "\ufeff",
        "\ud7ff\U0010ffff",
        "é",
        "e\u0301",
        "𝟙",
        "con",
        "%s%n",
        "{0}",
        "<b>",
        "'",
        '"',
    ),
    *(
        "nan",
        "None",
        "null",
        "-1",
        "1e999",
        "http://[::1",
        "file:///etc/passwd",
        "a\nb",
        "a\r\nb",
        "\u2028",
        "__proto__",
    ),
)


def mutated_bytes(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the seeds after one to four changes, or now and then nothing but noise."""
    if rng.random() < 0.03:
        return rng.randbytes(rng.choice((0, 1, 2, 4, 8, 100, 5000)))
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_OF_BYTES)(rng, data, seeds)
    return data[:_MOST_BYTES]


def _flip(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _place in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: rng.randint(0, len(data))]


def _cut_out(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randint(0, len(data))
    return data[:start] + data[start + rng.choice((1, 2, 4, 16, 100)) :]


def _insert(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randint(0, len(data))
    return (
        data[:start] + rng.choice((rng.randbytes(4), b"\0" * 16, b"\xff" * 8, b"\n", b'"', b"A" * 1000)) + data[start:]
    )


def _repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randint(0, len(data))
    piece = data[start : start + rng.choice((1, 8, 64, 512))]
    return data[:start] + piece * rng.choice((2, 3, 50)) + data[start:]


def _splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def _extreme(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Write an extreme number over one, which likelier stands near the beginning or the end: sizes, offsets, counts."""
    size = rng.choice((1, 2, 4, 4, 8))
    if len(data) < size:
        return data
    near = min(len(data) - size, rng.choice((16, 64, 256, len(data))))
    place = rng.randint(0, near) if rng.random() < 0.7 else len(data) - size - rng.randint(0, near)
    number = rng.choice(_EXTREMES) & ((1 << 8 * size) - 1)
    return data[:place] + number.to_bytes(size, rng.choice(("little", "big"))) + data[place + size :]


_OF_BYTES: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    _flip, _flip, _truncate, _cut_out, _insert, _repeat, _splice, _extreme, _extreme, _extreme,
)  # fmt: skip


# ── text ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def mutated_text(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the seeds, as text, after one to four changes of numbers, words and lines; a fifth as bytes."""
    if rng.random() < 0.2:
        return mutated_bytes(rng, seeds)
    text = rng.choice(seeds).decode()
    for _ in range(rng.choice((1, 1, 2, 4))):
        text = rng.choice(_OF_TEXT)(rng, text)
    return text.encode("utf-8", "surrogatepass")[:_MOST_BYTES]


def _other_number(rng: random.Random, text: str) -> str:
    return _replaced(rng, text, r"-?\d[\d.e+-]*", rng.choice(NUMBERS))


def _other_word(rng: random.Random, text: str) -> str:
    return _replaced(rng, text, r"[A-Za-z_][\w-]*", rng.choice((*STRINGS, *re.findall(r"\w+", text)[:50])))


def _other_sign(rng: random.Random, text: str) -> str:
    return _replaced(
        rng, text, r"[^\w\s]", rng.choice((",", ";", "\t", '"', "'", "[", "]", "{", "}", "=", ".", "#", "\0"))
    )


def _replaced(rng: random.Random, text: str, what: str, by: str) -> str:
    found = list(re.finditer(what, text))
    if not found:
        return text + by
    place = rng.choice(found)
    return text[: place.start()] + by + text[place.end() :]


def _other_lines(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    place = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            lines.insert(rng.randrange(len(lines) + 1), lines[place])
        case 1:
            del lines[place]
        case 2:
            rng.shuffle(lines)
        case 3:
            lines[place] *= 300
        case _:
            lines = lines[: place + 1]
    return "".join(lines)


def _put_in(rng: random.Random, text: str) -> str:
    place = rng.randint(0, len(text))
    depth = rng.choice((3, 200, 5000))
    pieces = (
        "[" * depth,
        "{a=" * depth,
        "a." * depth,
        '"',
        "'''",
        "\0",
        "\ufeff",
        "\u202e",
        "\r",
        "\n",
        ",",
        "\\",
        "#",
    )
    return text[:place] + rng.choice(pieces) + text[place:]


_OF_TEXT = (_other_number, _other_number, _other_word, _other_word, _other_sign, _other_lines, _put_in)


def mutated_toml(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the seeds with one to three values or keys replaced by others of TOML; a third as any text."""
    if rng.random() < 0.33:
        return mutated_text(rng, seeds)
    lines = rng.choice(seeds).decode().splitlines()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(len(lines))
        key, equals, value = lines[place].partition("=")
        if equals and rng.random() < 0.8:
            lines[place] = f"{key}= {_toml_value(rng)}"
        elif equals:
            lines[place] = f"{rng.choice((key * 2, 'x', _quoted(rng.choice(STRINGS)), key.strip() + '.a'))} ={value}"
        else:
            lines[place] = rng.choice(
                ("[a]", "[[split]]", "[input]", "[files.all]", "[x.y.z]", f"x = {_toml_value(rng)}")
            )
    return "\n".join(lines).encode()


def _toml_value(rng: random.Random, depth: int = 0) -> str:
    kinds = ("number", "string", "other", "list", "table") if depth < 3 else ("number", "string", "other")
    match rng.choice(kinds):
        case "number":
            return rng.choice(NUMBERS)
        case "string":
            return _quoted(rng.choice(STRINGS))
        case "list":
            return f"[{', '.join(_toml_value(rng, depth + 1) for _ in range(rng.randint(0, 4)))}]"
        case "table":
            keys = rng.sample(("a", "path", "samples", "min", "mean", "x"), rng.randint(0, 3))
            return f"{{{', '.join(f'{key} = {_toml_value(rng, depth + 1)}' for key in keys)}}}"
    return rng.choice(
        ("true", "false", "1979-05-27T07:32:00Z", "07:32:00", "1979-05-27", "[1, 2, 3]", "[0, 0, 0]", "[-1]")
    )


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


# ── trees ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def mutated_tree(rng: random.Random, tree: Any) -> Any:
    """Return a copy of what JSON can hold, with one value replaced, left out, doubled or wrapped."""
    ways = list(_ways(tree))
    way = rng.choice(ways)
    return _changed(rng, tree, way)


def _ways(tree: Any, way: tuple[Any, ...] = ()) -> Any:
    yield way
    if isinstance(tree, dict):
        for key, below in tree.items():
            yield from _ways(below, (*way, key))
    elif isinstance(tree, list):
        for place, below in enumerate(tree[:20]):
            yield from _ways(below, (*way, place))


def _changed(rng: random.Random, tree: Any, way: tuple[Any, ...]) -> Any:
    if not way:
        return _other_value(rng, tree)
    key, *rest = way
    if not rest and rng.random() < 0.15:
        return {k: v for k, v in tree.items() if k != key} if isinstance(tree, dict) else tree[:key] + tree[key + 1 :]
    if isinstance(tree, dict):
        return {k: _changed(rng, v, tuple(rest)) if k == key else v for k, v in tree.items()}
    return [_changed(rng, v, tuple(rest)) if place == key else v for place, v in enumerate(tree)]


def _other_value(rng: random.Random, value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, -value, 0, value * 2, 10**6, 2**31, 2**63, 1e39, 1e308, 0.25))
    if isinstance(value, list) and value and rng.random() < 0.5:
        return rng.choice((value * 2, value[::-1], [], value[:1], [value], [*value, 0], value * 1000))
    return rng.choice((None, True, 0, -1, 1, 10**9, 10**400, 1e300, 0.5, [], {}, [[]], [1, 2], {"a": 1}, *STRINGS[:20]))
