"""Pictures in files as raw input of a network: upright, on a background, in the colours and at the size that it takes.

Training and the device read with these very lines.  Needs Pillow, which nothing else in this folder does.  No picture
is unpacked before its header was looked at.

Shapes: C channels, H height, W width.
"""

from __future__ import annotations

import struct
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.faults import FileRefused

# what Pillow reads by itself and tells apart by its first bytes; of moving pictures, the first one
_NEWER = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()  # Pillow from 11.3
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "PCX", "ICO", "SGI", "DIB", *_NEWER)
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "La", "RGBa", "CMYK", "YCbCr"})
_MASK_MODES = frozenset({"1", "L", "P"})  # a number per pixel: the class, or the place in the palette
_MOST_COLOURS = 256  # of a palette
_MOST_PIXELS = 90_000_000  # that are unpacked at once
UNREADABLE = (  # what Pillow raises for damaged and for hostile files
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    TypeError,
    RuntimeError,  # of AVIF
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_ORIENTATION = 0x0112  # EXIF 2.3, tag Orientation → what brings the stored pixels upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = 5  # and all above: height and width change places

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # sizes are looked at here
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damaged notes: a viewer shows such pictures


def check_picture(path: Path, form: PictureForm) -> None:
    """Read the header only.  Raises FileRefused for what is no picture, or none of this size."""
    _open(path, form).close()


def size_and_mode(path: Path) -> tuple[tuple[int, int], str]:
    """Return (width, height) as viewers show a picture, and Pillow's mode; its header alone is read.

    Raises FileRefused.
    """
    with _opened(path) as picture:
        return _upright_size(picture), picture.mode


def read_picture(path: Path, form: PictureForm) -> NDArray[np.uint8]:
    """Return the picture in a file as (C, H, W).  Raises FileRefused."""
    try:
        with _open(path, form) as picture:
            upright = _upright(_smaller(picture, path, form))
            converted = _on_background(upright, form).convert("L" if form.shape[0] == 1 else "RGB")
            sized = _sized(converted, form, Image.Resampling.BILINEAR)
    except UNREADABLE as error:
        raise _damaged(path, error) from error
    pixels = np.asarray(sized, dtype=np.uint8)  # (H, W) or (H, W, C)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_mask(path: Path, form: PictureForm) -> NDArray[Any]:
    """Return a mask (H, W): the number of each pixel, of a palette where the file has one.  Raises FileRefused."""
    try:
        with _open(path, form) as picture:
            if picture.mode not in _MASK_MODES:
                raise FileRefused(
                    f"is a picture of mode {picture.mode}, expected one number per pixel",
                    where=str(path),
                    remedy="save masks as grey or palette PNG: the value of a pixel is the number of its class",
                )
            _check_pixels(picture, path)
            return np.asarray(_sized(_upright(picture), form, Image.Resampling.NEAREST), dtype=np.uint8)
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def _open(path: Path, form: PictureForm) -> Image.Image:
    """Read the header only, and refuse what is not a picture of this size with 8 bits per value."""
    picture = _opened(path)
    channels, height, width = form.shape
    found = _upright_size(picture)
    if not form.resize and found != (width, height):
        picture.close()
        raise FileRefused(
            f"is {found[0]}×{found[1]} pixels (width×height), expected {width}×{height}",
            where=str(path),
            remedy=f'write resize = "fit", "crop" or "squash" into [input], or shape = [{channels}, {found[1]}, '
            f"{found[0]}], or scale the pictures",
        )
    if picture.mode not in _EIGHT_BIT_MODES:
        picture.close()
        raise FileRefused(
            f"has pixels of mode {picture.mode}, expected 8 bits per value",
            where=str(path),
            remedy="save it with 8 bits per value",
        )
    return picture


def _opened(path: Path) -> Image.Image:
    try:
        picture = Image.open(path, formats=_FORMATS)
    except UNREADABLE as error:
        raise _damaged(path, error) from error
    if picture.format == "TIFF":  # Pillow would map the file into memory with the sides that it has once it is turned
        picture.filename = ""
    return picture


def _damaged(path: Path, error: BaseException) -> FileRefused:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return FileRefused(
        f"is no readable picture ({', '.join(_FORMATS[:6])} …): {said}",
        where=str(path),
        remedy="replace the file or remove it",
    )


def write_mask(path: Path, mask: NDArray[Any]) -> None:
    """Write the class of each pixel (H, W) as a PNG whose values are the numbers of the classes.

    Up to 256 classes have colours, those of PASCAL VOC; more are 16-bit grey.
    """
    if mask.max(initial=0) > _MOST_COLOURS - 1:
        Image.fromarray(mask.astype(np.uint16)).save(path, format="PNG")
        return
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette([_channel(number >> shift) for number in range(_MOST_COLOURS) for shift in range(3)])
    picture.save(path, format="PNG")


def _channel(number: int) -> int:
    """Return red, green or blue of a class: every third bit of its number, the lowest first, from the top down."""
    return sum((number >> 3 * place & 1) << 7 - place for place in range(3))


# ── size ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _smaller(picture: Image.Image, path: Path, form: PictureForm) -> Image.Image:
    """Let a JPEG unpack at a half, a quarter or an eighth where more than twice what is wanted remains."""
    if form.resize:
        picture.draft(None, (2 * max(form.shape[1:]),) * 2)  # either way up
    _check_pixels(picture, path)
    return picture


def _check_pixels(picture: Image.Image, path: Path) -> None:
    if picture.width * picture.height > _MOST_PIXELS:
        raise FileRefused(
            f"has {picture.width}×{picture.height} pixels, expected at most {_MOST_PIXELS:,}",
            where=str(path),
            remedy="scale it down",
        )


def _sized(picture: Image.Image, form: PictureForm, resampling: Image.Resampling) -> Image.Image:
    """Bring a picture to its size, to the pixel as Pillow's ``ImageOps.pad`` ("fit") and ``ImageOps.fit`` ("crop")."""
    _, height, width = form.shape
    if form.resize == "fit":
        inner = _inside(picture, width, height)
        framed = Image.new(picture.mode, (width, height), _colour(form.background, picture.mode))
        corner = (round((width - inner[0]) * 0.5), round((height - inner[1]) * 0.5))
        framed.paste(picture.resize(inner, resampling), corner)
        return framed
    box = (0.0, 0.0, float(picture.width), float(picture.height))
    if form.resize == "crop":
        wider = picture.width / picture.height >= width / height
        kept_width = width / height * picture.height if wider else picture.width
        kept_height = picture.height if wider else picture.width / (width / height)
        left, top = (picture.width - kept_width) * 0.5, (picture.height - kept_height) * 0.5
        box = (left, top, left + kept_width, top + kept_height)
    return picture.resize((width, height), resampling, box) if form.resize else picture


def _inside(picture: Image.Image, width: int, height: int) -> tuple[int, int]:
    """Return the largest size of the same proportions that fits in, one pixel at least."""
    if picture.width / picture.height > width / height:
        return width, max(1, round(picture.height / picture.width * width))
    return max(1, round(picture.width / picture.height * height)), height


# ── colours ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _on_background(picture: Image.Image, form: PictureForm) -> Image.Image:
    """Lay what is transparent on the background: what lies hidden below it is nobody's picture."""
    if not picture.has_transparency_data:
        return picture
    straight = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)  # alpha that is multiplied in already
    above = picture.convert(straight).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, (*form.background, 255)), above)


def _colour(background: tuple[int, int, int], mode: str) -> int | tuple[int, ...]:
    if mode == "RGB":
        return background
    red, green, blue = background
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16  # as Pillow makes grey (ITU-R BT.601)


# ── upright ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF note says and as every viewer shows it."""
    how = _UPRIGHT.get(_turn(picture))
    return picture.transpose(how) if how is not None else picture


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    width, height = picture.size
    return (height, width) if _turn(picture) >= _ON_ITS_SIDE else (width, height)


def _turn(picture: Image.Image) -> int:
    """Return the orientation that is noted, 1 … 8; 1: it is upright."""
    if picture.format == "TIFF":  # Pillow turns these itself
        return 1
    if picture.format == "PNG" and "exif" not in picture.info:  # to look for more, Pillow would unpack it
        return 1
    try:
        turn = picture.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:  # a viewer shows a picture with a damaged note, too
        return 1
    return turn if turn in _UPRIGHT else 1
