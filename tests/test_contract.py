"""What a model offers to an objective carries every kind of model that is planned.

Toys of every kind, each a few lines long, go through the same `negative_elbo` and
`negative_iwae`. They also show how to write a model of one's own: `posterior`, `prior`
and `likelihood` with `SingleLatent`, or `infer` and `likelihood`, and in both cases the
name of what is scored, `target`.
"""

import functools
import math
import pickle
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae import contract, keys, losses
from jvae.distributions import Bernoulli, Categorical, DiagGaussian, draw
from jvae.errors import ConfigError
from jvae.layers import BatchNorm
from jvae.models import SingleLatent
from jvae.runtime import mesh
from jvae.types import Array, Inference, batch_size
from tests.tiers import others_slow

B, D, K, T = 16, 2, 3, 4  # examples, latent dimensions, classes, words
KEY = jax.random.key(0)


def split_gaussian(outputs):
    return DiagGaussian(*jnp.split(outputs, 2, axis=-1))


class Plain(SingleLatent, nn.Module):
    """The least that a model has to say."""

    target = "image"

    def setup(self):
        self.encoder, self.decoder = nn.Dense(2 * D), nn.Dense(4)

    def posterior(self, batch):
        return split_gaussian(self.encoder(batch["image"].reshape(-1, 4)))

    def prior(self, batch):
        return DiagGaussian.standard(len(batch["image"]), D)

    def likelihood(self, z, batch):
        return Bernoulli(self.decoder(z).reshape(-1, 2, 2, 1))

    def __call__(self, batch, key):  # what `init` traces
        return self.likelihood(self.infer(batch, key).latents, batch)


class Conditional(Plain):
    """p(z|y) has a learned mean per class, and the decoder sees the class too."""

    def setup(self):
        super().setup()
        self.class_means = nn.Embed(K, D)

    def prior(self, batch):
        mean = self.class_means(batch["label"])
        return DiagGaussian(mean, jnp.zeros_like(mean))

    def likelihood(self, z, batch):
        label = jax.nn.one_hot(batch["label"], K)
        return super().likelihood(jnp.concatenate([z, label], -1), batch)


def bend(u, strength):
    """Returns f(u) = u + a tanh(u) with a > 0, and log |f'(u)| summed to [B]."""
    a = nn.softplus(strength).reshape(1, -1)
    slope = 1.0 + a * (1.0 - jnp.square(jnp.tanh(u)))
    return u + a * jnp.tanh(u), jnp.log(slope).sum(-1)


@flax.struct.dataclass
class Bent:
    """z = f(u) for a Gaussian u: its density is known at its own draws only."""

    base: DiagGaussian
    strength: Array

    def sample_and_log_prob(self, key):
        u, log_q = self.base.sample_and_log_prob(key)
        z, log_det = bend(u, self.strength)
        return z, log_q - log_det


class FlowPosterior(Plain):
    """No `kl_to` on the posterior, so the KL is the log ratio at the draw."""

    def setup(self):
        super().setup()
        self.strength = self.param("strength", nn.initializers.normal(), (D,))

    def posterior(self, batch):
        return Bent(super().posterior(batch), self.strength)


@flax.struct.dataclass
class Straightened:
    """A prior that offers its density and nothing else: f(z) is N(0, I)."""

    strength: Array

    def log_prob(self, z):
        v, log_det = bend(z, self.strength)
        return DiagGaussian.standard(*v.shape).log_prob(v) + log_det


class FlowPrior(Plain):
    """A Gaussian posterior against a flow, as in f-VAEs."""

    def setup(self):
        super().setup()
        self.strength = self.param("strength", nn.initializers.normal(), (D,))

    def prior(self, batch):
        return Straightened(self.strength)


@flax.struct.dataclass
class Words:
    """p(tokens|z), the words behind the end of a sentence left out."""

    logits: Array
    length: Array

    def log_prob(self, tokens):
        log_p = jax.nn.log_softmax(self.logits)
        each = jnp.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
        return jnp.where(jnp.arange(T)[None] < self.length[:, None], each, 0.0).sum(-1)


class Text(SingleLatent, nn.Module):
    """BatchNorm on the posterior mean; a decoder that reads the words before."""

    target = "tokens"

    def setup(self):
        self.embedding, self.encoder = nn.Embed(5, 3), nn.Dense(2 * D)
        self.normalise = BatchNorm()
        self.rnn, self.output = nn.RNN(nn.SimpleCell(3)), nn.Dense(5)

    def posterior(self, batch):
        q = split_gaussian(self.encoder(self.embedding(batch["tokens"]).mean(1)))
        return q.replace(mean=self.normalise(q.mean))

    def prior(self, batch):
        return DiagGaussian.standard(len(batch["tokens"]), D)

    def likelihood(self, z, batch):
        before = jnp.pad(batch["tokens"], ((0, 0), (1, 0)))[:, :-1]
        z_at_each = jnp.repeat(z[:, None], T, axis=1)
        h = self.rnn(jnp.concatenate([self.embedding(before), z_at_each], -1))
        return Words(self.output(h), batch["length"])

    __call__ = Plain.__call__


