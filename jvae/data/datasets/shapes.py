"""Drawings whose factors are known: shape, size, rotation and place."""

from __future__ import annotations

import numpy as np

from jvae.data.sources import ArraySource, Splits

SIDE = 32
SHAPES = ("square", "ellipse", "triangle")
RADII = (4.0, 5.0, 6.0, 7.0)
"""Of the circle around a shape, in pixels."""
ANGLES = np.arange(6) * np.pi / 12.0
"""Within a quarter turn, so that no two of a square's look the same."""
PLACES = np.arange(9, 24, 2)
"""Of the centre, in pixels, on either axis."""
FINE = 8
"""Points across a pixel that are inside or outside."""
FACTORS = ("shape", "size", "rotation", "x", "y")
TEST_SHARE = 5
"""One image in so many is test data."""


def shapes() -> Splits:
    """Returns 4,608 drawings of 32x32x1, every combination of five factors once.

    'factors' is int32 [n, 5]: shape (3), size (4), rotation (6), x (8) and y (8), each
    from 0; 'label' is the shape. After the idea of dSprites (Matthey et al., 2017),
    small, and with rotations that can be told apart. A fifth of the images, chosen at
    random, the same everywhere, is test data.
    """
    counts = (*map(len, (SHAPES, RADII, ANGLES, PLACES, PLACES)),)
    drawings = {
        (shape, size, angle): _drawing(SHAPES[shape], RADII[size], float(ANGLES[angle]))
        for shape, size, angle in np.ndindex(*counts[:3])
    }
    factors = np.array([*np.ndindex(*counts)], np.int32)
    image = np.zeros((len(factors), SIDE, SIDE, 1), np.uint8)
    half = SIDE // 4
    for row, (shape, size, angle, x, y) in zip(image, factors.tolist(), strict=True):
        high, wide = (slice(p - half, p + half) for p in (PLACES[y], PLACES[x]))
        row[high, wide, 0] = drawings[shape, size, angle]
    place = np.random.default_rng(0).permutation(len(image))
    cut = len(image) // TEST_SHARE
    test, train = np.sort(place[:cut]), np.sort(place[cut:])

    def split(i):
        arrays = {"image": image[i], "label": factors[i, 0], "factors": factors[i]}
        return ArraySource(arrays)

    return Splits(split(train), split(test), num_classes=len(SHAPES))


def _drawing(shape: str, radius: float, angle: float) -> np.ndarray:
    """Returns the shape around the middle of [16, 16], uint8 shares of each pixel."""
    side = SIDE // 2
    axis = (np.arange(side * FINE) + 0.5) / FINE - side / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    u = (np.cos(angle) * x + np.sin(angle) * y) / radius
    v = (-np.sin(angle) * x + np.cos(angle) * y) / radius
    if shape == "square":
        inside = np.maximum(abs(u), abs(v)) <= np.sqrt(0.5)
    elif shape == "ellipse":
        inside = u**2 + (2.0 * v) ** 2 <= 1.0
    else:
        inside = (v <= 0.5) & (abs(u) * np.sqrt(3.0) <= 1.0 + v)
    share = inside.reshape(side, FINE, side, FINE).mean((1, 3))
    return np.round(255.0 * share).astype(np.uint8)
