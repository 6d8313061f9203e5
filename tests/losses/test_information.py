"""KL = mutual information + marginal KL, and what the parts are where it is known."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from jvae import losses, models
from jvae.distributions import DiagGaussian, Gaussian
from jvae.errors import ConfigError
from jvae.losses import information
from jvae.runtime import mesh

KEY = jax.random.key(0)
ESTIMATORS = ("weighted", "stratified")
SIZES = (None, 50)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@functools.partial(jax.jit, static_argnames=("dataset_size", "estimator"))
def per_example(q, z, mask=None, **options):
    return information.decompose_kl_per_example(q, z, mask=mask, **options)


@functools.partial(jax.jit, static_argnames=("dataset_size", "estimator"))
def decompose(q, z, mask=None, **options):
    return losses.decompose_kl(q, z, mask=mask, **options)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def mixture_weights(num_examples, dataset_size, estimator):
    options = (num_examples, dataset_size, estimator)
    return jnp.exp(information.mixture_log_weights(*options))


def posteriors(b=6, d=3):
    q = DiagGaussian(2.0 * normal(0, b, d), normal(1, b, d) - 1.0)
    return q, q.mean + np.exp(0.5 * q.log_var) * normal(2, b, d)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dataset_size", SIZES)
def test_the_parts_add_up_to_the_kl_draw_by_draw(estimator, dataset_size):
    q, z = posteriors()
    terms = per_example(q, z, dataset_size=dataset_size, estimator=estimator)
    std = np.exp(0.5 * q.log_var)
    log_ratio = scipy.stats.norm.logpdf(z, q.mean, std) - scipy.stats.norm.logpdf(z)
    kl = log_ratio.sum(-1)
    np.testing.assert_allclose(terms["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(
        terms["mutual_info"] + terms["marginal_kl"], kl, rtol=1e-4, atol=1e-4
    )
    parts = terms["total_correlation"] + terms["dimension_wise_kl"]
    np.testing.assert_allclose(parts, terms["marginal_kl"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dataset_size", SIZES)
def test_every_part_is_what_its_densities_say(estimator, dataset_size):
    """The mixtures of all posteriors written out with SciPy."""
    q, z = posteriors()
    weights = np.asarray(mixture_weights(6, dataset_size, estimator))[:, :, None]
    std = np.exp(0.5 * q.log_var)
    components = scipy.stats.norm.pdf(z[:, None], q.mean[None], std[None])
    joint = np.log((weights[..., 0] * components.prod(-1)).sum(1))
    product = np.log((weights * components).sum(1)).sum(-1)
    given_x = scipy.stats.norm.logpdf(z, q.mean, std).sum(-1)
    wanted = {
        "mutual_info": given_x - joint,
        "total_correlation": joint - product,
        "dimension_wise_kl": product - scipy.stats.norm.logpdf(z).sum(-1),
    }
    found = per_example(q, z, dataset_size=dataset_size, estimator=estimator)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)


def test_stratified_weights_are_the_known_ones():
    weights = np.asarray(mixture_weights(5, 50, "stratified"))
    np.testing.assert_allclose(np.diag(weights), np.full(5, 0.02), rtol=1e-5)
    for row in np.sort(weights):
        np.testing.assert_allclose(row, [0.02, 0.23, 0.25, 0.25, 0.25], rtol=1e-5)
    # Each other example is the odd one once, so that none is preferred.
    np.testing.assert_allclose(weights.sum(0), np.ones(5), rtol=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("b", "n"), [(2, 2), (2, 3), (5, 50), (64, 10**7)])
def test_weights_of_a_row_sum_to_one_with_its_own_at_one_over_n(estimator, b, n):
    weights = np.asarray(mixture_weights(b, n, estimator))
    np.testing.assert_allclose(weights.sum(1), np.ones(b), rtol=1e-5)
    np.testing.assert_allclose(np.diag(weights), np.full(b, 1 / n), rtol=1e-4)
    assert np.all(weights > 0)


def test_a_batch_that_is_the_data_set_has_equal_weights():
    weights = np.asarray(mixture_weights(4, None, "weighted"))
    np.testing.assert_allclose(weights, np.full((4, 4), 0.25), rtol=1e-6)


@pytest.mark.parametrize(("b", "n"), [(5, 4), (1, 10)])
def test_impossible_data_set_sizes_are_refused(b, n):
    with pytest.raises(ConfigError, match="dataset_size must be at least the batch"):
        information.mixture_log_weights(b, n, "weighted")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dataset_size", SIZES)
def test_masked_rows_do_not_count_whatever_they_hold(estimator, dataset_size):
    q, z = posteriors()
    options = {"dataset_size": dataset_size, "estimator": estimator}
    wanted = decompose(q, z, **options)
    places = [0, 3, 6]
    mask = np.insert(np.ones(6, bool), places, False)
    q, z = (
        jax.tree.map(lambda a, p=padding: np.insert(a, places, p, axis=0), tree)
        for tree, padding in ((q, np.nan), (z, np.inf))
    )
    found = decompose(q, z, mask, **options)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("n", [1, 3, 4, 1000])
def test_a_row_that_is_left_alone_shares_nothing_with_others(estimator, n):
    """Its aggregate posterior is its posterior, whatever the data set's size."""
    q = DiagGaussian(jnp.ones((4, 6)), jnp.zeros((4, 6)))
    mask = jnp.arange(4) == 2
    z = q.sample(jax.random.key(0))
    found = decompose(q, z, mask, dataset_size=n, estimator=estimator)
    assert found["mutual_info"] == found["total_correlation"] == 0.0
    np.testing.assert_allclose(found["dimension_wise_kl"], found["kl"], rtol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("n", [3, 5, 7])
def test_padding_changes_no_weights_beside_a_small_data_set(estimator, n):
    """5 rows of which the last two are padding: N may be 3, as without them."""
    mask = jnp.arange(5) < 3
    padded = np.exp(information.mixture_log_weights(5, n, estimator, mask))
    plain = np.exp(information.mixture_log_weights(3, n, estimator))
    np.testing.assert_allclose(padded[:3, :3], plain, rtol=1e-6)
    np.testing.assert_array_equal(padded[:, 3:], 0.0)


@pytest.mark.parametrize("devices", [1, 8])
def test_separated_posteriors_keep_the_log_of_their_number(devices):
    """64 posteriors far apart: z says which it was, whatever the sharding."""
    q = DiagGaussian(100.0 * np.eye(64, dtype="float32"), np.zeros((64, 64), "float32"))
    z = q.mean + normal(0, 64, 64)
    if devices == 8:
        q, z = jax.device_put((q, z), mesh.rows(mesh.build()))
    found = decompose(q, z)["mutual_info"]
    np.testing.assert_allclose(found, math.log(64), rtol=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dataset_size", [None, 10_000])
def test_collapsed_posteriors_keep_nothing(estimator, dataset_size):
    """Every q(z|x) is the prior N(0, I) in 10 dimensions: all parts are zero.

    The total correlation of weights that do not sum to one would be
    (1 - 10) log N = -82.9.
    """
    zeros = np.zeros((64, 10), "float32")
    terms = per_example(
        DiagGaussian(zeros, zeros),
        normal(0, 64, 10),
        dataset_size=dataset_size,
        estimator=estimator,
    )
    for name, values in terms.items():
        np.testing.assert_allclose(values, np.zeros(64), atol=2e-5, err_msg=name)


def test_total_correlation_of_correlated_gaussians_is_that_of_algebra():
    """q(z) = N(0, S) with correlation 0.9 as a mixture of 2,048 narrow posteriors."""
    points = scipy.stats.qmc.MultivariateNormalQMC(np.zeros(4), seed=1).random(2048)
    var = 0.05  # less than S's smallest eigenvalue, 0.1
    root = np.linalg.cholesky([[1 - var, 0.9], [0.9, 1 - var]])
    q = DiagGaussian(points[:, :2] @ root.T, np.full((2048, 2), math.log(var)))
    found = decompose(q, q.mean + math.sqrt(var) * points[:, 2:])
    wanted = -0.5 * math.log(1 - 0.9**2)
    np.testing.assert_allclose(wanted, 0.830365603, rtol=1e-8)
    np.testing.assert_allclose(found["total_correlation"], wanted, atol=0.01)
    np.testing.assert_allclose(found["dimension_wise_kl"], 0.0, atol=0.01)


def test_independent_dimensions_have_no_total_correlation():
    """A product grid of means: q(z) factorises, and so do the estimates."""
    axis = np.linspace(-2, 2, 9)
    means = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    q = DiagGaussian(means, np.zeros_like(means))
    terms = per_example(q, means + normal(0, 81, 2))
    np.testing.assert_allclose(terms["total_correlation"], np.zeros(81), atol=1e-5)


def test_with_weights_one_the_decomposed_bound_is_the_elbo():
    model = models.build("mlp", image_shape=(2, 2, 1), latent_dim=2, hidden=(3,))
    batch = {"image": np.eye(4, dtype="float32").reshape(4, 2, 2, 1)}
    shapes = jax.eval_shape(model.init, KEY, batch, KEY)["params"]
    params = jax.tree.map(lambda a: normal(0, *a.shape), shapes)
    decomposed = jax.jit(losses.build("decomposed_elbo", model, dataset_size=20))
    elbo = jax.jit(losses.build("elbo", model, kl_estimate="monte_carlo"))
    weights = ("mutual_info", "total_correlation", "dimension_wise_kl")
    found, aux = decomposed(params, {}, KEY, batch, dict.fromkeys(weights, 1.0))
    wanted, wanted_aux = elbo(params, {}, KEY, batch, {})
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for name in ("elbo", "kl", "log_likelihood"):
        np.testing.assert_allclose(
            aux.metrics[name], wanted_aux.metrics[name], rtol=1e-4, err_msg=name
        )
    other = dict(zip(weights, (0.5, 3.0, 2.0), strict=True))
    found, _ = decomposed(params, {}, KEY, batch, other)
    penalty = sum(other[name] * aux.metrics[name] for name in weights)
    wanted = penalty - aux.metrics["log_likelihood"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dataset_size", SIZES)
def test_the_parts_against_another_prior_are_those_of_standardised_latents(
    estimator, dataset_size
):
    """An affine map of z that turns p(z) into N(0, I) changes no divergence."""
    q, z = posteriors()
    mean, std = (
        np.array([1.0, -2.0, 0.5], "float32"),
        np.array([0.5, 1.0, 3.0], "float32"),
    )
    rows = (np.tile(mean, (6, 1)), np.tile(2.0 * np.log(std), (6, 1)))
    moved = DiagGaussian(mean + std * q.mean, q.log_var + 2.0 * np.log(std))
    options = {"dataset_size": dataset_size, "estimator": estimator}
    found = per_example(moved, mean + std * z, prior=DiagGaussian(*rows), **options)
    for name, values in per_example(q, z, **options).items():
        np.testing.assert_allclose(
            found[name], values, rtol=1e-4, atol=1e-4, err_msg=name
        )


class Learned(models.SingleLatent, nn.Module):
    """p(z) = N(m, diag s^2) with learned m and s, the same for all examples."""

    target = "image"

    def setup(self):
        self.encoder, self.decoder = nn.Dense(4), nn.Dense(3)
        self.m = self.param("m", nn.initializers.normal(), (2,))
        self.log_var = self.param("log_var", nn.initializers.normal(), (2,))

    def posterior(self, batch):
        return DiagGaussian(*jnp.split(self.encoder(batch["image"]), 2, axis=-1))

    def prior(self, batch):
        rows = (len(batch["image"]), 2)  # its shape is all that it reads
        return DiagGaussian(
            *(jnp.broadcast_to(a, rows) for a in (self.m, self.log_var))
        )

    def likelihood(self, z, batch):
        return Gaussian(self.decoder(z), jnp.zeros((1, 1)))

    def __call__(self, batch, key):
        return self.likelihood(self.infer(batch, key).latents, batch)


class FromLabel(Learned):
    def prior(self, batch):
        mean = batch["label"].astype(jnp.float32)[:, None] + self.m.reshape(1, 2)
        return DiagGaussian(mean, jnp.broadcast_to(self.log_var, mean.shape))


class NoDimensions(Learned):
    def prior(self, batch):
        class Density:
            def log_prob(self, z):
                return -jnp.abs(z).sum(-1)

        return Density()


def random_variables(model):
    batch = {"image": normal(0, 5, 3), "label": np.arange(5)}
    shapes = jax.eval_shape(Learned().init, KEY, batch, KEY)["params"]
    return jax.tree.map(lambda a: normal(1, *a.shape), shapes), batch


def test_the_prior_of_the_decomposed_bound_is_the_models():
    params, batch = random_variables(Learned())
    decomposed, elbo = (
        jax.jit(
            jax.value_and_grad(losses.build(name, Learned(), **given), has_aux=True)
        )
        for name, given in (
            ("decomposed_elbo", {"dataset_size": 20}),
            ("elbo", {"kl_estimate": "monte_carlo"}),
        )
    )
    (found, _), gradient = decomposed(params, {}, KEY, batch, {})
    (wanted, _), wanted_gradient = elbo(params, {}, KEY, batch, {})
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for f, w in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(wanted_gradient), strict=True
    ):
        np.testing.assert_allclose(f, w, rtol=1e-4, atol=1e-4)
    assert np.all(gradient["m"] != 0) and np.all(gradient["log_var"] != 0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (FromLabel(), "needs one prior for all examples, that of FromLabel depends on"),
        (NoDimensions(), "needs a prior that is a DiagGaussian"),
        (
            models.build("mlp", image_shape=(3, 1, 1), latent_dim=2, num_classes=5),
            "needs one prior for all examples, that of VAE depends on the example",
        ),
    ],
    ids=["label", "density", "vae"],
)
def test_a_prior_without_such_parts_is_refused_while_tracing(model, message):
    params, batch = random_variables(model)
    if isinstance(model, models.VAE):
        batch["image"] = batch["image"].reshape(5, 3, 1, 1)
        params = jax.eval_shape(model.init, KEY, batch, KEY)["params"]
    loss = losses.build("decomposed_elbo", model)
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(lambda p: loss(p, {}, KEY, batch, {}), params)
    assert message in str(error.value)


class OwnInfer(nn.Module):
    target = "image"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            Learned(),
            {"dataset_size": 0},
            "loss.dataset_size must be None or at least 2",
        ),
        (
            Learned(),
            {"dataset_size": 1},
            "loss.dataset_size must be None or at least 2",
        ),
        (Learned(), {"estimator": "exact"}, "loss.estimator must be"),
        (OwnInfer(), {}, "needs a model with posterior and prior, got OwnInfer"),
    ],
    ids=str,
)
def test_impossible_options_are_refused_before_tracing(model, options, message):
    with pytest.raises(ConfigError) as error:
        losses.build("decomposed_elbo", model, **options)
    assert message in str(error.value)


def test_posterior_and_draw_must_have_one_shape():
    q, z = posteriors()
    with pytest.raises(AssertionError):
        losses.decompose_kl(q, jnp.asarray(z[:, :2]))
