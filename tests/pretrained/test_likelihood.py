import functools
import math

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from jvae import losses, models
from jvae.data import transforms
from jvae.data.sources import ArraySource
from jvae.errors import ConfigError
from jvae.losses.iwae import sample_keys
from jvae.pretrained.likelihood import (
    GREY_BERNOULLI,
    Estimate,
    bits_per_dim,
    bounds_per_example,
    elbo_per_example,
    evaluate_elbo,
    evaluate_log_likelihood,
    log_likelihood_per_example,
    observation,
)
from tests.tiers import others_slow
from tests.toys import trained as as_trained

KEY = jax.random.key(1)
ORACLE = -2.983756801  # log N([1, 1]; 0, W W^T + I) with W = [1, 2]
X = {"image": np.ones((5, 1, 2, 1), np.float32)}


def iw(model, key, batch, num_samples, chunk_size):
    function = functools.partial(
        log_likelihood_per_example, as_trained(model, params={})
    )
    function = jax.jit(function, static_argnums=(2, 3))
    return np.asarray(function(key, batch, num_samples, chunk_size))


def terms_of(model, batch):
    terms = functools.partial(elbo_per_example, as_trained(model, params={}))
    return jax.device_get(jax.jit(terms)(KEY, batch))


@pytest.mark.parametrize(
    ("num_samples", "chunk_size"),
    others_slow([(1, 100), (11, 22), (25, 10), (20, 10)], (25, 10)),
)
def test_the_draws_are_as_many_as_asked_and_the_same_in_chunks(
    toys, num_samples, chunk_size
):
    model = toys.LinearGaussian(exact=False)
    options = {"model": model, "num_samples": num_samples}
    weigh = jax.jit(functools.partial(losses.log_weights, **options))
    weights, _ = weigh({}, {}, KEY, X)
    assert weights.shape == (num_samples, 5)
    whole = logsumexp(np.asarray(weights, np.float64), 0) - np.log(num_samples)
    found = iw(model, KEY, X, num_samples, chunk_size)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_the_parts_of_the_elbo_are_means_over_the_same_draws():
    """So the ELBO with a Monte Carlo KL is the mean of their log weights."""
    sizes = {"image_shape": (1, 2, 1), "latent_dim": 3, "hidden": (4,)}
    model = models.build("mlp", **sizes, likelihood="gaussian")
    variables = model.init(KEY, X, KEY)
    trained = as_trained(model, params=variables["params"])
    num_samples, total = 7, 0.0
    draws = sample_keys(KEY, 5, num_samples)
    for each in draws:
        terms = elbo_per_example(trained, each, X)
        total += np.asarray(terms["log_likelihood"])
    kl = elbo_per_example(trained, KEY, X)["kl"]  # closed form: the same at any draw

    for chunk_size in (1, 3):
        found = functools.partial(bounds_per_example, trained, KEY, X)
        found = jax.jit(found, static_argnums=(0, 1))(num_samples, chunk_size)
        wanted = total / num_samples
        np.testing.assert_allclose(found["log_likelihood"], wanted, rtol=1e-5)
        assert found["kl"].shape == (5, 3)
        np.testing.assert_allclose(found["kl"].sum(-1), kl, rtol=1e-5)


def test_every_weight_of_the_exact_posterior_is_the_evidence(toys):
    exact = iw(toys.LinearGaussian(), KEY, X, 11, 4)
    np.testing.assert_allclose(exact, ORACLE, atol=1e-5)


def test_many_draws_of_a_poor_posterior_reach_the_oracle(toys):
    model = toys.LinearGaussian(exact=False)
    found = iw(model, KEY, X, 5000, 500)
    np.testing.assert_allclose(found, ORACLE, atol=0.05 * 3)
    np.testing.assert_allclose(found.mean(), ORACLE, atol=0.05)


def test_the_elbo_of_the_exact_posterior_is_the_evidence_on_average(toys):
    many = {"image": np.ones((4000, 1, 2, 1), np.float32)}
    terms = terms_of(toys.LinearGaussian(), many)
    kl = 0.5 * (1 / 6 + 0.25 - 1.0 + np.log(6.0))  # of N(0.5, 1/6) to N(0, 1)
    np.testing.assert_allclose(terms["kl"], kl, rtol=1e-5)
    found = Estimate.of(terms["elbo"])
    assert abs(found.mean - ORACLE) < 4 * found.standard_error < 0.1


