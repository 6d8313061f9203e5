"""Loops over layers, steps or micro-batches, in which convolutions stay fast on CPU."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn

_in_loop: contextvars.ContextVar[bool] = contextvars.ContextVar("loop", default=False)


@contextlib.contextmanager
def loop_body() -> Iterator[None]:
    """While tracing inside, convolutions take the gradient that is fast in a loop."""
    token = _in_loop.set(True)
    try:
        yield
    finally:
        _in_loop.reset(token)


def scan(
    body: Callable,
    carry: Any,
    xs: Any,
    length: int | None = None,
    reverse: bool = False,
) -> Any:
    """Returns `jax.lax.scan` of the same, fast for convolutions on CPU.

    XLA's CPU backend computes a convolution's weight gradient 20 to 50 times slower
    inside a while loop than outside one. Scan over layers, steps or micro-batches
    with this function and the convolutions inside avoid it.
    """

    @functools.wraps(body)
    def traced(carry, x):
        with loop_body():
            return body(carry, x)

    return jax.lax.scan(traced, carry, xs, length, reverse)


def remat(kind: type[nn.Module], in_loop: bool) -> Any:
    """Returns a module's class whose gradient keeps its input and sums over a batch.

    Those of BatchNorm are a few numbers, and devices would exchange them again.

    On CPU outside a loop that is the class as it is: there XLA, which may order both
    computations as it likes, computes everything twice and keeps it all the same.

    Args:
      kind: the class.
      in_loop: whether its modules are parts of a loop's body.
    """
    if not in_loop and on_cpu():
        return kind
    # A loop's body cannot be merged with another.
    return nn.remat(kind, prevent_cse=not in_loop, policy=_is_sum_over_places)


def _is_sum_over_places(primitive: Any, *avals: Any, **params: Any) -> bool:
    """Returns whether an operation adds up all that a channel has in a batch."""
    is_sum = primitive is jax.lax.reduce_sum_p
    return is_sum and avals[0].ndim - len(params["axes"]) == 1


def in_loop() -> bool:
    """Returns whether a loop's body is being traced."""
    return _in_loop.get()


def on_cpu() -> bool:
    """Returns whether programs are for a CPU."""
    return jax.default_backend() == "cpu"
