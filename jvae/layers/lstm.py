"""Long short-term memory: all inputs of a sequence at once, or a step at a time."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import layers
from jvae.types import Array


class Memory(NamedTuple):
    """The state of an LSTM between two steps.

    Attributes:
      cell: [B, H].
      hidden: [B, H], what it shows.
    """

    cell: Array
    hidden: Array


class Lstm(nn.Module):
    """[B, T, I] -> [B, T, H], Hochreiter & Schmidhuber, 1997, with forget gates.

    Gates in the order input, forget, candidate, output, one kernel and one bias for
    all four. What inputs contribute is one matrix product over all steps; only the
    recurrent product is made step by step.

    Attributes:
      features: H.
    """

    features: int

    def setup(self):
        """Adds the kernels."""
        size = 4 * self.features
        self.input = layers.Dense(size)
        self.constant = nn.Dense(size, use_bias=False)

        def of_each_gate(key):
            init, shape = nn.initializers.orthogonal(), (self.features, self.features)
            each = [init(k, shape, jnp.float32) for k in jax.random.split(key, 4)]
            return jnp.concatenate(each, axis=1)

        self.recurrent = self.param("recurrent", of_each_gate)

    def gates(self, x: Array, constant: Array | None = None) -> Array:
        """Returns what inputs give to the gates, [B, T, 4 H].

        Args:
          x: [B, T, I], one input for each step.
          constant: [B, J], an input that is the same at every step; None for none.
        """
        gates = self.input(x)
        return gates if constant is None else gates + self.constant(constant)[:, None]

    def __call__(
        self, x: Array, start: Memory | None = None, constant: Array | None = None
    ) -> Array:
        """Returns what the cell shows after every step, [B, T, H].

        Args:
          x: [B, T, I].
          start: the state before the first step; None for zeros.
          constant: [B, J], an input that is the same at every step; None for none.
        """
        gates = self.gates(x, constant).swapaxes(0, 1)
        if start is None:
            zeros = jnp.zeros((x.shape[0], self.features), gates.dtype)
            start = Memory(zeros, zeros)

        def body(memory, step_gates):
            memory = advance(memory, step_gates, self.recurrent)
            return memory, memory.hidden

        return layers.scan(body, start, gates)[1].swapaxes(0, 1)

    def step(self, memory: Memory, x: Array, constant: Array | None = None) -> Memory:
        """Returns the state after one more input x [B, I]."""
        gates = self.gates(x[:, None], constant)[:, 0]
        return advance(memory, gates, self.recurrent)


def advance(memory: Memory, gates: Array, kernel: Array) -> Memory:
    """Returns the state after a step.

    Args:
      memory: the state before.
      gates: [B, 4 H], what the step's input gives to them.
      kernel: [H, 4 H], of the recurrent product.
    """
    i, f, g, o = jnp.split(gates + memory.hidden @ kernel, 4, axis=-1)
    cell = nn.sigmoid(f) * memory.cell + nn.sigmoid(i) * jnp.tanh(g)
    return Memory(cell, nn.sigmoid(o) * jnp.tanh(cell))
