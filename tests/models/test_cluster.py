"""The VAE with clusters: its bound, its limits, and what it refuses."""

import functools
import math

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jvae import losses, models
from jvae.distributions import DiagGaussian
from jvae.errors import ConfigError
from tests.distributions.jitted import log_prob

KEY = jax.random.key(0)
B, K, D, SHAPE = 6, 4, 3, (2, 2, 1)
PLAIN = {"name": "mlp", "image_shape": SHAPE, "latent_dim": D, "hidden": (5,)}
CLASSIFIER = {"num_clusters": K, "classifier_hidden": (7,)}
RESPONSIBILITIES = {"num_clusters": K, "assignment": "responsibilities", "mean_std": 1}
LEARNED = {**RESPONSIBILITIES, "learned_variances": True, "learned_weights": True}
KINDS = {"classifier": CLASSIFIER, "responsibilities": RESPONSIBILITIES}
KINDS |= {"learned": LEARNED}
IMAGE = np.random.default_rng(0).integers(0, 2, (B, *SHAPE)).astype("float32")
BATCH = {"image": IMAGE}

GAUSSIAN = {"name": "gaussian", "std": math.sqrt(0.4), "mean": "sigmoid"}

every_kind = pytest.mark.parametrize("kind", KINDS)


def made(clusters, **changes):
    """Returns (model, params) with random numbers everywhere."""
    model = models.build(**{**PLAIN, "clusters": clusters, **changes})
    shapes = jax.eval_shape(model.init, KEY, BATCH, KEY)["params"]
    draws = np.random.default_rng(1)
    return model, jax.tree.map(
        lambda a: draws.standard_normal(a.shape).astype("float32"), shapes
    )


@functools.cache
def jitted(model, method):
    return jax.jit(functools.partial(model.apply, method=method))


def call(model, params, method, *args):
    """Returns model.method(*args), arrays of NumPy."""
    return jax.device_get(jitted(model, method)({"params": params}, *args))


@functools.cache
def loss_of(name, model, **options):
    return jax.jit(losses.build(name, model, **options))


def loss_at(params, name, model, **options):
    """Returns (the loss, its metrics), arrays of NumPy."""
    found = loss_of(name, model, **options)(params, {}, KEY, BATCH, {})
    loss, aux = jax.device_get(found)
    return loss, aux.metrics


def elbo(model, params):
    return loss_at(params, "elbo", model)[1]["elbo"]


def like_plain(params, cluster_params):
    """Returns the parameters with those of the clusters exchanged."""
    return {**params, **cluster_params}


@every_kind
def test_kl_and_log_ratio_are_those_of_the_joint_written_out(kind):
    model, params = made(KINDS[kind])
    found = call(model, params, "infer", BATCH, KEY)
    q = call(model, params, "posterior", BATCH)
    p = call(model, params, "prior", BATCH)
    z = np.asarray(found.latents, np.float64)
    log_q = scipy.stats.norm(q.mean, np.exp(0.5 * q.log_var)).logpdf(z)
    spread = np.exp(0.5 * p.log_vars)
    log_p = scipy.stats.norm(p.means, spread).logpdf(z[:, None])
    log_weights = scipy.special.log_softmax(p.logits)
    joint = log_p.sum(-1) + log_weights
    log_marginal = scipy.special.logsumexp(joint, axis=1)
    np.testing.assert_allclose(found.log_ratio, log_q.sum(-1) - log_marginal, rtol=1e-4)
    log_y = call(model, params, "cluster_log_probs", found.latents)
    y = np.exp(log_y)
    np.testing.assert_allclose(y.sum(-1), 1.0, rtol=1e-5)
    if kind == "classifier":
        terms = log_q[:, None] - log_p
    else:
        np.testing.assert_allclose(log_y, joint - log_marginal[:, None], atol=1e-4)
        variance = np.exp(p.log_vars)
        shift = np.square(q.mean[:, None] - p.means) / variance
        ratio = q.log_var[:, None] - p.log_vars
        terms = 0.5 * (np.exp(ratio) - ratio - 1.0 + shift)
    of_z = np.einsum("bk,bkd->bd", y, terms)
    of_y = (y * (log_y - log_weights)).sum(-1)
    wanted = np.concatenate([of_z, of_y[:, None]], -1)
    assert found.kl.shape == (B, D + 1)
    np.testing.assert_allclose(found.kl, wanted, rtol=1e-3, atol=1e-4)


