"""Prior matching and mutual information: exact sums over everything that can happen.

E KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)), and what follows from it, first in
NumPy, then through the functions of `jvae.losses`.
"""

import itertools
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from benchmarks import information as toy
from jvae import losses
from jvae.distributions import Categorical, DiagGaussian
from jvae.types import Inference
from tests.tiers import others_slow

EXACT = {"rtol": 0, "atol": 1e-12}
SINGLE = {"rtol": 1e-6, "atol": 1e-6}


def distributions(seed, *shape):
    """Returns random distributions over the last axis."""
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


def random_toy(seed, size=5, codes=3):
    """Returns (p~(x), q(z|x), p(z), p(x|z)) with nothing special about them."""
    shapes = ((size,), (size, codes), (codes,), (codes, size))
    return [distributions(10 * seed + i, *shape) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("seed", range(5))
def test_the_joint_kl_is_prior_matching_and_the_decoders_error(seed):
    """No term is computed from others: each is a sum of its own."""
    t = toy.terms(*random_toy(seed))
    np.testing.assert_allclose(t["rate"], t["mutual_info"] + t["marginal_kl"], **EXACT)
    cross = t["distortion"] - t["entropy"]  # -E log(p(x|z) / p~(x))
    np.testing.assert_allclose(cross, t["decoder_gap"] - t["mutual_info"], **EXACT)
    np.testing.assert_allclose(t["joint_kl"], cross + t["rate"], **EXACT)
    both = t["marginal_kl"] + t["decoder_gap"]
    np.testing.assert_allclose(t["joint_kl"], both, **EXACT)
    assert min(t.values()) > 0.01  # none of them is trivial here


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_what_is_left_with_a_perfect_decoder_is_information_times_one_minus_the_weight(
    seed, weight
):
    data, encoder, prior, _ = random_toy(seed)
    t = toy.terms(data, encoder, prior, toy.perfect_decoder(data, encoder))
    np.testing.assert_allclose(t["decoder_gap"], 0.0, **EXACT)
    loss = t["distortion"] + weight * t["rate"]
    kept = (weight - 1) * t["mutual_info"] + weight * t["marginal_kl"]
    np.testing.assert_allclose(loss - t["entropy"], kept, **EXACT)
    # The same in the weights of InfoMax, beta = 1 + lambda on I and gamma = lambda.
    objective = -(1 + weight) * t["mutual_info"] + weight * t["rate"]
    kept = -t["mutual_info"] + weight * t["marginal_kl"]
    np.testing.assert_allclose(objective, kept, **EXACT)


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.9, 1.0])
def test_at_weights_one_to_one_all_amounts_of_information_cost_the_same(noise):
    """A prior that is met, a decoder that is perfect: from log 4 to 0 nats for nothing.

    A code that is not deterministic has zeros in it only at noise 0.
    """
    data = prior = np.full(4, 0.25)
    encoder = toy.channel(4, noise)
    t = toy.terms(data, encoder, prior, toy.perfect_decoder(data, encoder))
    same, other = 1 - 0.75 * noise, 0.25 * noise
    wanted = math.log(4) + same * math.log(same)
    wanted += 3 * other * math.log(other) if noise else 0.0
    np.testing.assert_allclose(t["mutual_info"], wanted, **EXACT)
    np.testing.assert_allclose(t["joint_kl"], 0.0, **EXACT)


@pytest.mark.parametrize(
    ("weight", "least", "most"), [(0.5, 1.38, 1.387), (1.0, 0.3, 0.4), (2.0, 0, 1e-4)]
)
def test_descent_keeps_what_the_weights_say(weight, least, most):
    """Less than 1 on the KL: log 4 nats; 1: about what it began with; more: none."""
    trace = toy.descend(weight)
    assert trace[0] == pytest.approx(0.3233, abs=1e-3)
    assert least - 1e-6 <= trace[-1] <= most


# p~(x) q(z|x) in sixteenths, so that a batch can hold every pair as often as it comes.
COUNTS = np.array([[4, 1, 1], [1, 3, 0], [2, 2, 2]])
DATA = COUNTS.sum(1) / 16
ENCODER = COUNTS / COUNTS.sum(1, keepdims=True)
PRIOR, DECODER = distributions(1, 3), distributions(2, 3, 3)