class Hierarchical(nn.Module):
    """Two groups; the second posterior is a correction of its prior given the first."""

    target = "image"

    def setup(self):
        self.q1, self.delta, self.p2 = nn.Dense(2 * D), nn.Dense(2 * D), nn.Dense(2 * D)
        self.decoder = nn.Dense(4)

    def infer(self, batch, key):
        x = batch["image"].reshape(-1, 4)
        key1, key2 = keys.split_each(keys.per_example(key, len(x)), 2)
        q1, p1 = split_gaussian(self.q1(x)), DiagGaussian.standard(len(x), D)
        z1, log_q1 = q1.sample_and_log_prob(key1)
        p2 = split_gaussian(self.p2(z1))
        delta = split_gaussian(self.delta(jnp.concatenate([x, z1], -1)))
        q2 = jax.tree.map(jnp.add, p2, delta)
        z2, log_q2 = q2.sample_and_log_prob(key2)
        kl = jnp.stack([q1.kl_to(p1), q2.kl_to(p2)], -1)
        log_ratio = log_q1 - p1.log_prob(z1) + log_q2 - p2.log_prob(z2)
        return Inference((z1, z2), kl, log_ratio)

    def likelihood(self, latents, batch):
        outputs = self.decoder(jnp.concatenate(latents, -1))
        return Bernoulli(outputs.reshape(-1, 2, 2, 1))

    __call__ = Plain.__call__


class Clustering(Plain):
    """q(z, y|x) = q(z|x) q(y|z), p(z, y) = N(z; mean_y, I) / K.

    The KL is the exact sum over y; an importance weight needs a draw of it.
    """

    def setup(self):
        super().setup()
        self.classifier = nn.Dense(K)
        self.means = self.param("means", nn.initializers.normal(), (K, D))

    def infer(self, batch, key):
        z_key, y_key = keys.split_each(keys.per_example(key, len(batch["image"])), 2)
        z, log_q = self.posterior(batch).sample_and_log_prob(z_key)
        log_y = jax.nn.log_softmax(self.classifier(z))
        unit = DiagGaussian.standard(*z.shape)
        log_p = jax.vmap(lambda m: unit.log_prob(z - m[None]), out_axes=1)(self.means)
        ratio = log_q[:, None] + log_y - log_p + math.log(K)
        kl = (jnp.exp(log_y) * ratio).sum(-1, keepdims=True)
        y = Categorical(log_y).sample(y_key)
        return Inference((z, y), kl, jnp.take_along_axis(ratio, y[:, None], -1)[:, 0])

    def likelihood(self, latents, batch):
        return super().likelihood(latents[0], batch)


class Bottleneck(Plain):
    """The information bottleneck: what is scored is the label."""

    target = "label"

    def likelihood(self, z, batch):
        return Categorical(self.decoder(z))


@flax.struct.dataclass
class Relaxed:
    """Logarithms of categorical variables relaxed by Gumbel noise, [B, N, K].

    Maddison et al., 2017, https://arxiv.org/abs/1611.00712, equation 24.
    """

    logits: Array
    temperature: float = flax.struct.field(pytree_node=False, default=0.7)

    def sample_and_log_prob(self, key):
        noise = draw(lambda k, x: jax.random.gumbel(k, x.shape), key, None, self.logits)
        z = jax.nn.log_softmax((self.logits + noise) / self.temperature)
        return z, self.log_prob(z)

    def log_prob(self, z):
        scores = jax.nn.log_softmax(self.logits) - self.temperature * z
        constant = math.lgamma(K) + (K - 1) * math.log(self.temperature)
        each = scores.sum(-1) - K * jax.nn.logsumexp(scores, -1)
        return (constant + each).sum(-1)

    def kl_to(self, other):  # of the categorical variables themselves
        p, q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return (jnp.exp(p) * (p - q)).sum((1, 2))


class GumbelSoftmax(Plain):
    """Discrete latents: D variables of K classes, uniform a priori."""

    def setup(self):
        self.encoder, self.decoder = nn.Dense(D * K), nn.Dense(4)

    def posterior(self, batch):
        return Relaxed(self.encoder(batch["image"].reshape(-1, 4)).reshape(-1, D, K))

    def prior(self, batch):
        return Relaxed(jnp.zeros((len(batch["image"]), D, K)))

    def likelihood(self, z, batch):
        return super().likelihood(jnp.exp(z).reshape(-1, D * K), batch)


