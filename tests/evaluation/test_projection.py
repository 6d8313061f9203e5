"""The plane of most variance, there and back; t-SNE keeps neighbours together."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from jvae.evaluation.projection import Plane, apart, tsne


def codes(n=50, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.arange(d, 0, -1) + rng.normal(size=d)


def test_the_plane_is_that_of_principal_components():
    points = codes()
    plane, other = Plane.of(points), PCA(2).fit(points)
    np.testing.assert_allclose(plane.explained, other.explained_variance_ratio_)
    np.testing.assert_allclose(
        np.abs(plane.place(points)), np.abs(other.transform(points)), atol=1e-10
    )


def test_a_place_is_where_its_point_is_seen():
    plane = Plane.of(codes())
    places = np.random.default_rng(1).normal(size=(7, 3, 2))
    np.testing.assert_allclose(plane.place(plane.point(places)), places, atol=1e-12)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)


def test_codes_of_two_dimensions_are_found_again():
    points = codes(d=2)
    plane = Plane.of(points)
    np.testing.assert_allclose(plane.point(plane.place(points)), points, atol=1e-12)
    assert plane.explained.sum() == pytest.approx(1.0)


def test_the_sign_of_an_axis_does_not_depend_on_the_codes_order():
    points = codes()
    first, second = Plane.of(points), Plane.of(points[::-1])
    np.testing.assert_allclose(first.axes, second.axes, atol=1e-10)
    assert (first.axes.max(1) == np.abs(first.axes).max(1)).all()


@pytest.mark.parametrize("points", [codes(d=1), codes(n=2), np.zeros((4, 3))])
def test_less_than_a_plane_is_a_map_too(points):
    plane = Plane.of(points)
    places = plane.place(points)
    assert places.shape == (len(points), 2) and np.isfinite(places).all()
    assert np.ptp(places[:, 1]) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(plane.point(places), points, atol=1e-9)


@pytest.mark.slow
def test_tsne_keeps_clusters_apart_and_repeats_itself():
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(c, 0.1, (40, 6)) for c in (-3.0, 3.0)])
    places = tsne(points)
    np.testing.assert_array_equal(places, tsne(points))
    centers = places[:40].mean(0), places[40:].mean(0)
    between = np.linalg.norm(centers[0] - centers[1])
    within = max(np.linalg.norm(places[:40] - centers[0], axis=1).max(), 1e-9)
    assert between > 2.0 * within


@pytest.mark.parametrize(("n", "d"), [(2, 3), (3, 1), (5, 4)])
def test_tsne_of_few_codes(n, d):
    assert np.isfinite(tsne(codes(n=n, d=d))).all()


def test_places_that_are_chosen_are_apart_and_the_others_are_not():
    places = np.random.default_rng(3).uniform(size=(300, 2))
    chosen = apart(places, 0.2)
    least = 0.2 * np.ptp(places, axis=0).max()
    gaps = np.abs(places[:, None] - places[chosen][None]).max(-1)
    between = gaps[chosen] + np.eye(len(chosen)) * 9.0
    assert between.min() >= least and chosen[0] == 0 and len(chosen) > 5
    assert (gaps.min(1) < least).all()  # no other would have fitted


def test_places_that_are_one_are_chosen_once():
    assert apart(np.ones((5, 2))).tolist() == [0]
