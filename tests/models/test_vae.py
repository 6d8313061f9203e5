"""The VAE of one group of latents: what it offers, survives and refuses."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from jvae import losses, models
from jvae.errors import ConfigError
from jvae.models import likelihoods
from tests.tiers import others_slow

KEY = jax.random.key(0)
B, SHAPE = 6, (4, 4, 1)
MLP = {"name": "mlp", "image_shape": SHAPE, "latent_dim": 3, "hidden": (5,)}
CONV = {"name": "conv", "image_shape": SHAPE, "latent_dim": 3, "channels": (2, 3)}
CONDITIONAL = {**MLP, "num_classes": 4}
LABEL = np.arange(B) % 4


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


IMAGE = (normal(0, B, *SHAPE) > 0).astype("float32")


def frozen(fields):
    return tuple(sorted(fields.items(), key=str))


@functools.cache
def _made(fields):
    model = models.build(**dict(fields))
    image = np.zeros((1, *model.image_shape), "float32")
    batch = {"image": image, "label": np.zeros(1, "int32")}
    shapes = jax.eval_shape(model.init, KEY, batch, KEY)
    return model, jax.tree.map(lambda a: normal(1, *a.shape) * 0.5, shapes)


def made(fields):
    """Returns a model and random variables for it."""
    return _made(frozen(fields))


def call(fields, method, *args, **kwargs):
    """Returns model.method(*args, **kwargs), jitted."""
    model, variables = made(fields)
    run = functools.partial(model.apply, method=method, **kwargs)
    return jax.device_get(jax.jit(run)(variables, *args))


@pytest.mark.parametrize(
    "fields", [MLP, CONDITIONAL, CONV], ids=["mlp", "cvae", "conv"]
)
def test_a_draw_comes_with_its_kl_and_its_log_ratio(fields):
    batch = {"image": IMAGE, "label": LABEL}

    def infer(model, batch, key):
        q, p = model.posterior(batch), model.prior(batch)
        found = model.infer(batch, key)
        ratio = q.log_prob(found.latents) - p.log_prob(found.latents)
        return found, q.sample(key), q.kl_to(p), ratio

    inference, z, kl, log_ratio = call(fields, infer, batch, KEY)
    np.testing.assert_array_equal(inference.latents, z)
    assert inference.kl.shape == (B, 3)
    np.testing.assert_allclose(inference.kl.sum(-1), kl, rtol=1e-5)
    np.testing.assert_allclose(inference.log_ratio, log_ratio, rtol=1e-5, atol=1e-5)


def test_encode_decode_and_likelihood_are_the_parts_of_the_model():
    q = call(MLP, "encode", IMAGE)
    assert q.mean.shape == q.log_var.shape == (B, 3)
    picture = call(MLP, "decode", q.mean)
    p = call(MLP, "likelihood", q.mean, {})
    np.testing.assert_allclose(picture, scipy.special.expit(p.logits), rtol=1e-6)
    np.testing.assert_array_equal(call(MLP, "decode", q.mean), picture)
    drawn = call(MLP, lambda m, x, key: m.decode(m.encode(x).sample(key)), IMAGE, KEY)
    assert np.any(drawn != picture)


def test_an_integer_label_is_its_one_hot():
    one_hot = np.eye(4, dtype="float32")[LABEL]
    found = call(CONDITIONAL, "prior", {"label": LABEL})
    wanted = call(CONDITIONAL, "prior", {"label": one_hot})
    np.testing.assert_array_equal(found.mean, wanted.mean)
    np.testing.assert_array_equal(found.log_var, np.zeros((B, 3)))


def test_with_class_means_of_zero_the_conditional_model_is_the_plain_one():
    model, variables = made(CONDITIONAL)
    zero = jax.tree.map(np.zeros_like, variables["params"]["class_means"])
    params = {**variables["params"], "class_means": zero}
    plain = {k: v for k, v in params.items() if k != "class_means"}
    batch = {"image": IMAGE, "label": LABEL}
    found, wanted = (
        jax.jit(losses.build("elbo", models.build(**fields)))(p, {}, KEY, batch, {})[0]
        for fields, p in ((CONDITIONAL, params), (MLP, plain))
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_prior_equal_to_the_posterior_costs_nothing():
    """The encoder says N(1, I) whatever it sees, and so do the class means."""
    model, variables = made(CONDITIONAL)
    params = jax.tree.map(np.zeros_like, variables["params"])
    params["posterior_head"]["bias"][:3] = 1.0
    params["class_means"]["bias"][:] = 1.0
    loss = jax.jit(losses.build("prior_kl", model))
    batch = {"image": IMAGE, "label": LABEL}
    assert float(loss(params, {}, KEY, batch, {})[0]) == 0.0
    params["class_means"]["kernel"][2] = 1.0  # class 2 moves away by 1 in 3 dimensions
    found = loss(params, {}, KEY, batch, {})[0]
    np.testing.assert_allclose(found, 1.5 * np.mean(LABEL == 2), rtol=1e-6)


def test_permuting_the_labels_permutes_what_is_generated():
    def generate(label):
        return call(CONDITIONAL, "generate", KEY, n=4, temperature=0.0, label=label)

    label = np.arange(4)
    pictures = generate(label)
    np.testing.assert_array_equal(generate(label[::-1].copy()), pictures[::-1])
    assert np.ptp(pictures, axis=0).max() > 1e-3
    in_turn = call(CONDITIONAL, "generate", KEY, n=6, temperature=0.0)
    np.testing.assert_allclose(in_turn, pictures[[0, 1, 2, 3, 0, 1]], rtol=1e-5)


def test_a_conditional_model_asks_for_its_label():
    with pytest.raises(ConfigError, match="label is missing for a conditional model"):
        call(CONDITIONAL, "prior", {"image": IMAGE})


def test_at_temperature_zero_a_picture_is_that_of_the_priors_mean():
    found = call(MLP, "generate", KEY, n=3, temperature=0.0)
    wanted = call(MLP, "decode", np.zeros((3, 3), "float32"))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_temperature_scales_the_latents_of_the_prior():
    """10,000 draws of 3 dimensions: std within 0.02, mean within 4 standard errors."""
    z = call(MLP, "sample_prior", KEY, n=10_000, temperature=0.5)
    np.testing.assert_allclose(z.std(0), np.full(3, 0.5), atol=0.02)
    assert np.all(np.abs(z.mean(0)) < 4 * 0.5 / 100)


def test_a_generated_picture_depends_on_its_own_key_alone():
    each = jax.random.split(KEY, 5)
    whole = call(MLP, "generate", each, n=5)
    np.testing.assert_allclose(
        call(MLP, "generate", each[3:], n=2), whole[3:], rtol=1e-5
    )
    np.testing.assert_allclose(call(MLP, "generate", KEY, n=5), whole, rtol=1e-6)
    assert len(np.unique(whole.reshape(5, -1), axis=0)) == 5


@functools.cache
def elbo_of(fields):
    loss = losses.build("elbo", made(dict(fields))[0])
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize("pixel", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("log_var", [-1e4, 0.0, 1e4])
def test_constant_images_and_extreme_log_variances_keep_loss_and_gradient_finite(
    pixel, log_var
):
    _, variables = made(MLP)
    params = jax.tree.map(np.copy, variables["params"])
    params["posterior_head"]["bias"][3:] = log_var
    batch = {"image": np.full_like(IMAGE, pixel)}
    (loss, aux), gradient = elbo_of(frozen(MLP))(params, {}, KEY, batch, {})
    assert np.isfinite(loss)
    assert all(np.isfinite(m) for m in aux.metrics.values())
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_a_constant_batch_keeps_batch_norm_finite():
    fields = {**CONV, "channels": (2,), "batch_norm": True}
    _, variables = made(fields)
    state = {"batch_stats": jax.tree.map(np.abs, variables["batch_stats"])}
    batch = {"image": np.zeros_like(IMAGE)}
    run = elbo_of(frozen(fields))
    (loss, aux), gradient = run(variables["params"], state, KEY, batch, {})
    assert np.isfinite(loss)
    leaves = jax.tree.leaves((gradient, aux.state))
    assert all(np.isfinite(a).all() for a in leaves)


@pytest.mark.parametrize("fields", others_slow([MLP, CONV], MLP), ids=["mlp", "conv"])
def test_bfloat16_computes_near_float32_with_float32_parameters(fields):
    (model, variables), (half, shapes) = (
        made(fields),
        made(fields | {"dtype": "bfloat16"}),
    )
    arguments = (variables["params"], {}, KEY, {"image": IMAGE}, {})
    wanted, _ = jax.jit(losses.build("elbo", model))(*arguments)
    found, _ = jax.jit(losses.build("elbo", half))(*arguments)
    np.testing.assert_allclose(found, wanted, rtol=0.01)
    assert float(found) != float(wanted)
    gradient = jax.value_and_grad(losses.build("elbo", half), has_aux=True)
    likelihood = jax.eval_shape(half.apply, variables, {"image": IMAGE}, KEY)
    results = (shapes, likelihood, jax.eval_shape(gradient, *arguments))
    leaves = jax.tree.leaves(results)
    assert {a.dtype for a in leaves} == {jnp.dtype("float32")}


class Network(nn.Module):
    """A user's network with outputs of a fixed shape [B, *shape]."""

    shape: tuple

    @nn.compact
    def __call__(self, x, mask=None):
        y = nn.Dense(math.prod(self.shape))(x.reshape(x.shape[0], -1))
        return y.reshape(x.shape[0], *self.shape)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        ((5, 5), SHAPE, "encoder Network must return shape [6, F], got [6, 5, 5]."),
        (
            (5,),
            (4, 4, 2),
            "decoder Network must return shape [6, 4, 4, 1], got [6, 4, 4, 2].",
        ),
        ((5,), (16,), "decoder Network must return shape [6, 4, 4, 1], got [6, 16]."),
    ],
)
def test_a_network_of_the_wrong_shape_is_named_with_both_shapes(
    encoder, decoder, message
):
    model = models.VAE(
        Network(encoder), Network(decoder), likelihoods.bernoulli(), 3, SHAPE
    )
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(model.init, KEY, {"image": IMAGE}, KEY)
    assert message in str(error.value)


