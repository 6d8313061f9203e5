"""Methods of distributions, compiled, and random parameters for them."""

import functools

import jax
import numpy as np


@jax.jit
def log_prob(p, x):
    return p.log_prob(x)


@jax.jit
def mean(p):
    return p.mean


@functools.partial(jax.jit, static_argnums=2)
def sample(p, key, n=None):
    return p.sample(key, n)


def normal(seed, *shape, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape).astype("float32")
