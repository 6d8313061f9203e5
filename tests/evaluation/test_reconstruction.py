"""Nearness of images against SciPy, closed forms, and from end to end."""

import math

import jax
import numpy as np
import pytest
from scipy.ndimage import correlate1d

from jvae.evaluation.reconstruction import (
    evaluate_reconstructions,
    psnr,
    reconstruction_metrics,
    squared_error,
    ssim,
)
from jvae.evaluation.settings import Settings
from jvae.reports.report import evaluate

KEY = jax.random.key(0)
QUICK = Settings(num_examples=20, batch_size=16, num_samples=2, chunk_size=2)


def images(shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def reference(x, y, size=11):
    """SSIM of one channel [H, W], in float64, by SciPy's filters."""
    offsets = np.arange(size) - size // 2
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()

    def blurred(a):
        for axis in (0, 1):
            a = correlate1d(a, weights, axis=axis, mode="constant")
        inner = size // 2
        return a[inner : len(a) - inner, inner : a.shape[1] - inner]

    x, y = np.float64(x), np.float64(y)
    ux, uy = blurred(x), blurred(y)
    vx, vy = blurred(x * x) - ux**2, blurred(y * y) - uy**2
    vxy = blurred(x * y) - ux * uy
    c1, c2 = 1e-4, 9e-4
    top = (2 * ux * uy + c1) * (2 * vxy + c2)
    return (top / ((ux**2 + uy**2 + c1) * (vx + vy + c2))).mean()


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((3, 28, 28, 1), marks=pytest.mark.slow),
        (2, 16, 20, 3),
        pytest.param((2, 11, 12, 1), marks=pytest.mark.slow),
    ],
)
def test_ssim_is_that_of_the_paper(shape):
    x, y = images(shape), images(shape, 1)
    measure = jax.jit(ssim)
    found = measure(x, y)
    channels = range(shape[-1])
    wanted = [
        np.mean([reference(x[i, ..., c], y[i, ..., c]) for c in channels])
        for i in range(shape[0])
    ]
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    np.testing.assert_allclose(measure(y, x), found, atol=1e-6)


@pytest.mark.parametrize(("height", "size"), [(8, 7), (9, 9), (2, 1)])
def test_small_images_have_the_largest_odd_window_that_fits(height, size):
    x, y = images((1, height, 30, 1)), images((1, height, 30, 1), 1)
    wanted = reference(x[0, ..., 0], y[0, ..., 0], size)
    np.testing.assert_allclose(jax.jit(ssim)(x, y), [wanted], atol=2e-5)


def test_an_image_is_like_itself():
    x = images((4, 28, 28, 3))
    similar, error = jax.jit(lambda x: (ssim(x, x), squared_error(x, x)))(x)
    np.testing.assert_allclose(similar, np.ones(4), atol=1e-6)
    np.testing.assert_array_equal(error, np.zeros(4))
    assert float(jax.jit(psnr)(0.0)) == math.inf


def test_errors_have_their_closed_forms():
    x = np.zeros((2, 4, 5, 3), "f4")
    error = jax.jit(squared_error)(x, x + np.float32(0.1))
    np.testing.assert_allclose(error, [0.01, 0.01], rtol=1e-5)
    decibels = jax.jit(psnr)
    assert float(decibels(0.01)) == pytest.approx(20.0, abs=1e-4)
    assert float(decibels(1.0)) == 0.0
    flat, other = (np.full((1, 12, 12, 1), a, "f4") for a in (0.25, 0.75))
    light = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    np.testing.assert_allclose(jax.jit(ssim)(flat, other), [light], atol=1e-4)


def test_reconstructions_of_a_model_are_measured(toys):
    """x_d comes back as x_d times scale^2."""
    pixels = images((33, 2))
    trained = toys.trained(toys.PixelCode((1.0, 0.5)))
    found = evaluate_reconstructions(
        trained, toys.source(pixels), batch_size=8, key=KEY
    )
    lost = (pixels * np.array([0.0, 0.75])) ** 2
    np.testing.assert_allclose(found["squared_error"], lost.mean(1), atol=1e-6)
    rows = reconstruction_metrics(found)
    assert rows["mse"].value == pytest.approx(lost.mean(), rel=1e-5)
    error = lost.mean(1).std(ddof=1) / math.sqrt(33)
    assert rows["mse"].standard_error == pytest.approx(error, rel=1e-4)
    assert rows["psnr"].value == pytest.approx(-10 * math.log10(lost.mean()), rel=1e-5)
    assert rows["ssim"].num_examples == 33


@pytest.mark.slow
def test_where_nothing_is_lost_there_is_no_psnr_and_a_report(toys, tmp_path):
    trained = toys.trained(toys.PixelCode((1.0, 1.0)))
    options = {"config": {}, "step": 0, "split": "test", "key": KEY}
    source = toys.source(images((20, 2)))
    found = evaluate(trained, source, tmp_path, settings=QUICK, **options)["metrics"]
    assert found["mse"]["value"] == 0.0 and "psnr" not in found
    assert found["ssim"]["value"] == pytest.approx(1.0, abs=1e-6)
