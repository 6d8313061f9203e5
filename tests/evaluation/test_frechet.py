"""Distances and overlaps whose values are known."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from jvae.errors import ConfigError
from jvae.evaluation import frechet
from jvae.evaluation.frechet import Moments, frechet_distance, overlap

RNG = np.random.default_rng(0)


def gaussian(mean, covariance, count=1000):
    """Moments that are exactly these."""
    mean = np.broadcast_to(mean, len(covariance)).astype(float)
    return Moments(count, mean, (count - 1) * covariance)


def test_distances_in_closed_form():
    one = np.eye(8)
    assert frechet_distance(gaussian(0.0, one), gaussian(0.0, one)) == pytest.approx(
        0.0, abs=1e-9
    )
    shifted = frechet_distance(gaussian(0.0, one), gaussian(3.0, one))
    assert shifted == pytest.approx(72.0)
    wider = frechet_distance(gaussian(0.0, one), gaussian(0.0, 4.0 * one))
    assert wider == pytest.approx(8.0)


def test_it_is_symmetric_and_that_of_the_matrix_root():
    a, b = (RNG.normal(size=(50, 5)) @ RNG.normal(size=(5, 5)) + i for i in (0, 1))
    A, B = np.cov(a.T), np.cov(b.T)  # noqa: N806, the paper's names
    difference = a.mean(0) - b.mean(0)
    exact = difference @ difference + np.trace(A + B - 2 * sqrtm(A @ B).real)
    moments = Moments.of(a), Moments.of(b)
    assert frechet_distance(*moments) == pytest.approx(exact)
    assert frechet_distance(*moments[::-1]) == pytest.approx(exact)


def test_parts_add_up_to_the_whole():
    """Two parts of unit variance around 0 and 2 have variance 2 together, not 1."""
    parts = [RNG.normal(size=(5000, 3)) + mean for mean in (0.0, 2.0)]
    pooled = Moments.of(parts[0]) + Moments.of(parts[1])
    whole = Moments.of(np.concatenate(parts))
    np.testing.assert_allclose(pooled.covariance, whole.covariance)
    np.testing.assert_allclose(np.diag(pooled.covariance), 2.0, atol=0.1)
    np.testing.assert_allclose(
        whole.covariance, np.cov(np.concatenate(parts).T), atol=1e-9
    )


@pytest.mark.parametrize("mean", [1e6, 1e9])
def test_a_mean_far_from_zero_cancels_nothing(mean):
    near = RNG.integers(0, 64, size=(300, 3)) / 64  # exact beside either mean
    far = near + mean
    pooled = Moments.of(far[:100]) + Moments.of(far[100:])
    np.testing.assert_allclose(pooled.covariance, np.cov(near.T), rtol=1e-6, atol=1e-7)


def test_features_that_do_not_vary_leave_it_finite():
    flat = Moments.of(np.concatenate([RNG.normal(size=(20, 2)), np.ones((20, 3))], 1))
    assert frechet_distance(flat, flat) == pytest.approx(0.0, abs=1e-9)


def test_too_few_examples_and_other_features_are_refused():
    with pytest.raises(ConfigError, match="examples must be at least 2, got 1"):
        frechet_distance(gaussian(0.0, np.eye(2)), Moments.of(np.ones((1, 2))))
    with pytest.raises(ConfigError, match=r"got shapes \[2\] and \[3\]"):
        frechet_distance(gaussian(0.0, np.eye(2)), gaussian(0.0, np.eye(3)))
    with pytest.raises(ConfigError, match="k must be from 1 to 2, got 5"):
        overlap(np.ones((3, 2)), np.ones((9, 2)))


def counted(real, fake, k):
    """The four shares from all distances, as their papers write them."""

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    radii_real = np.sort(distances(real, real))[:, k, None]
    radii_fake = np.sort(distances(fake, fake))[None, :, k]
    between = distances(real, fake)
    return {
        "precision": (between <= radii_real).any(0).mean(),
        "recall": (between <= radii_fake).any(1).mean(),
        "density": (between <= radii_real).sum(0).mean() / k,
        "coverage": (between <= radii_real).any(1).mean(),
    }


@pytest.mark.parametrize("dims", [3, 64])
def test_copies_of_the_real_examples_overlap_wholly(dims):
    """So do they where each comes several times, and its radius is 0."""
    real = RNG.normal(size=(150, dims))
    several = np.repeat(RNG.normal(size=(20, dims)), 8, axis=0)
    for a, b in ((real, real.copy()), (several, RNG.permutation(several))):
        found = overlap(a, b)
        assert found["precision"] == found["recall"] == found["coverage"] == 1.0
        assert found == pytest.approx(counted(a, b, 5))


def test_overlaps_are_those_of_all_distances(monkeypatch):
    monkeypatch.setattr(frechet, "CHUNK", 7)
    real, fake = RNG.normal(size=(40, 3)), 1.5 * RNG.normal(size=(30, 3))
    collapsed = np.repeat(real[:1], 30, axis=0)
    for other in (fake, collapsed):
        assert overlap(real, other, 4) == pytest.approx(counted(real, other, 4))


def test_equal_sets_overlap_and_distant_ones_do_not():
    real = RNG.normal(size=(400, 4))
    same = overlap(real, RNG.normal(size=(400, 4)))
    assert min(same["precision"], same["recall"], same["coverage"]) > 0.8
    assert same["density"] == pytest.approx(1.0, abs=0.15)
    far = overlap(real, real + 100.0)
    assert far == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}


def test_one_mode_of_two_has_full_precision_and_half_the_recall_and_coverage():
    modes = [RNG.normal(size=(200, 2)) + mean for mean in (0.0, 50.0)]
    found = overlap(np.concatenate(modes), modes[0] + 1e-3)
    assert found["precision"] == 1.0
    assert found["recall"] == pytest.approx(0.5) == found["coverage"]
    other = overlap(modes[0], np.concatenate(modes))
    assert other["precision"] == pytest.approx(0.5, abs=0.02) and other["recall"] > 0.9


def test_overlaps_of_a_few_points_counted_by_hand():
    """On a line, with the radius to the nearest other point."""
    real = np.array([[0.0], [1.0], [4.0]])  # radii 1, 1, 3
    fake = np.array([[0.5], [2.5], [9.0]])  # radii 2, 2, 6.5
    found = overlap(real, fake, k=1)
    assert found["precision"] == pytest.approx(2 / 3)  # 0.5 and 2.5
    assert found["recall"] == pytest.approx(1.0)
    assert found["density"] == pytest.approx((2 + 1 + 0) / 3)
    assert found["coverage"] == pytest.approx(1.0)
