"""A hierarchy of two scales whose codes are known: numbers, pictures, variations."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae import keys
from jvae.distributions import DiagGaussian, Gaussian
from jvae.errors import ConfigError
from jvae.evaluation.results import evaluate_all, numbers_of
from jvae.evaluation.scales import evaluate_scales, has_scales
from jvae.evaluation.settings import Settings
from jvae.models.nvae.groups import Noise
from jvae.pretrained import samples
from jvae.pretrained.interpolation import interpolate, interpolation_grid, traversals
from jvae.pretrained.samples import reconstructions, resample_fine_scales
from jvae.reports import images
from jvae.types import Inference

KEY = jax.random.key(0)
# Three pixels: the first is the coarse latent, the others the fine ones plus it.
X = np.random.default_rng(0).normal(size=(21, 3)).astype("float32")
X[:, 2] = X[:, 0] + 0.05 * X[:, 1]


class TwoScales(nn.Module):
    """z_1 ~ N(0, 1), z_2 ~ N(z_1, 1) twice; x = (z_1, z_2), known but for little."""

    target = "image"
    groups = (1, 2)
    latent_shapes = ((1, 1, 1, 1), (2, 1, 1, 1))

    def code(self, batch):
        x = batch["image"].reshape(-1, 3)
        fine = x[:, 1:] - x[:, :1]
        return Noise((x[:, :1].reshape(-1, 1, 1, 1, 1), fine.reshape(-1, 2, 1, 1, 1)))

    def infer(self, batch, key):
        code = self.code(batch)
        u = jnp.concatenate([a.reshape(len(a), -1) for a in code.u], -1)
        q = DiagGaussian(u, jnp.zeros_like(u))
        kl = 0.5 * jnp.square(u)
        return Inference(self.latents(code), kl, q.kl_to_standard_normal())

    def latents(self, code):
        return (code.u[0], code.u[0] + code.u[1])

    def likelihood(self, z, batch):
        z = self.latents(z) if isinstance(z, Noise) else getattr(z, "z", z)
        flat = [a.reshape(len(a), -1) for a in z]
        mean = jnp.concatenate(flat, -1).reshape(-1, 1, 3, 1)
        return Gaussian(mean, jnp.zeros((1, 1, 1, 1)))

    def decode(self, z):
        return self.likelihood(z, {}).mean

    def interpolate(self, start, end, fraction):
        return jax.tree.map(lambda a, b: a + fraction * (b - a), start, end)

    def sample_prior(self, key, n, temperature=1.0):
        pairs = jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys.per_example(key, n))
        u = temperature * pairs.reshape(n, 3, 1, 1, 1)
        return types.SimpleNamespace(z=self.latents(Noise((u[:, :1], u[:, 1:]))))

    def resample(self, latents, key, kept, temperature=1.0):
        new = self.sample_prior(key, len(latents[0]), temperature).z
        kept = jnp.reshape(kept, (-1, 1, 1, 1, 1))
        kept_coarse = jnp.where(kept > 0, latents[0], new[0])
        fine = new[1] - new[0] + kept_coarse
        z = (kept_coarse, jnp.where(kept > 1, latents[1], fine))
        return types.SimpleNamespace(z=z)


@pytest.fixture
def trained(toys):
    return toys.trained(TwoScales(), params={})


@pytest.mark.parametrize("batch_size", [8, 16])
def test_latents_that_vary_in_standard_deviations_of_the_prior_are_active(
    toys, trained, batch_size
):
    """The variances of 21 examples, whatever the batches that they come in."""
    scales = evaluate_scales(
        trained,
        toys.source(X),
        np.array([3.0, 2.0, 1.0]),
        batch_size=batch_size,
        key=KEY,
    )
    code = np.stack([X[:, 0], X[:, 1] - X[:, 0], X[:, 2] - X[:, 0]], -1)
    active = code.var(0) > 0.01
    assert active.tolist() == [True, True, False]
    assert [scale.active for scale in scales] == [[1], [1, 0]]
    assert [scale.kl for scale in scales] == [[3.0], [2.0, 1.0]]
    assert [scale.num_latents for scale in scales] == [1, 1]


def test_results_have_them_and_say_how_many_are_active(toys, trained):
    settings = Settings(num_samples=2, batch_size=8)
    found = evaluate_all(trained, toys.source(X), key=KEY, settings=settings)
    numbers = numbers_of(found, trained)
    assert numbers["metrics"]["active_units"]["value"] == 2
    assert numbers["metrics"]["active_units"]["unit"] == "of 3"
    of_scales = [kl for scale in numbers["scales"] for kl in scale["kl"]]
    np.testing.assert_allclose(of_scales, numbers["kl_per_group"])


def test_a_model_without_scales_has_none(toys):
    assert not has_scales(toys.trained(toys.TwoGroups(), params={}))


def test_codes_of_many_arrays_are_decoded_and_interpolated(trained):
    x = jnp.asarray(X[:4].reshape(4, 1, 3, 1))
    np.testing.assert_allclose(reconstructions(trained, x, KEY), x, atol=1e-6)
    rows = interpolate(trained, x[:2], x[2:], 3)
    np.testing.assert_allclose(rows[:, 1], (x[:2] + x[2:]) / 2, atol=1e-6)
    square = interpolation_grid(trained, x, 3)
    for row, column, i in ((0, 0, 0), (0, 2, 1), (2, 0, 2), (2, 2, 3)):
        np.testing.assert_allclose(square[row, column], x[i], atol=1e-6)
    with pytest.raises(ConfigError, match="TwoScales has no single dimensions"):
        traversals(trained, x, [0], 3, 1.0)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_variations_share_what_is_kept_and_nothing_else(trained, kept, monkeypatch):
    z = np.asarray(resample_fine_scales(trained, KEY, 3, 5, kept)).reshape(3, 5, 3)
    spread = np.ptp(z, axis=1) > 1e-6
    np.testing.assert_array_equal(
        spread, np.tile([kept < 1, kept < 2, kept < 2], (3, 1))
    )
    first = np.asarray(resample_fine_scales(trained, KEY, 3, 5, 2)).reshape(3, 5, 3)[
        :, 0
    ]
    np.testing.assert_allclose(z[:, 0], first, rtol=1e-6)
    assert len(np.unique(z[:, 0, 0])) == 3
    monkeypatch.setattr(samples, "CHUNK", 5)  # one row at once
    again = np.asarray(resample_fine_scales(trained, KEY, 3, 5, kept)).reshape(3, 5, 3)
    np.testing.assert_allclose(z, again, atol=1e-6)  # sums of numbers of size 1


def test_variations_need_scales_and_numbers_in_range(toys, trained):
    with pytest.raises(ConfigError, match="num_kept must be within 0 and 2, got 3"):
        resample_fine_scales(trained, KEY, 3, 5, 3)
    with pytest.raises(ConfigError, match="num must be at least 1, got 0"):
        resample_fine_scales(trained, KEY, 3, 0, 1)
    with pytest.raises(ConfigError, match="TwoGroups has no scales"):
        resample_fine_scales(toys.trained(toys.TwoGroups(), params={}), KEY, 3, 5, 1)


@pytest.mark.slow
def test_the_gallery_has_a_picture_of_the_scales_and_one_of_each_that_is_kept(
    toys, trained
):
    source = toys.source(X)
    found = evaluate_all(trained, source, key=KEY, settings=Settings(num_samples=1))
    options = Settings(temperatures=(0.5, 1.0), num_images=4, reach=1.0)
    shown = {
        p.file: p for p in images.make_images(trained, source, found, KEY, options)
    }
    assert {"scales.png", "kept_1.png", "interpolations.png"} <= shown.keys()
    assert not {"kl_per_dimension.png", "kept_2.png", "traversals.png"} & shown.keys()
    assert "temperature 1." in shown["kept_1.png"].caption
    assert "1 of 2 latents active" in shown["scales.png"].caption