def test_weights_far_below_float32_are_added_without_loss(toys):
    far = {"image": 200.0 * X["image"]}
    exact = -np.log(2 * np.pi) - 0.5 * np.log(6) - 0.5 * (80000 - 600**2 / 6)
    np.testing.assert_allclose(iw(toys.LinearGaussian(), KEY, far, 7, 2), exact, 1e-6)


def test_one_draw_is_the_elbo_with_a_monte_carlo_kl(toys):
    model = toys.LinearGaussian(exact=False)
    terms = terms_of(model, X)
    # q is the prior, so both forms of the KL are 0.
    np.testing.assert_allclose(terms["elbo"], iw(model, KEY, X, 1, 1), rtol=1e-6)
    np.testing.assert_array_equal(terms["kl"], 0.0)


@pytest.mark.parametrize("chunks", [(0, 1), (1, 0)])
def test_no_draws_are_refused(toys, chunks):
    with pytest.raises(ConfigError, match="must be at least 1, got 0"):
        iw(toys.LinearGaussian(), KEY, X, *chunks)


def test_the_mean_over_10003_rows_on_8_devices_is_numpys(toys):
    pixels = np.random.default_rng(0).normal(size=(10_003, 2)).astype(np.float32)
    trained = toys.trained(toys.PixelCode((1.0, 3.0)))
    found = evaluate_elbo(trained, toys.source(pixels), batch_size=64, key=KEY)["kl"]
    kl = 0.5 * np.square(np.float64([1.0, 3.0]) * pixels).sum(1)
    np.testing.assert_allclose(found.mean, kl.mean(), rtol=1e-6)
    error = kl.std(ddof=1) / np.sqrt(10_003)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-6)
    assert found.num_examples == 10_003


def test_nll_is_that_of_the_true_examples_each_once(toys):
    # A decoder that ignores z: every weight is p(x), known from its biases.
    model = models.build("mlp", image_shape=(2, 3, 1), latent_dim=2, hidden=(8,))
    batch = {"image": np.zeros((1, 2, 3, 1), np.float32)}
    shapes = jax.eval_shape(model.init, KEY, batch, KEY)
    params = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes["params"])
    logits = np.linspace(-2.0, 3.0, 6)
    params["decoder"]["output"]["bias"] = logits.astype(np.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (37, 2, 3, 1), np.uint8)
    trained = toys.trained(model, transforms.build("threshold"), params=params)
    source = ArraySource({"image": pixels})
    common = {"batch_size": 16, "key": KEY, "num_samples": 5, "chunk_size": 3}
    found = evaluate_log_likelihood(trained, source, **common)
    x = (pixels >= 128).reshape(37, 6)
    nll = np.where(x, np.log1p(np.exp(-logits)), np.log1p(np.exp(logits))).sum(1)
    assert -found.mean == pytest.approx(nll.mean(), rel=1e-5)
    assert found.standard_error == pytest.approx(nll.std(ddof=1) / 37**0.5, rel=1e-4)
    assert (found.num_examples, found.num_samples) == (37, 5)


def test_bounds_do_not_depend_on_batch_size_or_devices(toys):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 1, 3, 1), np.uint8)
    source = ArraySource({"image": pixels})
    model, transform = toys.PixelCode((1.0, 2.0, 0.0)), transforms.build("binarize")
    found = []
    for batch_size, devices in ((16, None), (7, toys.ONE_DEVICE)):
        trained = toys.trained(model, transform, devices)
        common = {"batch_size": batch_size, "key": KEY}
        elbo = evaluate_elbo(trained, source, **common)["elbo"]
        weighted = evaluate_log_likelihood(
            trained, source, num_samples=3, chunk_size=2, **common
        )
        found.append([elbo.mean, elbo.standard_error, weighted.mean])
        assert elbo.mean < weighted.mean
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_the_standard_error_of_one_example_is_unknown():
    assert Estimate.of(np.ones(1)) == Estimate(1.0, None, 1)


def test_a_uniform_model_of_256_levels_has_8_bits_per_dim():
    nats = Estimate(-17034.785109, 1.0, 10)
    found = bits_per_dim(nats, 3 * 32 * 32)
    np.testing.assert_allclose(found.mean, 8.0, rtol=1e-9)
    np.testing.assert_allclose(found.standard_error, 8.0 / 17034.785109, rtol=1e-9)


