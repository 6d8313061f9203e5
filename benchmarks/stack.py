"""A stack of convolutions, scanned over its layers against written out.

Eight layers of 3x3 and 32 channels at 64x14x14, the gradient of a sum, compiled as the
trainer does. XLA's CPU backend computes the weights' part 20 to 50 times slower in a
loop, `jvae.layers.scan` does not. The best of three written-out forms counts: jvae's
own layers, XLA's gradient, and the layers' gradient for loops.

    python -m benchmarks.stack [--rounds 9]
"""

import argparse
import sys
import time

import jax
import numpy as np

from benchmarks import machine, turns
from jvae import layers
from jvae.runtime import xla_options

LAYERS, CHANNELS, SHAPE = 8, 32, (64, 14, 14)


def written_out(convolve):
    """Returns the loss with one layer after the other."""

    def loss(kernels, x):
        for kernel in kernels:
            x = jax.nn.relu(convolve(x, kernel))
        return x.sum()

    return loss


def scanned(kernels, x):
    """Returns the loss with `layers.scan` over the layers."""

    def layer(x, kernel):
        return jax.nn.relu(layers.convolution(x, kernel)), None

    return layers.scan(layer, x, kernels)[0].sum()


def by_xla(x, kernel):
    """XLA's convolution and its gradient."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_loop(x, kernel):
    """The convolution that `jvae.layers.scan` takes."""
    with layers.loop_body():
        return layers.convolution(x, kernel)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    flags = parser.parse_args()
    key = jax.random.key(0)
    kernels = 0.08 * jax.random.normal(key, (LAYERS, 3, 3, CHANNELS, CHANNELS))
    x = jax.random.normal(key, (*SHAPE, CHANNELS))
    forms = {
        turns.OURS: scanned,
        "layers": written_out(layers.convolution),
        "xla": written_out(by_xla),
        "loop's gradient": written_out(by_loop),
    }
    work, results = {}, {}
    for name, loss in forms.items():
        gradient = jax.jit(
            jax.grad(loss), compiler_options=xla_options.for_repeated_runs("cpu")
        )
        results[name] = np.asarray(gradient(kernels, x))

        def once(gradient=gradient):
            began = time.perf_counter()
            for _ in range(5):
                jax.block_until_ready(gradient(kernels, x))
            return time.perf_counter() - began

        work[name] = once
    for value in results.values():
        np.testing.assert_allclose(value, results["xla"], rtol=1e-3, atol=1e-3)
    found = turns.compared("gradient", turns.in_turns(work, flags.rounds), 5, "stacks")
    machine.write("stack", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
