"""The balance of clusters: limits, oracles, and what it leaves alone."""

import math

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jvae import losses, models
from jvae.errors import ConfigError
from jvae.losses import cluster_imbalance
from jvae.losses.clustering import entropy
from jvae.runtime import mesh

KEY = jax.random.key(0)
B, K = 16, 4
LOGITS = np.random.default_rng(0).standard_normal((B, K)).astype("float32")
LOG_PROBS = scipy.special.log_softmax(LOGITS, axis=-1)
MODEL = models.build(
    "mlp",
    image_shape=(2, 2, 1),
    latent_dim=2,
    hidden=(3,),
    clusters={"num_clusters": K, "classifier_hidden": (4,)},
)
imbalance, entropies = jax.jit(cluster_imbalance), jax.jit(entropy)
IMAGE = np.random.default_rng(0).integers(0, 2, (B, 2, 2, 1)).astype("float32")
BATCH = {"image": IMAGE}


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(MODEL.init, KEY, BATCH, KEY)["params"]
    draws = np.random.default_rng(1)
    return jax.tree.map(
        lambda a: draws.standard_normal(a.shape).astype("float32"), shapes
    )


def certain(clusters):
    """Returns log q(y|z) of examples that are sure of their clusters."""
    return np.where(np.eye(K, dtype=bool)[clusters], 0.0, -np.inf).astype("float32")


def test_imbalance_is_log_k_less_the_entropy_of_the_mean():
    wanted = math.log(K) - scipy.stats.entropy(np.exp(LOG_PROBS).mean(0))
    np.testing.assert_allclose(imbalance(LOG_PROBS), wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("clusters", "wanted"),
    [
        ([0, 1, 2, 3] * 4, 0.0),
        ([2] * 16, math.log(K)),
        ([0, 1] * 8, math.log(K) - math.log(2)),
    ],
    ids=["equal shares", "one has all", "two of four"],
)
def test_imbalance_goes_from_nothing_to_log_k(clusters, wanted):
    found = imbalance(certain(clusters))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_single_examples_may_be_sure_or_unsure_at_the_same_balance():
    """It is the mean that counts, where the KL acts on every example."""
    unsure = np.full((B, K), -math.log(K), "float32")
    np.testing.assert_allclose(imbalance(unsure), 0.0, atol=1e-6)
    np.testing.assert_allclose(entropies(unsure), math.log(K), rtol=1e-6)
    np.testing.assert_array_equal(entropies(certain([1] * B)), 0.0)


def test_an_empty_cluster_leaves_the_gradient_finite():
    gradient = jax.grad(lambda x: cluster_imbalance(jax.nn.log_softmax(x)))
    logits = np.full((B, K), -1e4, "float32")
    logits[:, 0] = 0.0
    assert np.isfinite(jax.jit(gradient)(logits)).all()


def test_rows_that_do_not_count_change_nothing_whatever_they_hold():
    places = [0, 3, 3, B]
    mask = np.insert(np.ones(B, bool), places, False)
    padded = np.insert(LOG_PROBS, places, np.nan, axis=0)
    gradient = jax.value_and_grad(lambda x: cluster_imbalance(x, mask))
    found, slope = jax.jit(gradient)(padded)
    np.testing.assert_allclose(found, imbalance(LOG_PROBS), rtol=1e-5)
    assert np.isfinite(slope).all()


def test_the_imbalance_of_a_batch_is_at_most_the_mean_of_its_parts():
    """Here every device has one cluster of its own and the batch has all."""
    by_device = certain(np.repeat(np.arange(K), B // K))
    parts = [imbalance(p) for p in np.split(by_device, K)]
    np.testing.assert_allclose(parts, math.log(K), rtol=1e-6)
    sharded = jax.device_put(by_device, mesh.rows(mesh.build()))
    found = imbalance(sharded)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


def test_without_balance_the_value_is_the_negative_elbo(params):
    plain = jax.jit(losses.build("elbo", MODEL))(params, {}, KEY, BATCH, {})
    found = jax.jit(losses.build("cluster_elbo", MODEL))(params, {}, KEY, BATCH, {})
    np.testing.assert_allclose(found[0], plain[0], rtol=1e-6)
    for name in ("elbo", "log_likelihood", "kl"):
        np.testing.assert_allclose(
            found[1].metrics[name], plain[1].metrics[name], rtol=1e-5
        )


def test_the_terms_add_up_and_the_elbo_has_neither_weight(params):
    loss = jax.jit(losses.build("cluster_elbo", MODEL))
    plain = loss(params, {}, KEY, BATCH, {})[1].metrics
    given = {"beta": np.float32(3.0), "balance": np.float32(7.0)}
    value, aux = jax.device_get(loss(params, {}, KEY, BATCH, given))
    m = aux.metrics
    wanted = 3.0 * m["kl"] - m["log_likelihood"] + 7.0 * m["imbalance"]
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(m["elbo"], m["log_likelihood"] - m["kl"], rtol=1e-5)
    np.testing.assert_allclose(m["elbo"], plain["elbo"], rtol=1e-6)
    assert 0.0 <= m["imbalance"] <= math.log(K)
    assert 0.0 <= m["assignment_entropy"] <= math.log(K)


def test_balance_is_about_the_draws_that_the_classifier_sees(params):
    """The imbalance is that of q(y|z) at the z of `infer` with the same key."""

    @jax.jit
    def log_probs():
        variables = {"params": params}
        z = MODEL.apply(variables, BATCH, KEY, method="infer").latents
        return MODEL.apply(variables, z, method="cluster_log_probs")

    loss = jax.jit(losses.build("cluster_elbo", MODEL, balance=1.0))
    metrics = loss(params, {}, KEY, BATCH, {})[1].metrics
    wanted = imbalance(log_probs())
    np.testing.assert_allclose(metrics["imbalance"], wanted, rtol=1e-4, atol=1e-6)


def test_a_step_down_the_balance_term_evens_out_the_clusters(params):
    loss = losses.build("cluster_elbo", MODEL, beta=0.0, balance=1e4)

    @jax.jit
    def step(params):
        gradient, aux = jax.grad(loss, has_aux=True)(params, {}, KEY, BATCH, {})
        moved = jax.tree.map(lambda p, g: p - 1e-5 * g, params, gradient)
        return moved, aux.metrics["imbalance"]

    moved, before = step(params)
    for _ in range(49):
        moved, _ = step(moved)
    after = step(moved)[1]
    assert float(after) < 0.5 * float(before)


@pytest.mark.parametrize("name", ["cluster_elbo"])
def test_a_model_without_clusters_is_refused_when_the_loss_is_built(name):
    plain = models.build("mlp", image_shape=(2, 2, 1), latent_dim=2)
    with pytest.raises(ConfigError, match="needs a model with clusters, got VAE"):
        losses.build(name, plain)


def test_a_prior_of_clusters_is_refused_by_what_needs_one_gaussian(params):
    loss = losses.build("decomposed_elbo", MODEL)
    with pytest.raises(ConfigError, match="got GaussianMixture"):
        loss(params, {}, KEY, BATCH, {})


@pytest.mark.parametrize("weight", ["balance", "beta"])
def test_a_negative_weight_is_refused(weight):
    with pytest.raises(ConfigError, match=f"loss.{weight} must be"):
        losses.build("cluster_elbo", MODEL, **{weight: -1.0})
