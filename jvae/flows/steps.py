"""Many steps of one shape as one: parameters stacked, scanned, compiled once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jvae import layers
from jvae.flows.actnorm import ActNorm
from jvae.flows.bijection import Bijection, Chain, no_change
from jvae.flows.coupling import COUPLED, Coupling, DenseNet, Kind
from jvae.flows.mixing import InvertibleConv
from jvae.flows.squeeze import random_orders
from jvae.types import Array, Params

Remat = Literal["none", "couplings", "steps", "invert"]
Layer = tuple[Params, Array]
"""Parameters and order of channels, of one step or stacked."""


class Steps(Bijection):
    """`depth` steps that differ in their parameters and in their order of channels.

    A subclass writes `step`. Activations that the gradient needs are kept ('none' are
    recomputed); or recomputed from the input of each step and the output of its
    coupling's network ('couplings': that network's inner layers, whose activations are
    most of the memory, run once more), or from the input alone ('steps'); or from the
    output, going back through the inverses ('invert': memory for activations does not
    grow with the depth, and the gradient is exact up to what the inverse rounds).

    Attributes:
      features: C, channels of x.
      depth: K.
      event_rank: axes of x behind the batch: 1, or 3 for maps.
      cond_features: channels of cond, None for none.
      remat: 'none', 'couplings', 'steps' or 'invert'.
    """

    features: int
    depth: int
    event_rank: int = 3
    cond_features: int | None = None
    remat: Remat = "couplings"

    def step(self, order: Array) -> Bijection:
        """Returns a step whose channels mix in this order; give it `parent=None`."""
        raise NotImplementedError

    @property
    def orders(self) -> np.ndarray:
        """Each step's order of channels, int32 [K, C]."""
        return random_orders(self.features, self.depth)

    def setup(self):
        """Adds the parameters of all steps, stacked [K, ...]."""
        unbound = self.clone(parent=None)
        sizes = (1,) + (2,) * (self.event_rank - 1)
        x, cond = jnp.zeros((*sizes, self.features), jnp.float32), None
        if self.cond_features is not None:
            cond = jnp.zeros((*sizes, self.cond_features), jnp.float32)

        def create(key):
            step = unbound.step(self.orders[0])
            init = lambda key: step.init(key, x, cond)["params"]  # noqa: E731
            return jax.vmap(init)(jax.random.split(key, self.depth))

        self.stack = self.param("steps", create)

    def _layers(self) -> Layer:
        """Returns parameters and orders of all steps."""
        return self.stack, jnp.asarray(self.orders)

    def _promoted(self, x: Array) -> Array:
        """Returns x as a step gives it back: in double precision if parameters are."""
        return x.astype(jnp.result_type(x, *jax.tree.leaves(self.stack)))

    def _methods(self) -> tuple[Callable, Callable]:
        """Returns `forward` and `inverse` of a step, as functions of its layer too."""
        unbound = self.clone(parent=None)

        def call(method, layer, x, cond):
            params, order = layer
            step = unbound.step(order)
            return step.apply({"params": params}, x, cond, method=method)

        return functools.partial(call, "forward"), functools.partial(call, "inverse")

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B])."""
        forward, inverse = self._methods()
        x = self._promoted(x)
        if self.remat == "invert":
            return _invertible(forward, inverse, self._layers(), x, cond)
        if self.remat == "couplings":
            said = jax.checkpoint_policies.save_only_these_names(COUPLED)
            forward = jax.checkpoint(forward, policy=said)
        if self.remat == "steps":
            forward = jax.checkpoint(forward)
        return _scanned(forward, self._layers(), x, cond)

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        _, inverse = self._methods()

        def body(y, layer):
            return inverse(layer, y, cond), None

        return layers.scan(body, self._promoted(y), self._layers(), reverse=True)[0]

    def data_dependent_init(self, x: Array, cond: Array | None = None) -> Array:
        """Sets parameters, each step by what comes out of those before it."""
        unbound = self.clone(parent=None)

        def body(x, layer):
            params, order = layer
            y, new = unbound.step(order).apply(
                {"params": params},
                x,
                cond,
                method="data_dependent_init",
                mutable=["params"],
            )
            return y, new["params"]

        y, stack = layers.scan(body, self._promoted(x), self._layers())
        self.put_variable("params", "steps", stack)
        return y


def _scanned(
    forward: Callable, stacked: Layer, x: Array, cond: Array | None
) -> tuple[Array, Array]:
    """Returns (y, log_det) of all steps."""

    def body(carry, layer):
        x, total = carry
        y, log_det = forward(layer, x, cond)
        return (y, total + log_det), None

    return layers.scan(body, (x, no_change(x)), stacked)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _invertible(
    forward: Callable, inverse: Callable, stacked: Layer, x: Array, cond: Array | None
) -> tuple[Array, Array]:
    """`_scanned`, whose backward pass keeps the last output alone."""
    return _scanned(forward, stacked, x, cond)


def _invertible_forward(forward, inverse, stacked, x, cond):
    y, log_det = _scanned(forward, stacked, x, cond)
    return (y, log_det), (stacked, y, cond)


def _invertible_backward(forward, inverse, residuals, gradients):
    stacked, y, cond = residuals
    dy, d_log_det = gradients

    def body(carry, layer):
        y, dy, d_cond = carry
        params, order = layer
        x = inverse(layer, y, cond)
        call = lambda params, x, cond: forward((params, order), x, cond)  # noqa: E731
        _, pull = jax.vjp(call, params, x, cond)
        d_params, dx, more = pull((dy, d_log_det))
        return (x, dx, jax.tree.map(jnp.add, d_cond, more)), d_params

    start = (y, dy, jax.tree.map(jnp.zeros_like, cond))
    (_, dx, d_cond), d_stack = layers.scan(body, start, stacked, reverse=True)
    no_gradient: Any = np.zeros(stacked[1].shape, jax.dtypes.float0)
    return (d_stack, no_gradient), dx, d_cond


_invertible.defvjp(_invertible_forward, _invertible_backward)


class VectorSteps(Steps):
    """Steps of actnorm, a matrix, and a coupling that may see cond [B, F].

    Attributes:
      hidden: widths within the couplings' networks.
      coupling: 'additive' or 'affine'.
    """

    event_rank: int = 1
    hidden: tuple[int, ...] = (64,)
    coupling: Kind = "affine"

    def step(self, order: Array) -> Bijection:
        """Returns one step."""
        norm = ActNorm(self.features, parent=None)
        mix = InvertibleConv(order, parent=None)
        net = DenseNet(self.hidden, parent=None)
        couple = Coupling(net, self.coupling, parent=None)
        return Chain([norm, mix, couple], parent=None)
