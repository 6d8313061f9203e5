"""Toy models whose numbers are known, as subjects of evaluation."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae.contract import as_model
from jvae.data.sources import ArraySource
from jvae.data.transforms import Transform
from jvae.distributions import DiagGaussian, Gaussian
from jvae.models import SingleLatent
from jvae.pretrained.trained_model import TrainedModel
from jvae.runtime import mesh
from jvae.types import Inference

AS_STORED = Transform(lambda image, keys: image, "real", lambda x: jnp.clip(x, 0, 1))
ONE_DEVICE = jax.make_mesh(
    (1, 1),
    mesh.AXES,
    devices=jax.devices()[:1],
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
)
TRACES = []


class LinearGaussian(nn.Module, SingleLatent):
    """p(z) = N(0, 1), p(x|z) = N([z, 2z], I); q(z|x) is exact, or N(0, 1)."""

    exact: bool = True
    target = "image"

    def posterior(self, batch):
        x = batch["image"].reshape(-1, 2)
        if not self.exact:
            return DiagGaussian.standard(len(x), 1)
        mean = x @ jnp.array([[1.0], [2.0]]) / 6.0
        return DiagGaussian(mean, jnp.full_like(mean, -np.log(6.0)))

    def prior(self, batch):
        return DiagGaussian.standard(len(batch["image"]), 1)

    def likelihood(self, z, batch):
        mean = jnp.concatenate([z, 2.0 * z], -1).reshape(-1, 1, 2, 1)
        return Gaussian(mean, jnp.zeros((1, 1, 1, 1)))


class PixelCode(nn.Module, SingleLatent):
    """z_d is pixel d times `scales[d]` with noise; x_d is z_d times `scales[d]`.

    The parameter 'offset' is added to the means of q(z|x).
    """

    scales: tuple[float, ...] | list[float]
    log_var: float = 0.0
    prior_mean: float = 0.0
    target = "image"

    def setup(self):
        self.offset = self.param("offset", nn.initializers.zeros, (1, 1))

    def posterior(self, batch):
        TRACES.append("posterior")
        x = batch["image"]
        mean = x.reshape(len(x), -1).astype(jnp.float32) * jnp.array([self.scales])
        mean = mean + self.offset
        return DiagGaussian(mean, jnp.full_like(mean, self.log_var))

    def prior(self, batch):
        p = DiagGaussian.standard(len(batch["image"]), len(self.scales))
        return p.replace(mean=p.mean + self.prior_mean)

    def likelihood(self, z, batch):
        mean = (z * jnp.array([self.scales])).reshape(len(z), 1, -1, 1)
        return Gaussian(mean, jnp.zeros((1, 1, 1, 1)))

    def decode(self, z):
        return self.likelihood(z, {}).mean

    def generate(self, key, n, temperature=1.0, label=None):
        prior = DiagGaussian.standard(n, len(self.scales))
        return self.decode(prior.tempered(temperature).sample(key))


class TwoGroups(nn.Module):
    """Offers `infer` and `likelihood` alone, as a hierarchical model does."""

    target = "image"

    def infer(self, batch, key):
        x = batch["image"].reshape(len(batch["image"]), -1)
        q = DiagGaussian(x, jnp.zeros_like(x))
        z, log_q = q.sample_and_log_prob(key)
        p = DiagGaussian.standard(*x.shape)
        kl = q.kl_to_standard_normal()
        return Inference(
            z, jnp.stack([kl, jnp.zeros_like(kl)], -1), log_q - p.log_prob(z)
        )

    def likelihood(self, z, batch):
        return Gaussian(z.reshape(len(z), 1, -1, 1), jnp.zeros((1, 1, 1, 1)))


def trained(model, transform=AS_STORED, devices=None, params=None):
    """Returns `model` as a trained one; parameters are zeros unless given."""
    params = {"offset": jnp.zeros((1, 1))} if params is None else params
    return TrainedModel(as_model(model), params, {}, transform, devices or mesh.build())


def source(images):
    """Returns a split of float32 images [N, 1, W, 1] from [N, W]."""
    images = np.asarray(images, np.float32)
    return ArraySource({"image": images[:, None, :, None]})


@pytest.fixture
def toys():
    """The toy models, how to make a trained model and a split of them."""
    return types.SimpleNamespace(
        LinearGaussian=LinearGaussian,
        PixelCode=PixelCode,
        TwoGroups=TwoGroups,
        AS_STORED=AS_STORED,
        ONE_DEVICE=ONE_DEVICE,
        TRACES=TRACES,
        trained=trained,
        source=source,
    )
