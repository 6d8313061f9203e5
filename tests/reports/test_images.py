"""What the pictures of a report show, read back from their pixels."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from jvae.evaluation.latents import LatentStatistics
from jvae.evaluation.results import EvaluationResults
from jvae.evaluation.settings import Settings
from jvae.pretrained.image_grid import MIN_TILE
from jvae.reports import images

KEY = jax.random.key(0)
SCALES = np.array([1.0, 0.5])
N = 20
# Two pixels: the code of x is x times SCALES, its picture the code times SCALES.
X = np.random.default_rng(0).uniform(0.2, 0.9, (N, 2)).astype("float32")
AGAIN = X * SCALES**2


@pytest.fixture
def shown(toys):
    """The pictures by file."""
    trained = toys.trained(toys.PixelCode(tuple(SCALES)))
    latents = LatentStatistics(np.array([0.2, 1.0]), N, X * SCALES)
    options = Settings(temperatures=(0.0,), num_images=12, reach=1.0)
    found = EvaluationResults(N, latents=latents)
    made = images.make_images(trained, toys.source(X), found, KEY, options)
    return {picture.file: picture for picture in made}


def tiles(picture, columns):
    """Returns the levels of the pixels of each tile, [rows, columns, 2] in [0, 1]."""
    sheet = np.asarray(Image.open(io.BytesIO(picture.png))) / 255.0
    pad, height, width = 4, MIN_TILE, 2 * MIN_TILE
    rows = (sheet.shape[0] - pad) // (height + pad)
    assert sheet.shape == (rows * (height + pad) + pad, columns * (width + pad) + pad)
    middle = [pad + r * (height + pad) + height // 2 for r in range(rows)]
    left = [pad + c * (width + pad) + MIN_TILE // 2 for c in range(columns)]
    return np.stack(
        [sheet[np.ix_(middle, [x + i * MIN_TILE for x in left])] for i in (0, 1)], -1
    )


@pytest.mark.slow
def test_rows_of_reconstructions_come_in_pairs(shown):
    found = tiles(shown["reconstructions.png"], 10)
    given, again = X.reshape(2, 10, 2), AGAIN.reshape(2, 10, 2)
    wanted = np.stack([given, again], 1).reshape(4, 10, 2)
    np.testing.assert_allclose(found, wanted, atol=1 / 255)


@pytest.mark.slow
def test_a_row_of_interpolations_goes_from_one_example_to_another(shown):
    found = tiles(shown["interpolations.png"], 10)
    t = np.linspace(0.0, 1.0, 10)[None, :, None]
    wanted = (1 - t) * AGAIN[:6, None] + t * AGAIN[6:12, None]
    np.testing.assert_allclose(found, wanted, atol=1 / 255)


@pytest.mark.slow
def test_traversals_move_the_dimensions_with_the_most_kl_first(shown):
    picture = shown["traversals.png"]
    assert picture.caption.endswith("most KL first: 1, 0.")
    found = tiles(picture, 11)
    walk = np.clip(np.linspace(-1.0, 1.0, 11), 0.0, 1.0)
    np.testing.assert_allclose(found[0, :, 1], walk * SCALES[1], atol=1 / 255)
    np.testing.assert_allclose(found[1, :, 0], walk * SCALES[0], atol=1 / 255)
    for row, still in ((0, 0), (1, 1)):
        kept = np.full(11, AGAIN[0, still])
        np.testing.assert_allclose(found[row, :, still], kept, atol=1 / 255)


def test_samples_at_temperature_zero_are_those_of_the_priors_mean(shown):
    found = tiles(shown["samples_t0.0.png"], 10)
    np.testing.assert_array_equal(found[0], np.zeros((10, 2)))  # the mean of z is 0
    assert found.shape[0] == 2 and "times 0." in shown["samples_t0.0.png"].caption


def test_the_caption_counts_the_active_dimensions(shown):
    assert "2 dimensions, sorted; 2 active." in shown["kl_per_dimension.png"].caption


@pytest.mark.slow
def test_no_history_means_no_curves(shown, toys):
    assert "curves.png" not in shown
    trained = toys.trained(toys.PixelCode(tuple(SCALES)))
    options = Settings(temperatures=(), num_images=1, reach=1.0)
    rows = [{"step": i, "split": "train", "loss": 1.0 / i} for i in (1, 2, 3)]
    latents = LatentStatistics(np.array([0.2, 1.0]), N, X * SCALES)
    source = toys.source(X)
    found = EvaluationResults(N, latents=latents)
    made = images.make_images(trained, source, found, KEY, options, history=rows)
    assert made[-1].file == "curves.png"
