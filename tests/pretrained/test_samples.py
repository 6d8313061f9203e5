import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import models
from jvae.errors import ConfigError
from jvae.pretrained.interpolation import (
    by_kl,
    interpolate,
    interpolation_grid,
    traversals,
)
from jvae.pretrained.samples import codes, prior_samples, reconstructions

KEY = jax.random.key(4)
SCALES = (1.0, 0.5, 0.0)


@pytest.fixture
def trained(toys):
    return toys.trained(toys.PixelCode(SCALES))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(4, 1, 3, 1)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 7, 11, 16])
def test_as_many_samples_come_as_asked(trained, n):
    assert prior_samples(trained, KEY, n, chunk_size=7).shape == (n, 1, 3, 1)


def test_samples_depend_on_the_key_and_not_on_chunks_or_devices(toys, trained):
    found = prior_samples(trained, KEY, 11)
    np.testing.assert_array_equal(found, prior_samples(trained, KEY, 11))
    other_key = prior_samples(trained, jax.random.key(5), 11)
    assert np.all(found[:, :, :2] != other_key[:, :, :2])
    alone = toys.trained(trained.model, devices=toys.ONE_DEVICE)
    again = prior_samples(alone, KEY, 11, chunk_size=3)
    np.testing.assert_allclose(found, again, atol=1e-6)


def test_temperature_scales_the_prior_and_zero_is_its_mean(trained):
    cold = prior_samples(trained, KEY, 5, temperature=0.0)
    variables = {"params": trained.params}
    mean = trained.model.apply(
        variables, jnp.zeros((5, 3)), method=trained.model.decode
    )
    np.testing.assert_array_equal(cold, mean)
    half = prior_samples(trained, KEY, 10_000, temperature=0.5, chunk_size=10_000)
    assert half[:, 0, 0].std() == pytest.approx(0.5, abs=0.02)
    assert abs(half[:, 0, 0].mean()) < 0.5 * 4 / np.sqrt(10_000)


def test_classes_take_turns_whatever_the_chunks(toys):
    shape = (1, 2, 1)
    model = models.build(
        "mlp", image_shape=shape, latent_dim=2, hidden=(4,), num_classes=3
    )
    batch = {"image": jnp.zeros((1, *shape)), "label": jnp.zeros(1, int)}
    params = jax.jit(model.init)(KEY, batch, KEY)["params"]
    trained = toys.trained(model, params=params)
    turns = prior_samples(trained, KEY, 10, temperature=0.0, chunk_size=8)
    given = prior_samples(trained, KEY, 10, 0.0, label=np.arange(10) % 3)
    np.testing.assert_allclose(turns, given, atol=1e-6)
    np.testing.assert_allclose(turns[:3], turns[3:6], atol=1e-6)
    assert np.all(np.abs(turns[0] - turns[1]) > 1e-4)
    with pytest.raises(
        ConfigError, match=r"label must hold 10 classes, got shape \[9\]"
    ):
        prior_samples(trained, KEY, 10, label=np.zeros(9, int))


def test_reconstructions_of_the_mean_repeat_and_those_of_draws_do_not(trained, x):
    first = reconstructions(trained, x, KEY)
    np.testing.assert_array_equal(first, reconstructions(trained, x, KEY))
    np.testing.assert_allclose(first[:, 0, :, 0], x[:, 0, :, 0] * np.square(SCALES))
    draws = [
        reconstructions(trained, x, jax.random.key(seed), "sample") for seed in (0, 1)
    ]
    assert np.all(draws[0][:, :, :2] != draws[1][:, :, :2])
    np.testing.assert_array_equal(draws[0][:, :, 2], 0.0)


def test_a_model_without_one_posterior_reconstructs_draws_only(toys, x):
    trained = toys.trained(toys.TwoGroups())
    assert reconstructions(trained, x, KEY, "sample").shape == x.shape
    with pytest.raises(ConfigError, match="Use mode 'sample'"):
        reconstructions(trained, x, KEY)


def test_interpolations_begin_and_end_at_the_reconstructions(trained, x):
    rows = interpolate(trained, x[:2], x[2:], 5)
    assert rows.shape == (2, 5, 1, 3, 1)
    ends = np.asarray(reconstructions(trained, x, KEY))
    np.testing.assert_allclose(rows[:, 0], ends[:2], atol=1e-6)
    np.testing.assert_allclose(rows[:, -1], ends[2:], atol=1e-6)
    np.testing.assert_allclose(rows[:, 2], (ends[:2] + ends[2:]) / 2, atol=1e-6)


def test_four_examples_are_the_corners_and_their_paths_the_sides(trained, x):
    found = np.asarray(interpolation_grid(trained, x[:4], 3))
    assert found.shape == (3, 3, *x.shape[1:])
    again = reconstructions(trained, x[:4], KEY)
    ends = found[[0, 0, 2, 2], [0, 2, 0, 2]]
    np.testing.assert_allclose(ends, again, atol=1e-5)
    sides = interpolate(trained, x[[0, 2, 0, 1]], x[[1, 3, 2, 3]], 3)
    wanted = found[0], found[2], found[:, 0], found[:, 2]
    np.testing.assert_allclose(sides, np.stack(wanted), atol=1e-5)


def test_corners_are_four(trained, x):
    with pytest.raises(ConfigError, match="x must hold 4 images, got 3"):
        interpolation_grid(trained, x[:3], 3)


def test_interpolations_along_an_arc_keep_the_length_of_the_codes(toys):
    trained = toys.trained(toys.PixelCode((1.0, 1.0)))
    a, b = np.zeros((2, 1, 1, 2, 1), np.float32)
    a[..., 0, 0], b[..., 1, 0] = 1.0, 1.0
    found = np.asarray(interpolate(trained, a, b, 5, spherical=True))[0, :, 0, :, 0]
    angle = np.linspace(0.0, np.pi / 2, 5)
    np.testing.assert_allclose(
        found, np.stack([np.cos(angle), np.sin(angle)], 1), atol=1e-6
    )


def test_interpolations_between_unequal_batches_are_refused(trained, x):
    with pytest.raises(ConfigError, match="a and b must have one shape"):
        interpolate(trained, x[:1], x[2:], 5)


def test_traversals_move_one_dimension_and_a_dead_one_changes_nothing(trained, x):
    rows = np.asarray(traversals(trained, x, [2, 0], 3, 2.0))[:, :, :, 0, :, 0]
    assert rows.shape == (4, 2, 3, 3)
    z = np.asarray(codes(trained, x))
    np.testing.assert_array_equal(rows[:, 0], np.repeat(rows[:, 0, :1], 3, 1))
    np.testing.assert_allclose(rows[:, 1, :, 0], [[-2.0, 0.0, 2.0]] * 4)
    kept = np.tile(z[:, None, 1] * 0.5, (1, 3))
    np.testing.assert_allclose(rows[:, 1, :, 1], kept, rtol=1e-6)


@pytest.mark.parametrize("dims", [[3], [-1]])
def test_traversals_of_unknown_dimensions_are_refused(trained, x, dims):
    with pytest.raises(ConfigError, match="dims must be in 0..2"):
        traversals(trained, x, dims, 3, 2.0)


def test_dimensions_are_ordered_by_kl():
    assert by_kl(np.array([0.1, 2.0, 0.0, 1.0]), 3) == [1, 3, 0]
