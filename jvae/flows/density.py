"""Flows as distributions: priors that are learned, posteriors that are no Gaussians.

Objects of arrays, which outlive the module that made them: they hold the flow's
parameters, and the flow itself as part of their structure.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.struct
import jax.numpy as jnp

from jvae.distributions import DiagGaussian, Distribution
from jvae.distributions.events import draws
from jvae.flows.bijection import Bijection
from jvae.types import Array, Key, Params


@flax.struct.dataclass
class FlowPrior(Distribution):
    """p(z) = N(f(z); 0, I) |det df/dz|, for vectors z [B, D].

    Attributes:
      base: [B, D], N(0, I) of the codes f(z).
      params: of the flow, the same for all examples.
      flow: a bijection of maps [B, ...] of `shape` and codes [B, D].
      shape: what the flow sees of one z.
    """

    base: DiagGaussian
    params: Params
    flow: Bijection = flax.struct.field(pytree_node=False)
    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def of(
        cls, flow: Bijection, num_examples: int, shape: tuple[int, ...]
    ) -> FlowPrior:
        """Returns the prior of a flow that is a part of the module being called."""
        params, unbound = taken(flow, jnp.zeros((num_examples, *shape), jnp.float32))
        base = DiagGaussian.standard(num_examples, math.prod(shape))
        return cls(base, params, unbound, shape)

    def code(self, z: Array) -> tuple[Array, Array]:
        """Returns (f(z) [B, D], log |det df/dz| [B])."""
        maps = z.reshape(-1, *self.shape)
        code, log_det = _applied(self.flow, self.params, maps)
        return code.reshape(z.shape), log_det

    def at(self, code: Array) -> Array:
        """Returns z [B, D] of codes f(z) [B, D]."""
        maps = _applied(self.flow, self.params, code, method="inverse")
        return maps.reshape(code.shape)

    def log_prob(self, z: Array) -> Array:
        """Returns [B], log p(z) in nats, for z [B, D]."""
        code, log_det = self.code(z)
        return self.base.log_prob(code) + log_det

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns draws, [B, D] or [n, B, D]."""
        rows = self.base.mean.shape[0]
        return draws(lambda each: self.at(self.base.sample(each)), key, n, rows)

    def tempered(self, temperature: float | Array) -> FlowPrior:
        """Returns this with the codes' standard deviations times `temperature`."""
        return dataclasses.replace(self, base=self.base.tempered(temperature))

    def interpolate(self, start: Array, end: Array, fraction: Array) -> Array:
        """Returns points whose codes lie on the line between those of two.

        Args:
          start: [..., D].
          end: broadcasts against `start`.
          fraction: from 0 to 1; broadcasts against one coordinate of `start`.
        """
        size = start.shape[-1]
        first, last = (
            self.code(z.reshape(-1, size))[0].reshape(z.shape) for z in (start, end)
        )
        path = (1.0 - fraction) * first + fraction * last
        return self.at(path.reshape(-1, size)).reshape(path.shape)


@flax.struct.dataclass
class FlowPosterior(Distribution):
    """q(z|x) of z = f(e; cond), e ~ N(mean, diag var), for vectors [B, D].

    Known at its own draws only: there is no `log_prob`.

    Rezende & Mohamed, 2015, https://arxiv.org/abs/1505.05770.

    Attributes:
      base: [B, D], of e.
      cond: [B, F], what else the flow sees of x; None for nothing.
      params: of the flow, the same for all examples.
      flow: a bijection of [B, D].
    """

    base: DiagGaussian
    cond: Array | None
    params: Params
    flow: Bijection = flax.struct.field(pytree_node=False)

    has_density = False

    @classmethod
    def of(
        cls, flow: Bijection, base: DiagGaussian, cond: Array | None
    ) -> FlowPosterior:
        """Returns q of a flow that is a part of the module being called."""
        params, unbound = taken(flow, base.mean, cond)
        return cls(base, cond, params, unbound)

    @property
    def mean(self) -> Array:
        """A centre of q, [B, D]: f of the mean of e, in general not the mean of z."""
        return self._moved(self.base.mean)[0]

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns draws, [B, D] or [n, B, D]; differentiable."""
        rows = self.base.mean.shape[0]
        return draws(lambda each: self.sample_and_log_prob(each)[0], key, n, rows)

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        """Returns one draw [B, D] and its log density [B]."""
        start, log_q = self.base.sample_and_log_prob(key)
        z, log_det = self._moved(start)
        return z, log_q - log_det

    def _moved(self, start: Array) -> tuple[Array, Array]:
        """Returns (f(start), log |det|)."""
        return _applied(self.flow, self.params, start, self.cond)


def _applied(flow: Bijection, params: Params, *args: Any, method: str = "forward"):
    return flow.apply({"params": params}, *args, method=method)


def taken(
    flow: Bijection, x: Array, cond: Array | None = None
) -> tuple[Params, Bijection]:
    """Returns the parameters of a bound flow, and the flow without them."""
    if flow.is_initializing():
        flow(x, cond)
    return flow.variables["params"], flow.clone(parent=None, name=None)
