"""The LSTM is Flax's, made of fewer matrix products."""

import jax
import numpy as np
from flax import linen as nn

from jvae.layers.lstm import Lstm, Memory

B, T, WIDTH, H, J = 3, 7, 5, 4, 2
KEY = jax.random.key(0)
DRAWS = np.random.default_rng(0)
X = DRAWS.standard_normal((B, T, WIDTH)).astype("float32")
Z = DRAWS.standard_normal((B, J)).astype("float32")
START = Memory(*DRAWS.standard_normal((2, B, H)).astype("float32"))


def made(*inputs):
    """Returns (module, parameters), all of them random."""
    module = Lstm(H)
    shapes = jax.eval_shape(module.init, KEY, *inputs)["params"]
    draws = np.random.default_rng(1)
    return module, jax.tree.map(
        lambda a: draws.standard_normal(a.shape).astype("float32"), shapes
    )


def of_flax(params):
    """Returns the parameters as OptimizedLSTMCell has them."""
    kernels = np.split(np.asarray(params["input"]["kernel"]), 4, axis=1)
    recurrent = np.split(np.asarray(params["recurrent"]), 4, axis=1)
    biases = np.split(np.asarray(params["input"]["bias"]), 4)
    names = "ifgo"
    cells = {f"i{n}": {"kernel": k} for n, k in zip(names, kernels, strict=True)}
    for name, kernel, bias in zip(names, recurrent, biases, strict=True):
        cells[f"h{name}"] = {"kernel": kernel, "bias": bias}
    return cells


def test_outputs_and_gradients_are_those_of_flax():
    module, params = made(X)
    theirs = nn.RNN(nn.OptimizedLSTMCell(H))
    weights = DRAWS.standard_normal((B, T, H)).astype("float32")

    def ours(params, x):
        return module.apply({"params": params}, x, START)

    def flaxs(params, x):
        carry = (START.cell, START.hidden)
        cell = {"params": {"cell": params}}
        return theirs.apply(cell, x, initial_carry=carry)

    want = jax.jit(flaxs)(of_flax(params), X)
    np.testing.assert_allclose(jax.jit(ours)(params, X), want, rtol=1e-4, atol=1e-5)
    got = jax.jit(jax.grad(lambda p, x: (ours(p, x) * weights).sum(), (0, 1)))(
        params, X
    )
    want = jax.jit(jax.grad(lambda p, x: (flaxs(p, x) * weights).sum(), (0, 1)))(
        of_flax(params), X
    )
    np.testing.assert_allclose(got[1], want[1], rtol=1e-3, atol=1e-4)
    for name, value in of_flax(got[0]).items():
        for part in value:
            np.testing.assert_allclose(
                value[part], want[0][name][part], rtol=1e-3, atol=1e-4, err_msg=name
            )


def test_a_constant_input_is_one_that_is_given_at_every_step():
    module, params = made(X, None, Z)
    both = np.concatenate([X, np.repeat(Z[:, None], T, axis=1)], axis=-1)
    kernels = [params[name]["kernel"] for name in ("input", "constant")]
    joined = {**params["input"], "kernel": np.concatenate(kernels)}
    wide = {"input": joined, "recurrent": params["recurrent"]}
    np.testing.assert_allclose(
        module.apply({"params": params}, X, None, Z),
        module.apply({"params": wide}, both),
        rtol=1e-4,
        atol=1e-5,
    )


def test_steps_one_by_one_are_the_whole():
    module, params = made(X, None, Z)
    whole = module.apply({"params": params}, X, START, Z)
    memory = START
    for t in range(T):
        step = module.apply({"params": params}, memory, X[:, t], Z, method="step")
        np.testing.assert_allclose(step.hidden, whole[:, t], rtol=1e-4, atol=1e-5)
        memory = step


def test_each_gate_starts_with_an_orthogonal_kernel():
    params = jax.device_get(jax.jit(Lstm(H).init)(KEY, X)["params"])
    for kernel in np.split(params["recurrent"], 4, axis=1):
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(H), atol=1e-5)
    assert not np.any(params["input"]["bias"])
