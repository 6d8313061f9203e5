"""Flows of images: the likelihood is that of pixel levels, and codes give them back."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import jvae
from jvae import losses, models
from jvae.errors import ConfigError
from jvae.training import assembly, config, experiment
from tests.flows.test_density import noisy
from tests.tiers import others_slow

SHAPE = (4, 4, 1)
FLOWS = {
    "glow": {"name": "glow", "levels": 2, "depth": 2, "hidden": 5},
    "nice": {"name": "nice", "depth": 2, "hidden": (6,)},
}


@functools.cache
def initial(name, shape, num_bits, **fields):
    """(model, its parameters at the start)."""
    options = {**FLOWS[name], **fields}
    model = models.build(**options, image_shape=shape, num_bits=num_bits)
    key, x = jax.random.key(0), np.zeros((1, *shape), "int32")
    return model, jax.jit(model.init)(key, {"image": x}, key)


def made(name, shape=SHAPE, num_bits=8, scale=0.2, **fields):
    """(model, random parameters, levels [5, ...])."""
    model, variables = initial(name, shape, num_bits, **fields)
    levels = np.random.default_rng(0).integers(0, 2**num_bits, (5, *shape), "int32")
    return model, noisy(variables, scale), levels


def call(model, variables, *args, method, **kwargs):
    """Returns model.method(*args), compiled as one program."""
    run = functools.partial(model.apply, method=method, **kwargs)
    return jax.jit(run)(variables, *args)


@pytest.mark.parametrize("name", others_slow([*FLOWS], "nice"))
def test_a_code_gives_the_levels_back(name):
    model, variables, x = made(name)

    @jax.jit
    def there_and_back(variables, x, key):
        apply = functools.partial(model.apply, variables)
        code = apply(x, method="encode").mean
        drawn = apply({"image": x}, key, method="infer").latents
        of_drawn = apply(drawn, {}, method="likelihood").mean
        return code, apply(code, method="decode"), drawn, of_drawn

    found = there_and_back(variables, x, jax.random.key(1))
    code, back, drawn, of_drawn = jax.device_get(found)
    assert code.shape == (5, 16)
    np.testing.assert_array_equal(back, x)
    np.testing.assert_array_equal(of_drawn, x)
    assert np.abs(drawn - code).max() > 0


@pytest.mark.parametrize("name", FLOWS)
def test_at_first_importance_weights_reach_the_exact_probability_of_levels(name):
    """p(y) is then N(0, I) on [-1, 1], so a level has the mass of a Gaussian's bin."""
    model, variables, x = made(name, scale=0.0)
    half = 2.0 ** (8 - 1)
    edges = x / half - 1.0
    exact = np.log(norm.cdf(edges + 1 / half) - norm.cdf(edges)).sum((1, 2, 3))

    params = variables["params"]
    batch, key = {"image": x}, jax.random.key(2)
    draw = jax.jit(
        lambda key: losses.elbo_terms(params, {}, key, batch, model=model)[1].kl.sum(-1)
    )
    values = -np.stack([draw(k) for k in jax.random.split(key, 200)])
    weighted = np.logaddexp.reduce(values, 0) - np.log(200)
    np.testing.assert_allclose(weighted, exact, atol=2e-3)
    assert (values.mean(0) < exact + 3 * values.std(0) / np.sqrt(200)).all()


