"""One picture file to one array, with every conversion defined."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jvae.data.libraries import library
from jvae.errors import DataError, require_data

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""Pillow's modes for a 16-bit gray PNG; older versions say 'I'."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read, by its content; of others Pillow may start a program."""
MAX_PIXELS = 2**25
"""Of a picture: decoded it takes 100 MB, and a thread for every core decodes one."""
ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is turned, 1 to 8."""
PHOTOMETRIC = 0x0106
"""The TIFF tag that is 1 where large numbers are white."""
PARSERS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow raises at files that are not what they say."""
COLOR = ("RGB", "CMYK", "YCbCr", "LAB", "HSV", "P")


def refuse_bombs() -> None:
    """Makes Pillow refuse, not only warn of, pictures over 89 million pixels."""
    warnings.simplefilter("error", _pillow().DecompressionBombWarning)


def size(file: Path, turned: bool = True) -> tuple[int, int]:
    """Returns (height, width) from the header of a picture.

    Args:
      file: of one of `FORMATS`.
      turned: whether it is turned as its EXIF says.

    Raises:
      DataError: it is no picture, or larger than Pillow allows.
    """
    with _open(file) as picture:
        is_on_its_side = turned and _orientation(picture) in (5, 6, 7, 8)
        width, height = picture.size
        return (width, height) if is_on_its_side else (height, width)


def content(file: Path) -> bytes:
    """Returns the bytes of a picture.

    Raises:
      DataError: it cannot be read.
    """
    with _readable(file):
        return file.read_bytes()


def decode(file: Path, turned: bool = True) -> Any:
    """Returns Pillow's image of `file` in mode 'L' or 'RGB'.

    Transparent parts are laid over white. 16-bit gray is scaled to 8 bits; of 16-bit
    colour Pillow keeps the high byte. Palettes and CMYK become RGB. Of an animation the
    first frame counts. EXIF that cannot be read is passed over.

    Args:
      file: of one of `FORMATS`.
      turned: whether it is turned and mirrored as its EXIF says, the way viewers show
        it; Pillow turns TIFF files in any case.

    Raises:
      DataError: it is damaged, larger than Pillow allows, or of a pixel format without
        a defined conversion.
    """
    with _open(file) as picture, _readable(file):
        orientation = _orientation(picture) if turned else 1
        picture.load()
        pixels, turn = _eight_bits(picture, file), _turns().get(orientation)
        return pixels if turn is None else pixels.transpose(turn)


def fit(
    picture: Any, height: int, width: int, crop: int | None, where: str
) -> np.ndarray:
    """Returns the centre of a picture as uint8 [height, width, channels].

    Args:
      picture: Pillow's image, of mode 'L' or 'RGB'.
      height: of the result, in pixels.
      width: of the result, in pixels.
      crop: side in pixels of the centred square that is resized; None takes the
        largest centred area of the proportions height:width.
      where: the picture's name, for the message.

    Raises:
      DataError: the picture is smaller than `crop`.
    """
    rule = f"be at most the picture's {picture.height}x{picture.width}"
    require_data((crop or 0) <= min(picture.size), "crop", rule, crop, where=where)
    scale = min(picture.height / height, picture.width / width)
    high = crop or max(1, round(height * scale))
    wide = crop or max(1, round(width * scale))
    top, left = (picture.height - high) // 2, (picture.width - wide) // 2
    center = picture.crop((left, top, left + wide, top + high))
    bicubic = _pillow().Resampling.BICUBIC
    pixels = np.asarray(center.resize((width, height), bicubic))
    return pixels.reshape(height, width, -1)


def _pillow() -> Any:
    """Returns the module PIL.Image."""
    return library("PIL.Image", "pillow")


def _open(file: Path) -> Any:
    """Returns Pillow's image of `file`, of which only the header has been read."""
    with _readable(file):
        picture = _pillow().open(file, formats=FORMATS)
        if picture.width * picture.height > MAX_PIXELS:
            size = f"{picture.height}x{picture.width}"
            picture.close()
            raise OSError(f"its {size} pixels are more than {MAX_PIXELS:,}")
        return picture


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """A context in which what Pillow raises becomes a DataError that names `file`.

    It does at files that are damaged, huge or no pictures.
    """
    bombs = (_pillow().DecompressionBombError, _pillow().DecompressionBombWarning)
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):  # of a pipe open would not return
            raise OSError("it is no file")
        if status.st_size == 0:
            raise OSError("it is empty")
        yield
    except DataError:
        raise
    except (*bombs, *PARSERS) as error:
        raise DataError(
            f"the picture cannot be read: {error}",
            where=str(file),
            fix="Remove it, or set data.on_bad_image to 'skip'.",
        ) from error


def _orientation(picture: Any) -> Any:
    """Returns how a picture is turned, 1 to 8, by its header; anything of damaged EXIF.

    Pillow turns TIFF files itself, and would decode a PNG to look for EXIF behind it.
    """
    has_no_exif = picture.format == "PNG" and "exif" not in picture.info
    if has_no_exif or picture.format == "TIFF":
        return 1
    try:
        return picture.getexif().get(ORIENTATION, 1)
    except PARSERS:
        return 1


def _turns() -> dict[int, Any]:
    """Returns what makes a picture upright, by its orientation; 1 needs nothing."""
    turn = _pillow().Transpose
    return {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }


def _is_deep_gray(picture: Any) -> bool:
    """Returns whether pixels are gray from 0, black, to 65535, white."""
    if picture.format == "TIFF":  # 'I' has 32 bits there
        is_white_high = picture.tag_v2.get(PHOTOMETRIC) == 1
        return picture.mode in DEEP and picture.mode != "I" and is_white_high
    return picture.mode in DEEP and picture.format == "PNG"


def _eight_bits(picture: Any, file: Path) -> Any:
    """Returns the picture in mode 'L' or 'RGB', without transparency."""
    image = _pillow()

    if _is_deep_gray(picture):
        if "transparency" in picture.info:
            raise DataError("16-bit gray with transparency", where=str(file))
        # v / 257, rounded; Pillow's own conversion cuts everything above 255.
        deep = np.asarray(picture).astype(np.uint32)
        return image.fromarray(((deep + 128) // 257).astype(np.uint8))

    if picture.has_transparency_data:
        colors = picture.convert("RGBA")
        white = image.new("RGBA", colors.size, "white")
        return image.alpha_composite(white, colors).convert("RGB")

    if picture.mode in ("1", "L"):
        return picture.convert("L")
    if picture.mode in COLOR:
        return picture.convert("RGB")

    raise DataError(
        f"pixel format {picture.mode} has no defined conversion to 8 bits",
        where=str(file),
        fix="Save it as 8-bit gray or RGB.",
    )
