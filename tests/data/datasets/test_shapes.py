"""Drawings of known factors: all there once, told apart, where they say they are."""

import numpy as np
import pytest

from jvae import data
from jvae.data.datasets.shapes import ANGLES, FACTORS, PLACES, RADII, SHAPES


@pytest.fixture(scope="module")
def every():
    """(images [4608, 32, 32] in [0, 1], factors [4608, 5]) of both splits."""
    splits = data.build("shapes")
    parts = [s.arrays for s in (splits.train, splits.test)]
    assert len(parts[1]["image"]) == 921 and splits.num_classes == 3
    for part in parts:
        np.testing.assert_array_equal(part["label"], part["factors"][:, 0])
    image, factors = (
        np.concatenate([p[n] for p in parts]) for n in ("image", "factors")
    )
    return image[..., 0] / 255.0, factors


def test_every_combination_is_there_once_and_no_two_look_alike(every):
    image, factors = every
    counts = [len(SHAPES), len(RADII), len(ANGLES), len(PLACES), len(PLACES)]
    assert len(FACTORS) == 5 and factors.dtype == np.int32
    np.testing.assert_array_equal(factors.max(0) + 1, counts)
    assert len(np.unique(factors, axis=0)) == len(factors) == np.prod(counts)
    assert len(np.unique(image.reshape(len(image), -1), axis=0)) == len(image)


def test_mass_and_middle_are_those_of_the_factors(every):
    """Areas by the formulas of the shapes, centres by the places."""
    image, factors = every
    radius = np.array(RADII)[factors[:, 1]]
    shares = np.array([2.0, np.pi / 2, 3 * np.sqrt(3) / 4])
    area = shares[factors[:, 0]] * radius**2
    # Edges are within half of an eighth of a pixel, 4.4% of the smallest square.
    np.testing.assert_allclose(image.sum((1, 2)), area, rtol=0.045)
    axis = np.arange(32) + 0.5
    for column, sums in ((3, image.sum(1)), (4, image.sum(2))):
        middle = (sums * axis).sum(1) / sums.sum(1)
        np.testing.assert_allclose(middle, PLACES[factors[:, column]], atol=0.05)


def test_a_rotation_turns_the_longest_axis_of_an_ellipse(every):
    image, factors = every
    chosen = (factors[:, 0] == 1) & (factors[:, 1] == 3)
    for x, of in zip(image[chosen], factors[chosen], strict=True):
        v, u = np.nonzero(x > 0.5)
        directions = np.linalg.eigh(np.cov(np.stack([u, v])))[1][:, -1]
        angle = np.arctan2(directions[1], directions[0]) % np.pi
        assert abs(angle - ANGLES[of[2]]) < 0.1 or abs(angle - np.pi) < 0.1