@flax.struct.dataclass
class OnSphere:
    """Von Mises-Fisher in three dimensions around unit vectors [B, 3]."""

    mean: Array
    concentration: float = flax.struct.field(pytree_node=False, default=5.0)

    def sample_and_log_prob(self, key):
        k = self.concentration

        def sample(key, mean):
            height_key, side_key = jax.random.split(key)
            u = jax.random.uniform(height_key)
            height = 1.0 + jnp.log(u + (1.0 - u) * math.exp(-2.0 * k)) / k
            side = jax.random.normal(side_key, (3,))
            side -= (side @ mean) * mean
            side /= jnp.linalg.norm(side)
            return height * mean + jnp.sqrt(1.0 - jnp.square(height)) * side

        z = draw(sample, key, None, self.mean)
        return z, self.log_prob(z)

    def log_prob(self, z):
        k = self.concentration
        constant = math.log(k / (2.0 * math.pi * -math.expm1(-2.0 * k)))
        return constant + k * ((z * self.mean).sum(-1) - 1.0)

    def kl_to(self, other):  # to the uniform distribution: a constant
        k = self.concentration
        length = 1.0 / math.tanh(k) - 1.0 / k
        constant = math.log(2.0 * k / -math.expm1(-2.0 * k)) + k * (length - 1.0)
        return jnp.full(len(self.mean), constant)


class UniformOnSphere:
    """Its density, that is all."""

    def log_prob(self, z):
        return jnp.full(len(z), -math.log(4.0 * math.pi))


class Sphere(Plain):
    """A posterior of fixed concentration: the KL cannot collapse."""

    def setup(self):
        self.encoder, self.decoder = nn.Dense(3), nn.Dense(4)

    def posterior(self, batch):
        direction = self.encoder(batch["image"].reshape(-1, 4))
        return OnSphere(direction / jnp.linalg.norm(direction, axis=-1, keepdims=True))

    def prior(self, batch):
        return UniformOnSphere()


TOYS = [
    Plain,
    Conditional,
    FlowPosterior,
    FlowPrior,
    Text,
    Hierarchical,
    Clustering,
    Bottleneck,
    GumbelSoftmax,
    Sphere,
]


@functools.cache
def made(kind):
    """Returns (model, params, state, batch) with random numbers everywhere."""
    draws, model = np.random.default_rng(0), kind()
    batch = {
        "image": draws.integers(0, 2, (B, 2, 2, 1)).astype("float32"),
        "label": draws.integers(0, K, B),
        "tokens": draws.integers(0, 5, (B, T)),
        "length": draws.integers(1, T + 1, B),
    }
    shapes = jax.eval_shape(model.init, KEY, batch, KEY)
    variables = jax.tree.map(
        lambda a: draws.standard_normal(a.shape).astype("float32"), shapes
    )
    params = variables.pop("params")
    return model, params, jax.tree.map(np.square, variables), batch  # variances > 0


@pytest.mark.parametrize(
    "kind", others_slow(TOYS, Plain, Text, Clustering, Hierarchical)
)
def test_the_bound_is_one_number_eager_and_jitted_on_eight_devices(kind):
    model, params, state, batch = made(kind)
    loss = losses.build("elbo", model)
    eager, aux = loss(params, state, KEY, batch, {})
    on_eight = jax.device_put(batch, mesh.rows(mesh.build()))
    with_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (sharded, _), gradient = with_gradient(params, state, KEY, on_eight, {})
    assert np.isfinite(eager)
    np.testing.assert_allclose(sharded, eager, rtol=1e-5)
    leaves = jax.device_get(jax.tree.leaves(gradient))
    assert all(np.isfinite(g).all() for g in leaves)
    assert all(np.any(g != 0) for g in leaves)  # no parameter is left out
    assert set(aux.state) == set(state)


@pytest.mark.parametrize(
    "kind", others_slow(TOYS, Plain, Text, Hierarchical, FlowPrior)
)
def test_importance_weights_tighten_the_bound(kind):
    """64 weighted draws against the mean of the ELBOs of the very same draws."""
    model, params, state, batch = made(kind)
    loss = jax.jit(losses.build("iwae", model, num_samples=64))
    _, aux = loss(params, state, KEY, batch, {})
    assert np.isfinite(aux.metrics["iwae"])
    assert aux.metrics["iwae"] > aux.metrics["elbo"]


@pytest.mark.parametrize("kind", [Clustering, Sphere])
def test_a_closed_form_kl_is_the_expectation_of_the_log_ratio(kind):
    """2,000 draws of a batch, within 4 standard errors."""
    model, params, state, batch = made(kind)

    def difference(key):
        found = model.apply({"params": params, **state}, batch, key, method="infer")
        return (found.kl.sum(-1) - found.log_ratio).mean()

    found = np.asarray(jax.jit(jax.vmap(difference))(jax.random.split(KEY, 2000)))
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(len(found))