def test_a_density_of_noised_levels_has_the_bits_of_their_probability(toys):
    """p(x) = N(0, I + [1, 2] [1, 2]^T), so a level's rectangle has a known mass."""
    rng, num_bits = np.random.default_rng(0), 3
    pixels = rng.integers(0, 256, (200, 1, 2, 1), np.uint8)
    transform = transforms.build("dequantize", num_bits)
    trained = toys.trained(toys.LinearGaussian(), transform)
    source = ArraySource({"image": pixels})
    common = {"batch_size": 64, "key": KEY, "num_samples": 1, "chunk_size": 1}
    found = evaluate_log_likelihood(trained, source, **common)
    bits = bits_per_dim(found, 2, observation(trained, source).bin_bits)

    low = (pixels.reshape(-1, 2) >> (8 - num_bits)) / 2**num_bits
    exact = multivariate_normal([0.0, 0.0], [[2.0, 2.0], [2.0, 5.0]])
    side = 2.0**-num_bits
    mass = exact.cdf(low + side, lower_limit=low)
    wanted = -np.log2(mass).mean() / 2
    assert abs(bits.mean - wanted) < 4e-3 and bits.mean > 3.0
    assert bits.standard_error == pytest.approx(
        found.standard_error / (2 * math.log(2.0))
    )


@pytest.mark.parametrize(
    ("likelihood", "transform", "is_likelihood", "is_discrete", "words"),
    [
        ("bernoulli", "binarize", True, True, ""),
        ("bernoulli", "unit", False, False, GREY_BERNOULLI),
        ("discretized_logistic", "signed", True, True, ""),
        ("discretized_logistic", "unit", False, False, "not a likelihood"),
        ("nvae_logistic_mixture", "signed", False, False, "add up to more than 1"),
        ("categorical", "levels", True, True, ""),
        ("gaussian", "dequantize", True, False, "a density"),
        ("gaussian", "unit", True, False, "without bound"),
    ],
)
def test_what_a_number_is_depends_on_likelihood_and_data(
    toys, likelihood, transform, is_likelihood, is_discrete, words
):
    shape = (2, 3, 1)
    model = models.build("mlp", image_shape=shape, hidden=(2,), likelihood=likelihood)
    params = jax.eval_shape(
        model.init, KEY, {"image": np.zeros((1, *shape), np.float32)}, KEY
    )["params"]
    source = ArraySource({"image": np.zeros((1, *shape), np.uint8)})
    trained = toys.trained(model, transforms.build(transform), params=params)
    found = observation(trained, source)
    assert (found.is_likelihood, found.is_discrete) == (is_likelihood, is_discrete)
    assert words in found.caution and bool(words) == bool(found.caution)
    assert found.bin_bits == (8 if transform == "dequantize" else None)


def test_bits_per_dimension_count_the_pixels_of_padding(toys):
    model = models.build("mlp", image_shape=(4, 5, 1), hidden=(2,))
    batch = {"image": np.zeros((1, 4, 5, 1), np.float32)}
    params = jax.eval_shape(model.init, KEY, batch, KEY)["params"]
    source = ArraySource({"image": np.zeros((1, 2, 3, 1), np.uint8)})
    trained = toys.trained(
        model, transforms.build("binarize", padding=1), params=params
    )
    assert observation(trained, source).num_dims == 20


@pytest.mark.parametrize(("num_classes", "given"), [(None, ""), (3, "|y")])
def test_a_prior_per_class_makes_the_bounds_those_given_the_class(
    toys, num_classes, given
):
    shape = (2, 3, 1)
    fields = {"image_shape": shape, "hidden": (2,), "num_classes": num_classes}
    model = models.build("mlp", **fields)
    label = np.zeros(1, np.int32)
    batch = {"image": np.zeros((1, *shape), np.float32), "label": label}
    params = jax.eval_shape(model.init, KEY, batch, KEY)["params"]
    arrays = {"image": np.zeros((1, *shape), np.uint8), "label": label}
    trained = toys.trained(model, transforms.build("binarize"), params=params)
    assert observation(trained, ArraySource(arrays)).given == given
