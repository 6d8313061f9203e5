"""Statistics measured anew are those of the whole split, whatever the batches."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from jvae import models
from jvae.data import ArraySource, transforms
from jvae.pretrained.batch_norm import recomputed_statistics
from jvae.pretrained.trained_model import TrainedModel
from jvae.runtime import mesh
from tests.tiers import others_slow

KEY = jax.random.key(0)
D, N = 3, 53
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 2, 2, 1)).astype("uint8")
SOURCE = ArraySource({"image": PIXELS})
MLP = {"name": "mlp", "image_shape": (2, 2, 1), "latent_dim": D, "hidden": (6,)}


def trained(fields=MLP, **changes):
    """Returns a model with random parameters and statistics that fit nothing."""
    model = models.build(**{**fields, **changes})
    batch = {"image": np.zeros((1, 2, 2, 1), np.float32)}
    state = dict(jax.jit(model.init)(KEY, batch, KEY))
    params = state.pop("params")
    draws = np.random.default_rng(1)
    params = jax.tree.map(
        lambda a: draws.standard_normal(a.shape).astype(np.float32), params
    )
    return TrainedModel(model, params, state, transforms.build("unit"), mesh.build())


def posterior(trained, key, batch):
    return trained.call("posterior", batch)


def means_of(found):
    q = found.map_examples(posterior, SOURCE, batch_size=16, key=KEY)
    return np.asarray(q.mean, np.float64), np.exp(np.asarray(q.log_var, np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [8, 32, 64])
def test_normalized_means_have_their_moments_over_the_split(batch_size):
    """So the floor of BN-VAE holds in evaluation, to rounding."""
    before = trained(latent={"name": "normalized_gaussian", "gamma": 0.7})
    after = recomputed_statistics(before, SOURCE, batch_size=batch_size, key=KEY)
    mean, _ = means_of(after)
    shift = np.asarray(before.params["normalise"]["shift"])
    np.testing.assert_allclose(mean.mean(0), shift, atol=1e-5)
    np.testing.assert_allclose(mean.std(0), 0.7, rtol=1e-4)
    assert np.abs(means_of(before)[0].std(0) - 0.7).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)


@pytest.mark.parametrize(
    ("scale", "shift"),
    others_slow([(1e4, 0.0), (1.0, 300.0), (0.01, 3.0)], (1.0, 300.0)),
)
def test_means_far_from_zero_or_of_another_size_lose_no_digits(scale, shift):
    before = trained(latent={"name": "normalized_gaussian", "gamma": 0.7})
    head = before.params["posterior_head"]
    head = {"kernel": scale * head["kernel"], "bias": head["bias"] + shift}
    params = {**before.params, "posterior_head": head}
    before = dataclasses.replace(before, params=params)
    after = recomputed_statistics(before, SOURCE, batch_size=16, key=KEY)
    np.testing.assert_allclose(means_of(after)[0].std(0), 0.7, rtol=2e-3)


@pytest.mark.parametrize("variance", others_slow(["signed", "positive"], "signed"))
def test_matched_moments_match_over_the_split(variance):
    latent = {"name": "moment_gaussian", "tau": 0.3, "variance": variance}
    before = trained(latent=latent)
    after = recomputed_statistics(before, SOURCE, batch_size=16, key=KEY)
    mean, var = means_of(after)
    np.testing.assert_allclose((mean**2 + var).mean(0), 1.0, rtol=1e-3)
    kl = 0.5 * (mean**2 + var - 1 - np.log(var)).mean(0)
    assert (kl >= -0.5 * math.log(0.7)).all()


CONV = {"name": "conv", "image_shape": (2, 2, 1), "latent_dim": D, "channels": (3,)}


@pytest.mark.slow
def test_layers_further_down_and_few_examples():
    """A BatchNorm in the encoder before the one on the mean; the first 20 examples."""
    before = trained(CONV, batch_norm=True, latent="normalized_gaussian")
    after = recomputed_statistics(
        before, SOURCE, batch_size=24, key=KEY, num_examples=20
    )
    batch = {"image": PIXELS[:20] / 255.0}
    apply = jax.jit(functools.partial(before.model.apply, mutable=["batch_stats"]))
    _, new = apply({"params": before.params, **before.state}, batch, KEY)
    old, stats = before.state["batch_stats"], new["batch_stats"]
    # one batch: what training would remember of it, at momentum 0.99
    wanted = jax.tree.map(lambda a, b: (b - 0.99 * a) / 0.01, old, stats)
    found = after.state["batch_stats"]
    assert set(found) == {"encoder", "normalise", "decoder"}
    for part in ("encoder", "normalise"):  # the decoder's are of other draws of z
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
            found[part],
            wanted[part],
        )
    assert jax.tree.all(jax.tree.map(lambda a: np.isfinite(a).all(), found))


@pytest.mark.slow
def test_a_model_without_statistics_stays_as_it_is():
    plain = trained()
    assert recomputed_statistics(plain, SOURCE, batch_size=8, key=KEY) is plain
