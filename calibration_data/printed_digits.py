"""Printed digits, drawn from matplotlib's own fonts by seeded code: as many labelled samples as one likes.

Made as the UCI handwritten digits were (E. Alpaydin & C. Kaynak, "Cascading classifiers", Kybernetika 34, 1998): a
binary bitmap of 32×32 pixels, of which each value counts the set pixels in a block of 4×4.  So they are (1, 8, 8) with
values 0 … 16, and a network that knows them has a head start on handwriting.

Each glyph is kept as its signed distance field, which gives any size, slant, bend and weight of stroke by sampling.

Shapes: N samples, G = fonts * 10 glyphs, S side of a glyph's field, P = 32 * 32 pixels of a bitmap.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features
from scipy import ndimage

from pipeline.data.files import sha256_of_each
from pipeline.errors import ConfigError, DataError

SHAPE = (1, 8, 8)
DIGITS = tuple("0123456789")
classes = DIGITS
_DRAWING_VERSION = 1  # raise it when the same seed draws other pictures

# Fonts whose digits are digits; matplotlib's others hold symbols only.
_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBolIta.ttf",
    "cmb10.ttf",
    "cmmi10.ttf",
    "cmr10.ttf",
    "cmss10.ttf",
    "cmti10.ttf",
    "cmtt10.ttf",
)
_BITMAP_PX = 32
_BLOCK_PX = 4
_GLYPH_PX = 96  # height of a glyph in its field
_MARGIN_PX = 48  # around it, so that a thick or turned digit is not cut off
_FIELD_PX = _GLYPH_PX + 2 * _MARGIN_PX
_FONT_SIZE = 160
_NARROWEST = 0.35  # width / height below which a glyph (a "1") is not stretched to its own width
_AT_ONCE = 500  # samples drawn together: what they need stays in the processor's cache


@dataclass(frozen=True, kw_only=True)
class _Variety:
    """From where to where the drawing varies; lengths in pixels of the 32×32 bitmap."""

    height: tuple[float, float] = (24.0, 32.0)
    log_width: tuple[float, float] = (-0.25, 0.25)
    turn_deg: tuple[float, float] = (-18.0, 18.0)
    slant: tuple[float, float] = (-0.2, 0.5)  # sideways per pixel of height
    shift: tuple[float, float] = (-2.0, 2.0)
    bend: tuple[float, float] = (0.0, 1.0)  # of each of two slow waves
    wave: tuple[float, float] = (0.02, 0.06)  # their cycles per pixel
    grow: tuple[float, float] = (-0.4, 1.4)  # of the stroke's edge, outwards


def load(*, seed: int, samples: int) -> dict[str, NDArray[Any]]:
    """Draw so many digits, 0 1 2 … 9 0 1 …: x (N, 1, 8, 8) uint8, 0 … 16, and y (N,).

    The same ones for the same seed and Pillow.  Raises ConfigError for no samples, DataError when fonts are missing.
    """
    if samples < 1:
        raise ConfigError("options = { samples = … } says how many digits to draw, expected at least 1")
    labels = np.arange(samples, dtype=np.int64) % len(DIGITS)
    chance = _uniform((samples, 17), seed)
    pictures = np.empty((samples, *SHAPE), dtype=np.uint8)
    for start in range(0, samples, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        pictures[part, 0] = _count_blocks(_bitmaps(labels[part], chance[part], _Variety()))
    return {"x": pictures, "y": labels}


def fingerprint() -> str:
    """Return what the drawing depends on besides the card: font files, Pillow, FreeType, this code's version."""
    fonts = sha256_of_each(_font_files())
    versions = (f"drawing {_DRAWING_VERSION}", f"Pillow {PIL.__version__}", f"FreeType {features.version('freetype2')}")
    return "\n".join([*versions, *fonts])


def _uniform(shape: tuple[int, int], seed: int) -> NDArray[np.float64]:
    """Return numbers 0 … 1 from PCG64's raw output, which NumPy promises never to change."""
    raw = np.random.PCG64(np.random.SeedSequence([seed])).random_raw(shape)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53  # 53 bits: exact


def _count_blocks(bitmaps: NDArray[np.bool_]) -> NDArray[np.uint8]:
    blocks = _BITMAP_PX // _BLOCK_PX
    split = bitmaps.reshape(-1, blocks, _BLOCK_PX, blocks, _BLOCK_PX)
    counts: NDArray[np.uint8] = split.sum(axis=(2, 4), dtype=np.uint8)  # (N, 8, 8)
    return counts


