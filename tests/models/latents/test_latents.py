"""Models whose latents are one-hot codes or directions: what they offer and refuse."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae import contract, losses, models
from jvae.distributions import GumbelSoftmax, UniformOnSphere, VonMisesFisher
from jvae.errors import ConfigError
from jvae.models.latents import MIN_TEMPERATURE
from tests.tiers import others_slow

KEY = jax.random.key(0)
B, SHAPE = 6, (4, 4, 1)
DISCRETE = {
    "name": "mlp",
    "image_shape": SHAPE,
    "latent_dim": 3,
    "hidden": (5,),
    "latent": {"name": "gumbel_softmax", "num_values": 4, "temperature": 0.5},
}
SPHERE = {**DISCRETE, "latent": {"name": "von_mises_fisher", "concentration": 8.0}}
CONV = {"name": "conv", "image_shape": SHAPE, "latent_dim": 3, "channels": (2, 3)}
KINDS = {
    "discrete": DISCRETE,
    "sphere": SPHERE,
    "discrete_conv": {**CONV, "latent": DISCRETE["latent"]},
    "sphere_conv": {**CONV, "latent": SPHERE["latent"]},
}
IMAGE = np.random.default_rng(0).integers(0, 2, (B, *SHAPE)).astype("float32")


@functools.cache
def made(kind):
    """Returns a model and random variables for it."""
    model, draws = models.build(**KINDS[kind]), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, KEY, {"image": IMAGE}, KEY)
    return model, jax.tree.map(
        lambda a: 0.5 * draws.standard_normal(a.shape).astype("float32"), shapes
    )


def call(kind, method, *args, training=None, **kwargs):
    """Returns model.method(*args, **kwargs), jitted; `training` reaches the model."""
    model, variables = made(kind)
    if training is not None:
        variables = {**variables, contract.TRAINING: training}
    run = functools.partial(model.apply, method=method, **kwargs)
    return jax.device_get(jax.jit(run)(variables, *args))


@pytest.mark.parametrize("kind", others_slow(list(KINDS), "discrete", "sphere"))
def test_a_draw_comes_with_its_kl_and_its_log_ratio(kind):
    def infer(model, batch, key):
        q, p, found = (
            model.posterior(batch),
            model.prior(batch),
            model.infer(batch, key),
        )
        ratio = q.log_prob(found.latents) - p.log_prob(found.latents)
        return found, q.kl_to(p), ratio

    modes = [None]
    if "discrete" in kind:
        modes.append({"temperature": np.float32(0.7)})
    for training in modes:
        found, kl, log_ratio = call(
            kind, infer, {"image": IMAGE}, KEY, training=training
        )
        assert found.kl.shape == (B, 3 if "discrete" in kind else 1)
        np.testing.assert_allclose(found.kl.sum(-1), kl, rtol=1e-5)
        np.testing.assert_allclose(found.log_ratio, log_ratio, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", others_slow(list(KINDS), "discrete", "sphere"))
def test_codes_images_and_samples_have_their_shapes(kind):
    q = call(kind, "encode", IMAGE)
    assert isinstance(q, GumbelSoftmax if "discrete" in kind else VonMisesFisher)
    assert q.mode.shape == ((B, 3, 4) if "discrete" in kind else (B, 3))
    picture = call(kind, "decode", q.mode)
    assert picture.shape == (B, *SHAPE)
    assert call(kind, "generate", KEY, n=5).shape == (5, *SHAPE)
    with pytest.raises(ConfigError, match=r"latents must have shape \[B, 3"):
        call(kind, "decode", np.zeros((B, 2), "float32"))


def test_evaluation_sees_one_hot_codes_and_training_a_relaxation_of_them():
    """The model without a temperature is the discrete one; both argmaxes agree."""
    hard = call("discrete", "infer", {"image": IMAGE}, KEY).latents
    assert set(np.unique(hard)) == {0.0, 1.0}
    at_half = {"temperature": np.float32(0.5)}
    soft = call("discrete", "infer", {"image": IMAGE}, KEY, training=at_half).latents
    assert np.all((soft > 0) & (soft < 1))
    np.testing.assert_array_equal(soft.argmax(-1), hard.argmax(-1))


def test_codes_of_the_prior_are_uniform_at_every_temperature():
    z = call("discrete", "sample_prior", KEY, n=4000)
    assert set(np.unique(z)) == {0.0, 1.0}
    error = math.sqrt(0.25 * 0.75 / 4000)
    assert np.all(np.abs(z.mean(0) - 0.25) < 4.5 * error)
    for t in (0.0, 0.5):
        np.testing.assert_array_equal(
            call("discrete", "sample_prior", KEY, n=4000, temperature=t), z
        )


def test_directions_of_the_prior_are_uniform_at_every_temperature():
    z = call("sphere", "sample_prior", KEY, n=4000)
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1.0, atol=1e-6)
    assert np.all(np.abs(z.mean(0)) < 4.5 * math.sqrt(1 / 3 / 4000))
    again = call("sphere", "sample_prior", KEY, n=4000, temperature=0.0)
    np.testing.assert_array_equal(again, z)
    prior = call("sphere", "prior", {"image": IMAGE})
    assert prior == UniformOnSphere(B, 3)


def test_the_kl_of_a_direction_is_the_same_for_every_image():
    kl = call("sphere", "infer", {"image": IMAGE}, KEY).kl
    np.testing.assert_array_equal(kl, kl[0, 0])
    kappa = 8.0  # d = 3: A = coth k - 1/k, log C / C_0 = log(k / sinh k)
    wanted = kappa / math.tanh(kappa) - 1.0 + math.log(kappa / math.sinh(kappa))
    np.testing.assert_allclose(kl[0, 0], wanted, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3])
def test_a_direction_is_a_unit_vector_whatever_the_encoder_gives(size):
    latent = made("sphere")[0].latent
    outputs = size * np.array([[0.0, 0.0, 0.0], [3.0, 0.0, -4.0]], "float32")

    def mode(outputs):
        return latent.posterior(outputs, {}).mode

    def mode_and_gradient(outputs):
        return mode(outputs), jax.grad(lambda o: mode(o).sum())(outputs)

    found, gradient = jax.device_get(jax.jit(mode_and_gradient)(outputs))
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1.0, rtol=1e-6)
    if size > 1e-30:
        np.testing.assert_allclose(found[1], [0.6, 0.0, -0.8], rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_the_way_between_directions_stays_on_the_sphere_and_between_codes_on_a_line():
    q = call("sphere", "encode", IMAGE)
    t = np.linspace(0, 1, 5, dtype="float32").reshape(1, 5, 1)
    z = np.asarray(q.mode)
    a, b = z[:3, None], z[3:, None]
    points = call("sphere", "interpolate", a, b, t)
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), 1.0, atol=1e-6)
    z = np.asarray(call("discrete", "encode", IMAGE).mode)
    points = call("discrete", "interpolate", z[:3, None], z[3:, None], t[..., None])
    np.testing.assert_allclose(points.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(points[:, 2], 0.5 * (z[:3] + z[3:]))


def loss_at(coefficients):
    model, variables = made("discrete")
    loss = jax.jit(losses.build("elbo", model))
    arguments = (variables["params"], {}, KEY, {"image": IMAGE})
    value, aux = loss(*arguments, coefficients)
    assert aux.state == {}
    return float(value)


def test_the_temperature_is_a_coefficient_that_reaches_the_model_beside_its_state():
    by_default, annealed = loss_at({}), loss_at({"temperature": 2.0})
    assert by_default == loss_at({"temperature": 0.5}) != annealed
    model, variables = made("discrete")

    def raw(temperature):
        state = {contract.TRAINING: {"temperature": temperature}}
        arguments = (variables["params"], state, KEY, {"image": IMAGE}, {})
        return losses.negative_elbo(*arguments, model=model)[0]

    raw = jax.jit(raw)
    np.testing.assert_allclose([by_default, annealed], [raw(0.5), raw(2.0)], rtol=1e-6)


def test_a_coefficient_that_nobody_reads_is_refused():
    with pytest.raises(ConfigError, match="'temprature' is unknown"):
        loss_at({"temprature": 2.0})
    sphere, variables = made("sphere")
    loss = losses.build("elbo", sphere)
    with pytest.raises(ConfigError, match="'temperature' is unknown"):
        batch = {"image": IMAGE}
        loss(variables["params"], {}, KEY, batch, {"temperature": 1.0})


def test_a_model_may_not_take_a_coefficient_of_the_loss():
    class Greedy(nn.Module, models.SingleLatent):
        coefficients = {"beta": 1.0}

        def likelihood(self, latents, batch):
            raise NotImplementedError

    with pytest.raises(
        ConfigError, match="model.coefficients must have names of their"
    ):
        losses.build("elbo", Greedy())


@pytest.mark.parametrize("temperature", [0.0, MIN_TEMPERATURE, 0.05, 0.5])
def test_the_encoder_has_finite_gradients_at_every_temperature(temperature):
    """An annealed temperature may reach 0, where it is held at 0.001."""
    model, variables = made("discrete")
    loss = losses.build("elbo", model)

    def value(params):
        batch = {"image": IMAGE}
        return loss(params, {}, KEY, batch, {"temperature": jnp.float32(temperature)})[
            0
        ]

    gradient = jax.jit(jax.grad(value))(variables["params"])
    leaves = jax.device_get(jax.tree.leaves(gradient))
    assert all(np.isfinite(g).all() for g in leaves)
    assert all(np.any(g != 0) for g in leaves)


@pytest.mark.slow
def test_monte_carlo_kl_of_a_relaxed_model_is_a_bound_that_more_draws_tighten():
    """With the densities of relaxed variables; the closed form is another number."""
    model, variables = made("discrete")
    arguments = (variables["params"], {}, KEY, {"image": IMAGE}, {})

    def value(name, **options):
        return jax.jit(losses.build(name, model, **options))(*arguments)

    one = value("elbo", kl_estimate="monte_carlo")[0]
    iwae = value("iwae", num_samples=1)[0]
    np.testing.assert_allclose(one, iwae, rtol=1e-5)
    many = value("iwae", num_samples=256)[1].metrics
    assert many["iwae"] > many["elbo"]


def test_importance_weights_of_one_hot_codes_give_the_exact_likelihood():
    """64 codes can be summed: log p(x) = log sum_z p(x|z) / 64."""
    model, variables = made("discrete")
    grid = np.stack(np.meshgrid(*3 * [np.arange(4)], indexing="ij"), -1).reshape(-1, 3)
    codes = np.eye(4, dtype="float32")[grid]

    @jax.vmap
    def log_prob(code):
        z = jnp.broadcast_to(code, (B, *code.shape))
        return model.apply(variables, z, {}, method="likelihood").log_prob(IMAGE)

    each = np.asarray(jax.jit(log_prob)(codes))
    exact = np.logaddexp.reduce(each, axis=0) - math.log(64)
    arguments = (variables["params"], {}, KEY, {"image": IMAGE})
    options = {"model": model, "num_samples": 4000}
    log_w, _ = jax.jit(functools.partial(losses.log_weights, **options))(*arguments)
    log_w = np.asarray(log_w, np.float64)
    weights = np.exp(log_w - exact[None])
    error = weights.std(0) / math.sqrt(4000)
    assert np.all(np.abs(weights.mean(0) - 1.0) < 4.5 * error)
    assert np.all(log_w.mean(0) < exact)  # the ELBO


@pytest.mark.parametrize(
    ("kind", "estimate"),
    others_slow(
        [
            (kind, estimate)
            for kind in ("discrete", "sphere")
            for estimate in ("reparameterized", "doubly_reparameterized")
        ],
        ("discrete", "doubly_reparameterized"),
        ("sphere", "reparameterized"),
    ),
)
def test_both_gradients_of_the_importance_weighted_bound_are_finite(kind, estimate):
    model, variables = made(kind)
    loss = losses.build("iwae", model, num_samples=4, gradient=estimate)
    arguments = (variables["params"], {}, KEY, {"image": IMAGE}, {})
    gradient = jax.jit(jax.grad(loss, has_aux=True))(*arguments)[0]
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.device_get(gradient)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": "gumbel"}, "model.latent.name 'gumbel' is unknown. Did you mean"),
        ({"latent": {"num_values": 3}}, "model.latent.name '' is unknown"),
        (
            {"latent": {"name": "gumbel_softmax", "temprature": 1.0}},
            "model.latent.temprature is unknown. Did you mean 'temperature'",
        ),
        (
            {"latent": {"name": "gumbel_softmax", "num_values": 1}},
            "model.latent.num_values must be at least 2, got 1.",
        ),
        (
            {"latent": {"name": "gumbel_softmax", "temperature": 0.0}},
            "model.latent.temperature must be at least 0.001, got 0.0.",
        ),
        (
            {"latent": {"name": "von_mises_fisher", "concentration": 0.0}},
            "model.latent.concentration must be within (0, 100000], got 0.0.",
        ),
        (
            {"latent": {"name": "von_mises_fisher", "concentration": -1.0}},
            "model.latent.concentration must be within (0, 100000], got -1.0.",
        ),
        (
            {"latent": "von_mises_fisher", "latent_dim": 1},
            "model.latent_dim must be at least 2 on a sphere, got 1.",
        ),
        (
            {"num_classes": 3},
            "model.num_classes must be None unless model.latent is 'gaussian', got 3.",
        ),
    ],
    ids=str,
)
def test_impossible_latents_are_refused_when_the_model_is_built(change, message):
    with pytest.raises(ConfigError) as error:
        models.build(**{**DISCRETE, **change})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_decomposed_bound_refuses_latents_without_gaussian_dimensions():
    for kind in ("discrete", "sphere"):
        model, variables = made(kind)
        loss = losses.build("decomposed_elbo", model)
        with pytest.raises(ConfigError, match="is a DiagGaussian"):
            loss(variables["params"], {}, KEY, {"image": IMAGE}, {})