@pytest.mark.slow
def test_all_images_together_have_the_mass_that_samples_put_within_the_levels():
    """Of 2x2 pixels of 2 levels, 16 images, at random parameters."""
    shape = (2, 2, 1)
    model, variables, _ = made("glow", shape, num_bits=1, scale=0.1, levels=1)
    x = jnp.array([*itertools.product((0, 1), repeat=4)]).reshape(16, *shape)

    @jax.jit
    def log_p(key):
        return -model.apply(variables, {"image": x}, key, method="infer").log_ratio

    draws = jnp.stack([log_p(k) for k in jax.random.split(jax.random.key(0), 2000)])
    each = jnp.exp(draws).sum(1)
    z = jax.random.normal(jax.random.key(1), (100_000, 4))
    y = model.apply(variables, z, method=lambda model, z: model.flow.inverse(z))
    inside = (jnp.abs(y) <= 1.0).all((1, 2, 3))
    error = np.hypot(each.std() / np.sqrt(2000), inside.std() / np.sqrt(100_000))
    assert abs(each.mean() - inside.mean()) < 4 * error < 0.02
    assert 0.05 < inside.mean() < 0.95


def test_examples_at_the_start_set_the_actnorms():
    model, variables, x = made("glow", scale=0.0)
    key = jax.random.key(0)
    _, new = call(
        model,
        variables,
        {"image": x},
        key,
        method="data_dependent_init",
        mutable=["params"],
    )
    codes = jax.jit(lambda v, x: model.apply(v, x, method="encode").mean)
    code, before = np.asarray(codes(new, x)), np.asarray(codes(variables, x))
    assert abs(code.mean()) < 0.1 and abs(code.std() - 1.0) < 0.1
    assert abs(before.std() - 1.0) > 0.2


@pytest.mark.slow
def test_a_start_that_leaves_no_inverse_is_an_error(tiny):
    """As by examples, or parameters of another run, that are not finite."""
    tiny["data"]["transform"] = "levels"
    tiny["model"] = {**FLOWS["glow"], "image_shape": [8, 8, 1], "num_bits": 4}
    tiny["data"]["num_bits"] = 4
    components = assembly.assemble(config.parse_experiment(tiny))
    state = components.create_state()
    stack = state.params["flow"]["steps_0"]["steps"]
    stack["parts_2"]["net"]["Conv_1"]["bias"] *= jnp.nan
    message = r"flow/.*log_scale .* nan to nan \(set by the first 256 training"
    with pytest.raises(ConfigError, match=message):
        components.data_dependent_init(state)


@pytest.mark.slow
def test_a_run_that_goes_on_from_another_keeps_the_scales_that_it_brings(
    tiny, tmp_path
):
    tiny["data"] |= {"transform": "levels", "num_bits": 4}
    tiny["model"] = {**FLOWS["nice"], "image_shape": [8, 8, 1], "num_bits": 4}
    tiny |= {"num_steps": 2, "eval_every_steps": 0, "ema_decay": 0.0}
    experiment.run(tiny, tmp_path / "first")
    tiny |= {"init_from": str(tmp_path / "first"), "num_steps": 1}
    tiny["optimizer"] = {"name": "sgd", "learning_rate": 1e-12}
    experiment.run(tiny, tmp_path / "second")
    first, second = (jvae.restore(tmp_path / name) for name in ("first", "second"))
    chex.assert_trees_all_close(first.params, second.params, atol=1e-6)


@pytest.mark.slow
def test_a_temperature_acts_on_the_codes():
    model, variables, _ = made("glow", scale=0.0)
    cold = call(
        model, variables, jax.random.key(0), n=3, temperature=0.0, method="generate"
    )
    np.testing.assert_array_equal(cold, np.full((3, *SHAPE), 128.0))
    warm = call(
        model, variables, jax.random.key(0), n=3, temperature=1.0, method="generate"
    )
    assert warm.std() > 20 and (warm == jnp.floor(warm)).all()
    assert 0 <= warm.min() and warm.max() <= 255


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": 3}, "4x4 cannot be squeezed 3 times"),
        ({"depth": 0}, "model.depth must be at least 1"),
        ({"num_bits": 0}, "model.num_bits must be within"),
        ({"image_shape": (8, 8)}, "model.image_shape must be"),
        ({"image_shape": (0, 0, 1)}, "model.image_shape must hold"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        models.build("glow", **{"image_shape": SHAPE, **fields})
