"""The map that a person clicks on: codes in two dimensions, as pixels and back."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np

from jvae.evaluation.projection import Plane
from jvae.reports import style
from jvae.reports.latent_plots import draw_codes
from jvae.reports.style import INK, ORANGE

SIZE = 560
"""Pixels of a side."""
MARGIN = 0.06
"""Of the codes' extent, on every side."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """A square picture of codes in a plane.

    Attributes:
      plane: where they are seen from.
      places: [N, 2], the codes in it.
      low: [2], the place of the lower left corner.
      high: [2], of the upper right one.
      image: the picture, RGBA, without a background, for a light page and a dark one.
    """

    plane: Plane
    places: np.ndarray
    low: np.ndarray
    high: np.ndarray
    image: Any

    @classmethod
    def of(cls, codes: np.ndarray, signs: np.ndarray | None = None) -> Chart:
        """Returns the map of codes [N, D]; each is drawn as its sign [N], a number."""
        plane = Plane.of(codes)
        places = plane.place(codes)
        low, high = places.min(0), places.max(0)
        center = (low + high) / 2.0
        half = (0.5 + MARGIN) * max(float((high - low).max()), 1e-6)
        low, high = center - half, center + half
        return cls(plane, places, low, high, _drawn(places, signs, low, high))

    def pixel(self, place: np.ndarray) -> tuple[float, float]:
        """Returns (column, row) of a place [2]; row 0 is the top."""
        share = (np.asarray(place) - self.low) / (self.high - self.low)
        return float(share[0] * SIZE), float((1.0 - share[1]) * SIZE)

    def place(self, column: float, row: float) -> np.ndarray:
        """Returns the place [2] of a pixel."""
        share = np.asarray([column / SIZE, 1.0 - row / SIZE])
        return self.low + share * (self.high - self.low)

    def nearest(self, place: np.ndarray) -> int:
        """Returns which code is nearest to a place [2]."""
        return int(np.argmin(((self.places - place) ** 2).sum(-1)))

    def marked(self, place: np.ndarray) -> Any:
        """Returns the picture with a ring and a cross at a place [2]."""
        from PIL import ImageDraw

        image = self.image.copy()
        pen = ImageDraw.Draw(image)
        x, y = np.clip(self.pixel(place), 0.0, SIZE)
        for color, width in (("white", 5), (ORANGE, 3)):
            pen.ellipse((x - 11, y - 11, x + 11, y + 11), None, color, width)
        pen.line((x - 17, y, x + 17, y), ORANGE, 2)
        pen.line((x, y - 17, x, y + 17), ORANGE, 2)
        return image


def _drawn(
    places: np.ndarray, signs: np.ndarray | None, low: np.ndarray, high: np.ndarray
) -> Any:
    """Returns the picture of the codes, whose edges are exactly `low` and `high`."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(SIZE / 100, SIZE / 100), dpi=100)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    draw_codes(axes, places, signs)
    for line in (axes.axhline, axes.axvline):
        line(0.0, color=INK, alpha=0.35, linewidth=0.8)
    return Image.open(io.BytesIO(style.png(figure, dpi=100))).convert("RGBA")
