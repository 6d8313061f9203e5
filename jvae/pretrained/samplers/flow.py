"""A small flow, fitted to codes by maximum likelihood."""

from __future__ import annotations

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jvae import keys
from jvae.distributions import DiagGaussian
from jvae.errors import require
from jvae.flows import FlowPrior, VectorSteps
from jvae.pretrained.minimize import minimize
from jvae.types import Array, Key, Params

BATCH_SIZE = 256
LEARNING_RATE = 1e-3


@flax.struct.dataclass
class FlowSampler:
    """mean + std f^-1(e), e ~ N(0, I), f a flow of vectors.

    Attributes:
      mean: [D], of the codes.
      std: [D].
      params: of the flow.
      depth: its steps.
      width: of the couplings' networks.
    """

    mean: Array
    std: Array
    params: Params
    depth: int = flax.struct.field(pytree_node=False)
    width: int = flax.struct.field(pytree_node=False)

    def prior(self, rows: int) -> FlowPrior:
        """Returns the distribution of (z - mean) / std, [rows, D]."""
        size = self.mean.shape[0]
        flow = flow_of(size, self.depth, self.width)
        base = DiagGaussian.standard(rows, size)
        return FlowPrior(base, self.params, flow, (size,))

    def sample(self, key: Key, n: int, temperature: float | Array = 1.0) -> Array:
        """Returns n codes, [n, D].

        Args:
          key: one key, or [n] keys.
          n: how many.
          temperature: factor on the standard deviation of e.
        """
        inner = self.prior(n).tempered(temperature).sample(key)
        return self.mean[None] + self.std[None] * inner

    def log_prob(self, z: Array) -> Array:
        """Returns [B], log densities of codes z [B, D] in nats."""
        inner = self.prior(z.shape[0]).log_prob((z - self.mean[None]) / self.std[None])
        return inner - jnp.log(self.std).sum()


def flow_of(size: int, depth: int, width: int) -> VectorSteps:
    """Returns the flow, of vectors of `size`."""
    return VectorSteps(size, depth, hidden=(width,))


def fit_flow(
    codes: np.ndarray,
    seed: int = 0,
    depth: int = 4,
    width: int = 64,
    num_steps: int = 2000,
) -> FlowSampler:
    """Returns a flow fitted to codes [N, D].

    Args:
      codes: [N, D], D at least 2.
      seed: of the parameters and of the batches.
      depth: steps of the flow.
      width: of its networks.
      num_steps: updates, Adam with 256 codes each.

    Raises:
      ConfigError: a single dimension, which couplings cannot split, or a number out of
        range.
    """
    size = codes.shape[1]
    require(size >= 2, "latent_dim", "be at least 2 for the sampler 'flow'", size)
    for name, value in (("depth", depth), ("width", width), ("num_steps", num_steps)):
        require(value >= 1, name, "be at least 1", value)
    mean, std = codes.mean(0), np.maximum(codes.std(0), 1e-6)
    scaled = np.asarray((codes - mean) / std, np.float32)
    flow = flow_of(size, depth, width)
    params = _trained(scaled, keys.of_seed(seed), flow, num_steps)
    mean, std = (jnp.asarray(a, jnp.float32) for a in (mean, std))
    return FlowSampler(mean, std, params, depth, width)


def _trained(codes: np.ndarray, key: Key, flow: VectorSteps, num_steps: int) -> Params:
    """Returns parameters after so many updates."""
    start_key, run_key = jax.random.split(key)
    rows = min(BATCH_SIZE, codes.shape[0])

    def drawn(step_key):
        return jax.random.randint(step_key, (rows,), 0, codes.shape[0], jnp.int32)

    chosen = np.asarray(jax.vmap(drawn)(jax.random.split(run_key, num_steps)))
    return minimize(
        _NegativeLogDensity(flow),
        _initialized(flow, start_key, codes[:rows]),
        (codes[indices] for indices in chosen),
        num_steps=num_steps,
        learning_rate=LEARNING_RATE,
    )


@functools.partial(jax.jit, static_argnums=0)
def _initialized(flow: VectorSteps, key: Key, codes: Array) -> Params:
    return flow.init(key, codes)["params"]


@dataclasses.dataclass(frozen=True)
class _NegativeLogDensity:
    """-log p(z) of a flow, the mean over codes z [B, D]."""

    flow: VectorSteps

    def __call__(self, params: Params, z: Array) -> Array:
        base = DiagGaussian.standard(*z.shape)
        return -FlowPrior(base, params, self.flow, z.shape[1:]).log_prob(z).mean()
