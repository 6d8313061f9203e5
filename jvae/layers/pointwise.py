"""What acts on single numbers or on the channels of single places."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jvae.layers.bilinear import Bilinear, Form
from jvae.runtime import random_bits
from jvae.types import Array, Key

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "swish", "tanh"]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=0.2),
    "elu": nn.elu,
    "gelu": nn.gelu,
    "swish": nn.swish,
    "tanh": nn.tanh,
}


def compute_dtype(name: str) -> Any:
    """Returns the dtype of layers by its name in a config.

    None for 'float32', which Flax takes as that of input and parameters: these are in
    float32, unless somebody has them in float64.
    """
    return None if name == "float32" else jnp.dtype(name)


def row_product(x: Array, kernel: Array, precision: Any = None) -> Array:
    """Returns x [..., I] times kernel [I, O], on CPU as a product of rows [N, I].

    The weight gradient of a product with more than two axes makes XLA:CPU write a
    transposed copy of what comes from above: of 64 x 21 tokens and 4,000 words both
    gradients take 71 ms so, and 18 ms as rows. Others fuse a product with what
    surrounds it, if no reshape is in between.

    Args:
      x: [..., I].
      kernel: [I, O].
      precision: as for `jax.numpy.dot`.
    """
    x, kernel = promote_dtype(x, kernel, dtype=None)
    if x.ndim == 1:
        return row_product(x[None], kernel, precision)[0]
    return _row_product(x, kernel, precision=precision)


def _product(x: Array, kernel: Array, *, precision: Any) -> Array:
    return jnp.dot(x, kernel, precision=precision)


def cpu_row_product(x: Array, kernel: Array, *, precision: Any = None) -> Array:
    """Returns the product, as of rows."""
    y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel, precision=precision)
    return y.reshape(*x.shape[:-1], y.shape[-1])


_row_product = Bilinear("row_product", Form(_product), cpu=Form(cpu_row_product))


def _dot_general(x, kernel, dimensions, precision=None, preferred_element_type=None):
    """`row_product` with the arguments of `jax.lax.dot_general`, as `nn.Dense` asks."""
    return row_product(x, kernel, precision)


Dense = functools.partial(nn.Dense, dot_general=_dot_general)
"""Flax' `Dense`, by `row_product`; for inputs of more than two axes."""


def dropout(x: Array, rate: float, key: Key | None) -> Array:
    """Returns x with entries set to 0 at random, the others scaled to keep the mean.

    Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html.

    Args:
      x: [B, ...].
      rate: of the entries that are dropped, within [0, 1).
      key: [B] keys, one per example; None for no dropout.
    """
    if key is None or rate == 0:
        return x
    uniform = jax.vmap(lambda k: random_bits.uniform(k, x.shape[1:]))(key)
    return jnp.where(uniform >= rate, x / (1.0 - rate), 0.0)
