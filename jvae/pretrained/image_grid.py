"""Pictures for people: grids of images, as arrays and PNG bytes."""

from __future__ import annotations

import base64
import dataclasses
import io
import math

import jax.numpy as jnp
import numpy as np
from etils import epath

from jvae.errors import require
from jvae.pretrained.trained_model import TrainedModel
from jvae.types import Array
from jvae.workdir import files

COLUMNS = 10
"""Images in a row."""
MIN_TILE = 56
"""Pixels that the shorter side of a tile has at least: an 8x8 digit can be read."""
GAP = 128
"""The grey between tiles, seen next to black and white images, on any page."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file of a report.

    Attributes:
      file: its name.
      title: a few words.
      caption: what is seen, for those who see it and those who do not.
      png: its bytes.
    """

    file: str
    title: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI, so that a page needs no other file."""
        return data_uri(self.png)


def data_uri(png: bytes) -> str:
    """Returns a picture as a URI that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def sheet(trained: TrainedModel, images: Array | np.ndarray, columns: int) -> bytes:
    """Returns the PNG of images [..., H, W, C] in the support of the likelihood.

    Args:
      trained: the model that they are of.
      images: row by row, as many axes before H as there are.
      columns: images in a row.
    """
    unit = np.asarray(trained.transform.to_unit(jnp.asarray(images)))
    flat = unit.reshape(-1, *unit.shape[-3:])
    return encode_png(grid(flat, columns))


def grid(
    images: np.ndarray, columns: int, pad: int = 4, min_tile: int = MIN_TILE
) -> np.ndarray:
    """Returns the images side by side, uint8 [height, width, 1 or 3], row by row.

    Small images are magnified by a whole factor, every pixel a square.

    Args:
      images: [N, H, W, C] in [0, 1]; three channels are colours, else their mean is
        shown.
      columns: images in a row; the last row may be short.
      pad: pixels between and around them.
      min_tile: pixels that the shorter side of an image has at least.

    Raises:
      ConfigError: no images, or columns below 1.
    """
    images = np.asarray(images, np.float32)
    require(images.ndim == 4 and len(images) > 0, "images", "be [N, H, W, C]", images)
    require(columns >= 1, "columns", "be at least 1", columns)
    if images.shape[-1] != 3:
        images = images.mean(-1, keepdims=True)
    bright = np.nan_to_num(np.clip(images, 0.0, 1.0)) * 255.0
    factor = max(1, math.ceil(min_tile / min(images.shape[1:3])))
    tiles = np.round(bright).astype(np.uint8).repeat(factor, 1).repeat(factor, 2)
    count, height, width, channels = tiles.shape
    columns, step_y, step_x = min(columns, count), height + pad, width + pad
    shape = (-(-count // columns) * step_y + pad, columns * step_x + pad, channels)
    sheet = np.full(shape, GAP, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * step_y + pad, (i % columns) * step_x + pad
        sheet[top : top + height, left : left + width] = tile
    return sheet


def encode_png(array: np.ndarray) -> bytes:
    """Returns a PNG file of uint8 [height, width, 1 or 3]."""
    from PIL import Image

    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_png(path: epath.PathLike, array: np.ndarray) -> None:
    """Writes uint8 [height, width, 1 or 3] as a PNG file."""
    files.write_whole(epath.Path(path), encode_png(array))