LEVELS = {"likelihood": {"name": "categorical", "num_bits": 3}}


@pytest.mark.parametrize(
    "fields",
    others_slow([MLP, CONV, CONDITIONAL], MLP, CONDITIONAL),
    ids=["mlp", "conv", "cvae"],
)
def test_the_encoder_sees_intensities_where_the_likelihood_scores_levels(fields):
    """q(z|x) of 3-bit levels is that of the plain model for x / 7."""
    levels = np.random.default_rng(0).integers(0, 8, (B, *SHAPE))
    batch = {"image": levels, "label": LABEL}
    model, plain = models.build(**fields | LEVELS), models.build(**fields)
    shapes = jax.eval_shape(model.init, KEY, batch, KEY)
    variables = jax.tree.map(lambda a: normal(1, *a.shape) * 0.5, shapes)
    found = jax.jit(functools.partial(model.apply, method="encode"))(variables, levels)
    encode = jax.jit(functools.partial(plain.apply, method="encode"))
    wanted = encode(variables, levels.astype("float32") / 7.0)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.log_var, wanted.log_var, rtol=1e-5, atol=1e-6)

    @jax.jit
    def terms(params):
        found, inference, _ = losses.elbo_terms(params, {}, KEY, batch, model=model)
        arguments = (inference.latents, batch)
        p = model.apply({"params": params}, *arguments, method="likelihood")
        return found, p.logits

    found, logits = terms(variables["params"])
    log_p = scipy.special.log_softmax(logits, axis=-1)
    wanted = np.take_along_axis(log_p, levels[..., None], -1)
    np.testing.assert_allclose(found, wanted.sum((1, 2, 3, 4)), rtol=1e-5)


def test_networks_of_ones_own_make_a_model():
    model = models.VAE(Network((5,)), Network(SHAPE), likelihoods.bernoulli(), 3, SHAPE)
    p, _ = jax.eval_shape(model.init_with_output, KEY, {"image": IMAGE}, KEY)
    assert p.logits.shape == (B, *SHAPE)


@pytest.mark.parametrize("shape", [(6, 2), (3,), (2, 6, 3)])
def test_latents_of_another_shape_are_refused(shape):
    model, variables = made(MLP)
    with pytest.raises(ConfigError, match=r"latents must have shape \[B, 3\], got \["):
        model.apply(variables, np.zeros(shape), method="decode")


def test_images_of_another_shape_are_refused():
    model, variables = made(MLP)
    message = r"image must have shape \[B, 4, 4, 1\], got \[6, 5, 4, 1\]"
    with pytest.raises(ConfigError, match=message):
        model.apply(variables, np.zeros((6, 5, 4, 1)), method="encode")