class Sized(nn.Module):
    """No subclass of `Model`: a field of its own, and as little as it needs."""

    num_classes: int
    width: int = 3

    @nn.compact
    def posterior(self, batch):
        return split_gaussian(nn.Dense(2 * self.width)(batch["image"].reshape(-1, 4)))

    def __call__(self, batch, key):
        return self.posterior(batch)


def test_a_module_that_is_no_subclass_gets_what_it_lacks_and_keeps_what_it_has():
    mine, batch = Sized(num_classes=5), {"image": jnp.ones((B, 2, 2, 1))}
    model = contract.as_model(mine)
    assert isinstance(model, Sized) and contract.as_model(model) is model
    assert (
        model
        == contract.as_model(Sized(num_classes=5))
        != contract.as_model(Sized(num_classes=6))
    )
    assert (model.num_classes, model.width) == (5, 3)
    assert model.offers("posterior") and not model.offers("posterior", "infer")
    assert (model.target, model.coefficients, model.has_latents) == (None, {}, True)
    variables = mine.init(KEY, batch, KEY)
    for a, b in zip(
        jax.tree.leaves_with_path(variables),
        jax.tree.leaves_with_path(model.init(KEY, batch, KEY)),
        strict=True,
    ):
        assert a[0] == b[0] and np.array_equal(a[1], b[1])
    q = model.apply(variables, batch["image"], method="encode")
    expected = mine.apply(variables, batch, method="posterior")
    np.testing.assert_array_equal(q.mean, expected.mean)


def test_a_field_without_default_stays_required_in_a_subclass():
    class Named(contract.Model):
        num_classes: int
        target: str = "label"

    with pytest.raises(TypeError, match="num_classes"):
        Named()
    assert (Named(4).num_classes, Named(4).target) == (4, "label")


@pytest.mark.parametrize(
    "name", [n for n in vars(contract.ModelDefaults) if n[0] != "_"]
)
def test_no_model_offers_what_is_only_declared(name):
    assert not contract.Model().offers(name)


class Doubled:
    """A mixin with all that a model may have, found before the defaults."""

    def decode(self, z):
        return 2.0 * z

    def __call__(self, batch, key):
        return self.param("extra", nn.initializers.ones, (3,)), self.posterior(batch)


class Behind(nn.Module, SingleLatent, Doubled):
    """Mixins behind nn.Module, as docs/your_own.md writes them."""

    width: int = 3

    @nn.compact
    def posterior(self, batch):
        return split_gaussian(nn.Dense(2 * self.width)(batch["image"].reshape(-1, 4)))

    def prior(self, batch):
        return DiagGaussian.standard(batch_size(batch), self.width)

    def infer(self, batch, key):
        return super().infer(batch, key)

    def likelihood(self, latents, batch):
        return Bernoulli(latents[:, :1, None, None] * jnp.ones((1, 2, 2, 1)))

    target = "image"

    @nn.compact
    def __call__(self, batch, key):
        return super().__call__(batch, key)


def test_mixins_behind_the_module_come_before_the_defaults():
    batch = {"image": jnp.ones((B, 2, 2, 1))}
    model = contract.as_model(Behind())
    variables = model.init(KEY, batch, KEY)
    assert set(variables["params"]) == {"extra", "Dense_0"}
    z = jnp.ones((B, 3))
    np.testing.assert_array_equal(model.apply(variables, z, method="decode"), 2.0 * z)
    loss = losses.build("elbo", Behind())
    value, _ = loss(variables["params"], {}, KEY, batch, {})
    direct, _ = losses.negative_elbo(
        variables["params"], {}, KEY, batch, {}, model=Behind()
    )
    assert value == direct


class Fields(nn.Module):
    """Fields and attributes with the names of what `Model` declares."""

    uniform_prior: bool
    likelihood: Any
    coefficients: Any = None

    def setup(self):
        self.annealed = 3.0

    def posterior(self, batch):
        return DiagGaussian.standard(batch_size(batch), 1 + self.uniform_prior)

    def __call__(self):
        return self.annealed


def test_fields_may_have_the_names_of_what_is_declared():
    model = contract.as_model(Fields(True, lambda latents, batch: None))
    assert model.uniform_prior and model.offers("likelihood", "posterior")
    assert not model.offers("prior") and model.apply({}) == 3.0


def test_a_derived_class_can_be_pickled():
    model = contract.as_model(Sized(num_classes=5))
    assert pickle.loads(pickle.dumps(model)) == model


def test_what_a_model_lacks_is_said_in_one_line():
    model = contract.as_model(Sized(num_classes=5))
    with pytest.raises(ConfigError, match="Sized has no method 'prior'. See docs/arch"):
        model.prior({})
    with pytest.raises(ConfigError, match="model must be a Flax module, got 3"):
        contract.as_model(3)