def _bitmaps(labels: NDArray[np.int64], chance: NDArray[np.float64], v: _Variety) -> NDArray[np.bool_]:
    """Draw one bitmap per label: (N, P)."""
    fields, aspects = _glyphs()
    pick = (chance[:, 0] * len(_FONTS)).astype(np.int64) * len(DIGITS) + labels  # (N,) glyph
    height, log_width, turn, slant, shift_x, shift_y, grow = (
        low + (high - low) * chance[:, column, None]  # (N, 1)
        for column, (low, high) in enumerate(
            (v.height, v.log_width, v.turn_deg, v.slant, v.shift, v.shift, v.grow), start=1
        )
    )
    row, column = np.divmod(np.arange(_BITMAP_PX**2), _BITMAP_PX)
    centre = (_BITMAP_PX - 1) / 2
    x, y = _bent(column - centre - shift_x, row - centre - shift_y, chance[:, 8:], v)  # (N, P) each
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    x, y = cos * x + sin * y, cos * y - sin * x
    aspect = aspects[pick][:, None]
    across = aspect / np.maximum(aspect, _NARROWEST) / np.exp(log_width)
    scale = _GLYPH_PX / height  # pixels of the field per pixel of the bitmap
    distance = _sample(fields, pick, (x + slant * y) * across * scale, y * scale)
    return distance > -grow * scale


def _bent(
    x: NDArray[np.float64], y: NDArray[np.float64], chance: NDArray[np.float64], v: _Variety
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the places (N, P) moved by one slow wave along each axis; ``chance`` holds three numbers for each wave."""
    for first in (0, 3):
        depth, cycles, phase = (chance[:, first + number, None] for number in range(3))
        depth = v.bend[0] + (v.bend[1] - v.bend[0]) * depth
        cycles = v.wave[0] + (v.wave[1] - v.wave[0]) * cycles
        along, across = (y, x) if first == 0 else (x, y)
        moved = across + depth * np.sin(2 * np.pi * (cycles * along + phase))
        x, y = (moved, y) if first == 0 else (x, moved)
    return x, y


def _sample(
    fields: NDArray[np.float32], pick: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the distance of each place (N, P) from the edge of its glyph, in pixels of the field; inside it is > 0."""
    column = np.clip(x + _FIELD_PX / 2, 0, _FIELD_PX - 1).astype(np.int32)
    row = np.clip(y + _FIELD_PX / 2, 0, _FIELD_PX - 1).astype(np.int32)
    distance: NDArray[np.float32] = fields.ravel()[pick[:, None] * _FIELD_PX**2 + row * _FIELD_PX + column]
    return distance


# ── glyphs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _glyphs() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the signed distance field of every glyph (G, S, S) and its width / height (G,)."""
    fields = np.empty((len(_FONTS) * len(DIGITS), _FIELD_PX, _FIELD_PX), dtype=np.float32)
    aspects = np.empty(len(fields))
    for number, path in enumerate(_font_files()):
        font = ImageFont.truetype(str(path), _FONT_SIZE)
        for digit, text in enumerate(DIGITS):
            glyph = number * len(DIGITS) + digit
            fields[glyph], aspects[glyph] = _field(font, text)
    return fields, aspects


def _field(font: ImageFont.FreeTypeFont, text: str) -> tuple[NDArray[np.float32], float]:
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    picture = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(picture).text((-left, -top), text, font=font, fill=255)
    width = max(1, round(_GLYPH_PX * picture.width / picture.height))
    scaled = np.asarray(picture.resize((width, _GLYPH_PX), Image.Resampling.LANCZOS)) > 127
    inside = np.zeros((_FIELD_PX, _FIELD_PX), dtype=bool)
    start = (_FIELD_PX - width) // 2
    inside[_MARGIN_PX : _MARGIN_PX + _GLYPH_PX, start : start + width] = scaled
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    return distance.astype(np.float32), width / _GLYPH_PX


def _font_files() -> list[Path]:
    spec = importlib.util.find_spec("matplotlib")  # found without importing it, which would take longer than hashing
    roots = spec.submodule_search_locations if spec is not None and spec.submodule_search_locations else ["matplotlib"]
    folder = Path(roots[0]) / "mpl-data" / "fonts" / "ttf"
    for name in _FONTS:
        if not (folder / name).is_file():
            raise DataError(
                f"the font {name} is missing, from which printed digits are drawn",
                where=str(folder),
                remedy="install matplotlib from its wheel: pip install --force-reinstall matplotlib",
            )
    return [folder / name for name in _FONTS]