class Enumerated(nn.Module):
    """The toy as a model whose draw of z is in the batch."""

    target = "symbol"

    def infer(self, batch, key):
        x, z = batch["symbol"], batch["z"]
        log_ratio = jnp.log(jnp.asarray(ENCODER)[x, z] / jnp.asarray(PRIOR)[z])
        kl = jnp.asarray(toy.kl(ENCODER, PRIOR))[x][:, None]
        return Inference(z, kl, log_ratio)

    def likelihood(self, z, batch):
        return Categorical(jnp.log(jnp.asarray(DECODER))[z])


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("kl_estimate", ["closed_form", "monte_carlo"])
def test_the_elbo_over_all_pairs_is_the_joint_kl_and_the_entropy(beta, kl_estimate):
    """The batch holds every (x, z) as often as it comes, so its mean is exact."""
    x, z = np.indices(COUNTS.shape).reshape(2, -1).repeat(COUNTS.ravel(), axis=1)
    batch = {"symbol": x, "z": z}
    loss = losses.build("elbo", Enumerated(), beta=beta, kl_estimate=kl_estimate)
    found, aux = jax.jit(loss)({}, {}, jax.random.key(0), batch, {})
    t = toy.terms(DATA, ENCODER, PRIOR, DECODER)
    kl = t["mutual_info"] + t["marginal_kl"]
    cross = t["decoder_gap"] - t["mutual_info"] + t["entropy"]
    np.testing.assert_allclose(found, cross + beta * kl, **SINGLE)
    np.testing.assert_allclose(aux.metrics["kl"], kl, **SINGLE)
    bound = -t["joint_kl"] - t["entropy"]
    np.testing.assert_allclose(aux.metrics["elbo"], bound, **SINGLE)


@flax.struct.dataclass
class Symbols(DiagGaussian):
    """Independent symbols [B, D] behind the names of a diagonal Gaussian."""

    probs: jax.Array  # [B, D, K]

    @classmethod
    def of(cls, probs):
        unused = jnp.zeros(probs.shape[:2])
        return cls(unused, unused, jnp.asarray(probs))

    def log_prob_per_dim(self, z):
        index = z.astype(int)[..., None]
        return jnp.log(jnp.take_along_axis(self.probs, index, axis=-1)[..., 0])


def test_decompose_kl_over_all_symbols_is_every_term_of_the_tables():
    """Six x, two symbols of three values each: nine z, and their exact weights."""
    encoder, prior = distributions(3, 6, 2, 3), distributions(4, 2, 3)
    q, p = Symbols.of(encoder), Symbols.of(np.tile(prior, (6, 1, 1)))
    parts = jax.jit(lambda z: losses.decompose_kl_per_example(q, z, prior=p))
    found = dict.fromkeys(("kl", "mutual_info", "marginal_kl"), 0.0)
    found |= dict.fromkeys(("total_correlation", "dimension_wise_kl"), 0.0)
    for symbols in itertools.product(range(3), repeat=2):
        terms = parts(np.tile(np.array(symbols, "float32"), (6, 1)))
        weights = encoder[:, 0, symbols[0]] * encoder[:, 1, symbols[1]] / 6
        for name in found:
            found[name] += weights @ np.asarray(terms[name], np.float64)
    tables = np.einsum("xa,xb->xab", encoder[:, 0], encoder[:, 1])
    aggregate = tables.mean(0)
    product = np.outer(aggregate.sum(1), aggregate.sum(0))
    both = np.outer(*prior)
    data, flat = np.full(6, 1 / 6), tables.reshape(6, 9)
    t = toy.terms(data, flat, both.ravel(), toy.perfect_decoder(data, flat))
    wanted = {
        "kl": t["rate"],
        "mutual_info": t["mutual_info"],
        "marginal_kl": t["marginal_kl"],
        "total_correlation": toy.kl(aggregate.ravel(), product.ravel()),
        "dimension_wise_kl": toy.kl(product.ravel(), both.ravel()),
    }
    assert min(wanted.values()) > 1e-3
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, **SINGLE, err_msg=name)


MEANS = np.array([-2.0, -0.5, 0.0, 0.4, 1.0, 2.5])
STDS = np.array([0.5, 0.8, 0.3, 1.0, 0.6, 0.4])
POSTERIORS = DiagGaussian(
    MEANS[:, None].astype("float32"), 2 * np.log(STDS)[:, None].astype("float32")
)
# The trapezium rule is exact to rounding for what falls off like a Gaussian.
NODES = np.linspace(-7, 7, 141)
NODE_WEIGHTS = np.exp(-0.5 * NODES**2) / np.exp(-0.5 * NODES**2).sum()
DRAWS = (MEANS + STDS * NODES[:, None])[..., None].astype("float32")  # [nodes, 6, 1]


