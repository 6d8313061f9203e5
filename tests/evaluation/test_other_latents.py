"""What an evaluation finds in one-hot codes and directions, and what it leaves out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae.distributions import GumbelSoftmax, UniformOnSphere, VonMisesFisher
from jvae.evaluation import metrics
from jvae.evaluation.latents import collapse_verdict, evaluate_latents
from jvae.models import SingleLatent
from jvae.pretrained import interpolation, samples
from jvae.types import batch_size
from tests.tiers import others_slow
from tests.toys import Gaussian

KEY = jax.random.key(0)
N = 64


class Toy(nn.Module, SingleLatent):
    """Images are [B, 1, D, 1]; codes are flattened into pixels of the same number."""

    used: bool = True
    target = "image"
    uniform_prior = True

    def likelihood(self, z, batch):
        mean = z.reshape(len(z), 1, -1, 1)
        return Gaussian(mean, jnp.zeros((1, 1, 1, 1)))

    def decode(self, z):
        return self.likelihood(z, {}).mean


class Directions(Toy):
    """The direction of x in 8 dimensions, or one direction for all x."""

    def posterior(self, batch):
        x = batch["image"].reshape(-1, 8)
        if not self.used:
            x = jnp.zeros_like(x).at[:, 0].set(1.0)
        return VonMisesFisher(x / jnp.linalg.norm(x, axis=-1, keepdims=True), 2000.0)

    def prior(self, batch):
        return UniformOnSphere(batch_size(batch), 8)

    def interpolate(self, start, end, fraction):
        from jvae.distributions import slerp

        return slerp(start, end, fraction)


class Codes(Toy):
    """Four variables of three values: logits 50 times the pixels, or 0."""

    def posterior(self, batch):
        logits = batch["image"].reshape(-1, 4, 3) * (50.0 if self.used else 0.0)
        return GumbelSoftmax(logits)

    def prior(self, batch):
        return GumbelSoftmax.uniform(batch_size(batch), 4, 3)


def pixels(kind):
    draws = np.random.default_rng(0)
    if kind is Directions:
        return draws.standard_normal((N, 8))
    digits = np.stack(np.unravel_index(np.arange(N), 4 * (3,)), -1)
    return np.eye(3)[digits].reshape(N, 12)  # 64 of the 81 codes


def found(toys, kind, used):
    trained, source = toys.trained(kind(used)), toys.source(pixels(kind))
    return evaluate_latents(trained, source, batch_size=16, key=KEY)


@pytest.mark.parametrize("kind", others_slow([Directions, Codes], Codes))
def test_separated_posteriors_carry_the_log_of_their_number(toys, kind):
    latents = found(toys, kind, True)
    terms = latents.information.terms
    assert terms["mutual_info"].mean == pytest.approx(math.log(64), abs=1e-3)
    total = terms["mutual_info"].mean + terms["marginal_kl"].mean
    assert total == pytest.approx(
        latents.kl.sum(), abs=0.6 if kind is Directions else 1e-3
    )
    assert collapse_verdict(latents.kl, latents.active).status == "healthy"


@pytest.mark.parametrize("kind", [Directions, Codes])
def test_a_collapsed_posterior_is_found_out_whatever_its_kl(toys, kind):
    """The KL of a von Mises-Fisher posterior is as large as ever."""
    latents = found(toys, kind, False)
    assert abs(latents.information.terms["mutual_info"].mean) < 1e-3
    assert (latents.kl.sum() > 10.0) == (kind is Directions)
    assert collapse_verdict(latents.kl, latents.active).status == "collapsed"


def test_the_parts_of_the_kl_of_codes_add_up(toys):
    """Three variables take 3 values equally often, the first only 0, 1 and a few 2."""
    terms = {k: v.mean for k, v in found(toys, Codes, True).information.terms.items()}
    parts = terms["total_correlation"] + terms["dimension_wise_kl"]
    assert terms["marginal_kl"] == pytest.approx(parts, abs=1e-4)
    # 64 different codes, each once: KL(q(z) || p(z)) = log 81 - log 64.
    assert terms["marginal_kl"] == pytest.approx(math.log(81 / 64), abs=1e-3)


def test_directions_have_active_units_and_no_dimensions_that_move_alone(toys):
    latents = found(toys, Directions, True)
    assert latents.active.shape == (8,) and latents.active.all()
    assert latents.kl.shape == (1,) and latents.kl_per_dim is None
    assert set(latents.information.terms) == {"mutual_info", "marginal_kl"}
    rows = metrics.latent_metrics(latents)
    assert rows["active_units"].unit == "of 8"
    reasons = " ".join(metrics.left_out(latents, True))
    for name in ("Total correlation", "Traversals", "other temperatures"):
        assert name in reasons
    assert "Active units" not in reasons


def test_codes_have_a_kl_for_every_variable_and_no_active_units(toys):
    latents = found(toys, Codes, True)
    np.testing.assert_allclose(latents.kl, math.log(3), rtol=1e-5)
    assert latents.active is None
    assert "active_units" not in metrics.latent_metrics(latents)
    assert "total_correlation" in metrics.latent_metrics(latents)
    assert "Active units" in " ".join(metrics.left_out(latents, True))


def test_a_gaussian_model_leaves_nothing_out(toys):
    trained = toys.trained(toys.PixelCode((1.0, 1.0)))
    source = toys.source(np.random.default_rng(0).normal(size=(20, 2)))
    latents = evaluate_latents(trained, source, batch_size=16, key=KEY)
    assert metrics.left_out(latents, False) == []


def test_the_code_of_an_image_is_a_direction_and_its_way_stays_on_the_sphere(toys):
    trained = toys.trained(Directions())
    x = pixels(Directions).reshape(N, 1, 8, 1).astype("float32")
    codes = samples.codes(trained, x)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1.0, rtol=1e-5)
    rows = np.asarray(interpolation.interpolate(trained, x[:4], x[4:8], 5))
    rows = rows.reshape(4, 5, 8)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(rows[:, 0], codes[:4], atol=1e-6)
    np.testing.assert_allclose(rows[:, -1], codes[4:8], atol=1e-6)


@pytest.mark.slow
def test_the_code_of_an_image_is_one_hot_and_its_way_a_line(toys):
    trained = toys.trained(Codes())
    x = pixels(Codes).reshape(N, 1, 12, 1).astype("float32")
    codes = np.asarray(samples.codes(trained, x))
    np.testing.assert_array_equal(codes.reshape(N, 12), x.reshape(N, 12))
    rows = interpolation.interpolate(trained, x[:4], x[4:8], 3).reshape(4, 3, 4, 3)
    np.testing.assert_allclose(rows[:, 1], 0.5 * (codes[:4] + codes[4:8]), atol=1e-6)