def test_a_classifier_costs_its_divergence_from_the_true_clusters_of_the_code():
    """Draw by draw: kl - log_ratio = KL(q(y|z) || p(y|z))."""
    model, params = made(CLASSIFIER)
    found = call(model, params, "infer", BATCH, KEY)
    p = call(model, params, "prior", BATCH)
    log_y = call(model, params, "cluster_log_probs", found.latents)
    true = np.asarray(jax.jit(p.log_responsibilities)(found.latents))
    wanted = (np.exp(log_y) * (log_y - true)).sum(-1)
    difference = found.kl.sum(-1) - found.log_ratio
    np.testing.assert_allclose(difference, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@every_kind
def test_the_bound_is_below_log_p_of_x_and_importance_weights_reach_it(kind):
    """With one latent dimension log p(x) is an integral over a fine grid."""
    model, params = made(KINDS[kind], latent_dim=1)
    params = jax.tree.map(lambda a: 0.3 * a, params)  # weights that vary less
    grid = np.linspace(-12.0, 12.0, 4001, dtype="float32")[:, None]
    log_prior = call(model, params, "prior", BATCH).log_prob(grid)
    likelihood = call(model, params, "likelihood", grid, {})
    log_p = []
    for image in IMAGE:
        images = np.broadcast_to(image[None], (len(grid), *SHAPE))
        joint = np.float64(log_prior + likelihood.log_prob(images))
        log_p.append(scipy.special.logsumexp(joint) + math.log(24.0 / 4000))
    loss = losses.build("elbo", model)
    draws = jax.vmap(lambda key: loss(params, {}, key, BATCH, {})[1].metrics["elbo"])
    found = jax.jit(draws)(jax.random.split(KEY, 400))
    error = found.std() / math.sqrt(len(found))
    assert found.mean() < np.mean(log_p) + 3 * error
    weighted = losses.build("iwae", model, num_samples=4000)
    found = jax.jit(weighted)(params, {}, KEY, BATCH, {})[1].metrics["iwae"]
    assert found == pytest.approx(np.mean(log_p), abs=0.02)


def test_one_cluster_at_zero_is_the_plain_vae_with_the_kl_of_one_draw():
    """T9; q(y|z) is 1 whatever the classifier says."""
    model, params = made({**CLASSIFIER, "num_clusters": 1})
    params = like_plain(params, {"cluster_means": np.zeros((1, D), "float32")})
    plain = models.build(**PLAIN)
    wanted_ratio = call(plain, params, "infer", BATCH, KEY).log_ratio
    np.testing.assert_allclose(
        call(model, params, "infer", BATCH, KEY).kl.sum(-1), wanted_ratio, rtol=1e-5
    )
    found = loss_at(params, "cluster_elbo", model)[1]["elbo"]
    wanted = -loss_at(params, "elbo", plain, kl_estimate="monte_carlo")[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("k", [1, K])
def test_equal_standard_components_are_the_plain_vae_in_closed_form(k):
    """L35, with weights that differ: p(y|z) = p(y), so y costs nothing."""
    model, params = made({**LEARNED, "num_clusters": k})
    zeros = np.zeros((k, D), "float32")
    params = like_plain(params, {"cluster_means": zeros, "cluster_log_vars": zeros})
    wanted = elbo(models.build(**PLAIN), params)
    np.testing.assert_allclose(elbo(model, params), wanted, rtol=1e-5)


@every_kind
def test_the_order_of_the_clusters_does_not_matter(kind):
    model, params = made(KINDS[kind])
    order = np.array([2, 0, 3, 1])
    turned = {
        name: value[order] if name.startswith("cluster_") else value
        for name, value in params.items()
    }
    if kind == "classifier":
        last = {k: v[..., order] for k, v in params["classifier_1"].items()}
        turned["classifier_1"] = last
    np.testing.assert_allclose(elbo(model, turned), elbo(model, params), rtol=1e-6)
    before = call(model, params, "infer", BATCH, KEY).log_ratio
    after = call(model, turned, "infer", BATCH, KEY).log_ratio
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_at_the_start_the_cost_of_the_code_is_the_same_in_every_cluster():
    """All means are 0, so only the classifier's random numbers part the clusters."""
    model = models.build(**PLAIN, clusters=CLASSIFIER)
    params = jax.device_get(jax.jit(model.init)(KEY, BATCH, KEY))["params"]
    assert not np.any(params["cluster_means"])
    found = call(model, params, "infer", BATCH, KEY)
    q, z = call(model, params, "posterior", BATCH), found.latents
    wanted = np.subtract(log_prob(q, z), log_prob(DiagGaussian.standard(B, D), z))
    np.testing.assert_allclose(found.kl[:, :-1].sum(-1), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.log_ratio, wanted, rtol=1e-4, atol=1e-5)


def test_the_posts_loss_is_this_one_without_its_constants():
    """-|eps|^2 / 2, log K and (pixels / 2) log(2 pi 0.4); pixels weigh 2.5."""
    model, params = made(CLASSIFIER, likelihood=GAUSSIAN)
    found = call(model, params, "infer", BATCH, KEY)
    q, z = call(model, params, "posterior", BATCH), found.latents
    again = call(model, params, "decode", z).reshape(B, -1)
    y = np.exp(call(model, params, "cluster_log_probs", z))
    distance = np.square(z[:, None] - params["cluster_means"]).sum(-1)
    ratio = 0.5 * distance - 0.5 * q.log_var.sum(-1, keepdims=True)
    post = 2.5 * 0.5 * np.square(IMAGE.reshape(B, -1) - again).sum(-1)
    post = post + (y * ratio).sum(-1) + (y * np.log(y)).sum(-1)
    noise = np.square((z - q.mean) / np.exp(0.5 * q.log_var)).sum(-1)
    constants = -0.5 * noise + math.log(K) + 2.0 * math.log(2.0 * math.pi * 0.4)
    loss, _ = loss_at(params, "cluster_elbo", model)
    np.testing.assert_allclose(loss, (post + constants).mean(), rtol=1e-4)


def test_the_constants_of_the_reference_protocol_are_the_known_ones():
    assert math.log(10) == pytest.approx(2.3026, abs=1e-4)
    likelihood = models.likelihoods.build(GAUSSIAN)
    images = np.full((1, 28, 28, 1), 0.5, "float32")

    def of_zeros(images):
        return likelihood.apply({}, 0.0 * images).log_prob(images)

    log_p = jax.jit(of_zeros)(images)
    np.testing.assert_allclose(log_p, [-361.26], atol=5e-3)


def test_a_cluster_without_members_leaves_finite_values_and_gradients():
    model, params = made(LEARNED)
    far = params["cluster_means"].copy()
    far[0], weights = 1e4, np.array([0.0, -1e4, 0.0, -np.inf], "float32")
    params = like_plain(params, {"cluster_means": far, "cluster_logits": weights})
    loss = losses.build("cluster_elbo", model, balance=1.0)
    value, gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        params, {}, KEY, BATCH, {}
    )
    assert np.isfinite(value[0])
    del gradient["cluster_logits"]  # one weight is exactly 0, past any learning
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_every_parameter_of_every_kind_is_learned():
    for clusters in KINDS.values():
        model, params = made(clusters)
        loss = losses.build("cluster_elbo", model)
        gradient = jax.jit(jax.grad(loss, has_aux=True))(params, {}, KEY, BATCH, {})[0]
        dead = [jax.tree_util.keystr(p) for p, g in _leaves(gradient) if not np.any(g)]
        assert dead == []


def _leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


@pytest.mark.slow
def test_samples_of_a_cluster_lie_around_its_mean():
    model, params = made(LEARNED)
    bound, label = model.bind({"params": params}), np.arange(12) % K
    z = bound.sample_prior(KEY, 12, 0.0, label)
    np.testing.assert_allclose(z, params["cluster_means"][label], rtol=1e-6)
    one_hot = bound.sample_prior(KEY, 12, 0.0, jax.nn.one_hot(label, K))
    np.testing.assert_array_equal(one_hot, z)
    assert bound.generate(KEY, 12).shape == (12, *SHAPE)


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        ({"num_clusters": 0}, "model.clusters.num_clusters must be at least 1, got 0."),
        ({"num_cluster": 3}, "model.clusters.num_cluster is unknown. Did you mean"),
        ({"num_clusters": "ten"}, "model.clusters.num_clusters must be int"),
        ({"assignment": "nearest"}, "model.clusters.assignment must be"),
        (
            {"classifier_hidden": (0,)},
            "classifier_hidden must hold numbers that are at least",
        ),
        ({"mean_std": -1.0}, "mean_std must be at least 0"),
        ({"assignment": "responsibilities"}, "mean_std must be positive"),
    ],
)
def test_impossible_clusters_are_refused_in_one_line(clusters, message):
    with pytest.raises(ConfigError) as error:
        models.build(**PLAIN, clusters=clusters)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_clusters_beside_classes_are_refused():
    with pytest.raises(ConfigError, match="cannot both be set"):
        models.build(**PLAIN, num_classes=3, clusters=CLASSIFIER)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "learned"])
def test_components_fitted_to_codes_make_codes_likelier(kind):
    """Than the components before, and than N(0, I) where variances are fitted too."""
    model, params = made({**KINDS[kind], "components": "codes"})
    images = np.random.default_rng(2).integers(0, 2, (200, *SHAPE)).astype("float32")
    batch = {"image": images}
    variables = {"params": params}
    _, new = jax.jit(
        lambda v: model.apply(
            v, batch, KEY, method="data_dependent_init", mutable=["params"]
        )
    )(variables)
    z = call(model, params, "posterior", batch).sample(jax.random.key(7))
    before = call(model, params, "prior", batch).log_prob(z).mean()
    after = call(model, new["params"], "prior", batch).log_prob(z).mean()
    assert after > before + 0.1
    same = jax.tree.map(np.array_equal, params, new["params"])
    changed = {k for k, v in same.items() if not all(jax.tree.leaves(v))}
    learned = {"cluster_log_vars", "cluster_logits"} if kind == "learned" else set()
    assert changed == {"cluster_means"} | learned
    if kind == "learned":
        assert after > DiagGaussian.standard(*z.shape).log_prob(z).mean()