def expected(batches, **options):
    """Returns the exact means of `decompose_kl_per_example`, averaged over batches.

    Args:
      batches: [batches, B], which of the posteriors are in each.
      **options: of `decompose_kl_per_example`.
    """

    def at_node(rows, draws):
        q = jax.tree.map(lambda a: jnp.asarray(a)[rows], POSTERIORS)
        terms = losses.decompose_kl_per_example(q, draws[rows], **options)
        return jax.tree.map(jnp.mean, terms)

    over_nodes = jax.vmap(at_node, (None, 0))
    terms = jax.jit(jax.vmap(over_nodes, (0, None)))(np.array(batches), DRAWS)
    return {
        k: (np.asarray(v, np.float64) @ NODE_WEIGHTS).mean() for k, v in terms.items()
    }


def integrals():
    """Returns the same of all six by integrals over z, in float64 NumPy alone."""
    z = np.linspace(-15, 15, 20_001)
    width = z[1] - z[0]

    def density(mean, std):
        return np.exp(-0.5 * ((z - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))

    components = np.stack([density(m, s) for m, s in zip(MEANS, STDS, strict=True)])
    mixture = components.mean(0)
    informed = [width * toy.kl(c, mixture) for c in components]
    marginal = width * toy.kl(mixture, density(0.0, 1.0))
    rate = 0.5 * (MEANS**2 + STDS**2 - 1) - np.log(STDS)
    return {
        "kl": rate.mean(),
        "mutual_info": np.mean(informed),
        "marginal_kl": marginal,
    }


def test_decompose_kl_of_gaussians_is_the_integral_over_z():
    found = expected([range(6)])
    for name, value in integrals().items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, err_msg=name)


def test_estimates_from_one_draw_each_agree_with_the_integral():
    keys = jax.random.split(jax.random.key(0), 2000)
    estimate = jax.vmap(lambda k: losses.decompose_kl(POSTERIORS, POSTERIORS.sample(k)))
    found = jax.jit(estimate)(keys)
    for name, value in integrals().items():
        numbers = np.asarray(found[name], np.float64)
        error = numbers.std() / math.sqrt(len(numbers))
        assert abs(numbers.mean() - value) < 4 * error < 0.05, name


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_mixture_of_a_batch_is_on_average_that_of_the_data_set(estimator, size):
    """At every draw of every example, over all batches in which that one comes first.

    The estimate of q(z) is q(z|x) exp(-mutual_info).
    """
    batches = np.array(list(itertools.permutations(range(6), size)))

    def ratio(rows, draws):
        q = jax.tree.map(lambda a: jnp.asarray(a)[rows], POSTERIORS)
        options = {"dataset_size": 6, "estimator": estimator}
        terms = losses.decompose_kl_per_example(q, draws[rows], **options)
        return jnp.exp(-terms["mutual_info"][0])

    over_nodes = jax.vmap(ratio, (None, 0))
    found = np.asarray(jax.jit(jax.vmap(over_nodes, (0, None)))(batches, DRAWS))
    z = MEANS + STDS * NODES[:, None]  # [nodes, 6]
    scaled = (z[..., None] - MEANS) / STDS
    mixture = (np.exp(-0.5 * scaled**2) / STDS).mean(-1)
    own = np.exp(-0.5 * NODES[:, None] ** 2) / STDS
    near = np.abs(NODES) < 4  # further out q(z|x) is too small to divide by in float32
    for i in range(6):
        mean = found[batches[:, 0] == i].mean(0)
        wanted = mixture[:, i] / own[:, i]
        np.testing.assert_allclose(mean[near], wanted[near], rtol=1e-4)


@pytest.mark.parametrize(
    "estimator", others_slow(["weighted", "stratified"], "stratified")
)
def test_a_batch_shows_more_information_than_its_data_set_the_less_the_larger_it_is(
    estimator,
):
    """The mean over all batches of 2 .. 6 of six examples: the bias, exactly.

    The mixture is an unbiased estimate of q(z), so its logarithm is too small.
    """
    truth, bias = integrals(), []
    for size in (2, 3, 4, 6):
        # In all orders: 'stratified' has an odd one out, by its place.
        orders = itertools.permutations(range(6), size)
        batches = list(orders) if size < 6 else [range(6)]
        found = expected(batches, dataset_size=6, estimator=estimator)
        np.testing.assert_allclose(found["kl"], truth["kl"], rtol=1e-5)
        both = found["mutual_info"] + found["marginal_kl"]
        np.testing.assert_allclose(both, truth["kl"], rtol=1e-5)
        bias.append(found["mutual_info"] - truth["mutual_info"])
    assert bias == sorted(bias, reverse=True)
    assert bias[0] > 0.1
    np.testing.assert_allclose(bias[-1], 0.0, atol=3e-6)
