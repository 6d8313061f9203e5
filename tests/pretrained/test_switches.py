"""What a trained model computes, with legacy keys and under JAX's switches."""

import chex
import jax
import numpy as np
import pytest

import jvae
from jvae.distributions import GaussianMixture
from jvae.pretrained import interpolation, samplers, samples
from jvae.pretrained.batch_norm import recomputed_statistics
from jvae.pretrained.likelihood import evaluate_bounds, evaluate_elbo
from jvae.pretrained.samplers.fit import training_codes
from tests.tiers import others_slow

IMAGES = np.random.default_rng(0).integers(0, 2, (4, 8, 8, 1)).astype("float32")
CODES = np.random.default_rng(1).standard_normal((40, 3)).astype("float32")


@pytest.fixture(scope="module")
def source():
    from jvae.data import datasets

    return datasets.load_split({"name": "digits", "batch_size": 8}, "test")


def drawn(name, key, **options):
    return samplers.build(name, CODES, **options).sample(key, 5)


def measured(function, **options):
    def call(model, key, source):
        sizes = {"batch_size": 8, "num_examples": 12}
        return function(model, source, key=key, **sizes, **options)

    return call


CALLS = {
    "elbo": lambda m, k, s: m.elbo(IMAGES, k),
    "log_likelihood": lambda m, k, s: m.log_likelihood(IMAGES, k, 5, chunk_size=2),
    "reconstruct": lambda m, k, s: m.reconstruct(IMAGES, k),
    "redraw": lambda m, k, s: samples.reconstructions(m, IMAGES, k, "sample"),
    "sample": lambda m, k, s: m.sample(k, 5, 0.7, batch_size=8),
    "encode": lambda m, k, s: m.encode(IMAGES).sample(k, 2),
    "likelihood": lambda m, k, s: m.likelihood(CODES).sample(k),
    "prepare": lambda m, k, s: m.prepare((255 * IMAGES).astype("uint8"), k),
    "interpolate": lambda m, k, s: m.interpolate(IMAGES[:2], IMAGES[2:], 3, True),
    "grid": lambda m, k, s: m.interpolation_grid(IMAGES, 3),
    "traversals": lambda m, k, s: interpolation.traversals(m, IMAGES, [1], 3, 2.0),
    "mixture": lambda m, k, s: drawn("gmm", k, num_components=2),
    "neighbours": lambda m, k, s: drawn("neighbours", k),
    "flow": lambda m, k, s: drawn("flow", k, depth=1, width=4, num_steps=2),
    "fit": lambda m, k, s: GaussianMixture.fit(CODES, 2, k, starts=2, steps=3),
    "evaluate_elbo": lambda m, k, s: [
        e.mean for e in measured(evaluate_elbo)(m, k, s).values()
    ],
    "evaluate_bounds": measured(evaluate_bounds, num_samples=3, chunk_size=2),
    "codes": measured(training_codes),
    "statistics": lambda m, k, s: measured(recomputed_statistics)(m, k, s).params,
}


def outcome(trained, source, name, key):
    """Returns what a call gives, in numpy."""
    return jax.device_get(CALLS[name](jvae.restore(trained), key, source))


@pytest.mark.parametrize("name", others_slow([*CALLS], "log_likelihood"))
def test_a_legacy_key_gives_what_the_typed_one_gives(trained, source, name):
    found = outcome(trained, source, name, jax.random.PRNGKey(5))
    chex.assert_trees_all_equal(
        found, outcome(trained, source, name, jax.random.key(5))
    )


SWITCHES = {
    "64 bits": {"jax_enable_x64": True},
    "checks": {
        "jax_debug_nans": True,
        "jax_debug_key_reuse": True,
        "jax_numpy_dtype_promotion": "strict",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SWITCHES)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_same_under_switches(trained, source, name, kind):
    switches = dict(SWITCHES[kind])
    if name == "flow":  # optax's Adam divides integers by floats
        switches.pop("jax_numpy_dtype_promotion", None)
    wanted = outcome(trained, source, name, jax.random.key(5))
    before = {switch: jax.config.values[switch] for switch in switches}
    try:
        for switch, value in switches.items():
            jax.config.update(switch, value)
        found = outcome(trained, source, name, jax.random.key(5))
    finally:
        for switch, value in before.items():
            jax.config.update(switch, value)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-5)
