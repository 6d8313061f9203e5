"""Every system, traced alone: float32 in float32 out, float64 in float64 out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import losses, models
from tests.systems.test_every_system import OF_LEVELS, SENTENCES, SYSTEMS
from tests.tiers import others_slow

B = 8


def batch_of(name):
    """Returns examples that the model of a system reads."""
    label = np.zeros(B, "int32")
    if name in SENTENCES:
        length = np.full(B, 9, "int32")
        return {"tokens": np.ones((B, 9), "int32"), "length": length}
    shape = (B, *SYSTEMS[name][0]["image_shape"])
    return {
        "image": np.ones(shape, "int32" if name in OF_LEVELS else "f4"),
        "label": label,
    }


def dtypes(name, dtype):
    """Returns the float dtypes of loss, metrics, collections and gradient."""
    fields, options = SYSTEMS[name]
    model, batch = models.build(**fields), batch_of(name)
    loss = losses.build(**options, model=model)

    def cast(tree):
        return jax.tree.map(
            lambda a: a.astype(dtype) if a.dtype == jnp.float32 else a, tree
        )

    def run(key):
        variables = cast(dict(model.init(key, batch, key)))
        params = variables.pop("params")
        value = jax.value_and_grad(loss, has_aux=True)
        return value(params, variables, key, cast(batch), {})

    leaves = jax.tree.leaves(jax.eval_shape(run, jax.random.key(0)))
    return {str(a.dtype) for a in leaves if jnp.issubdtype(a.dtype, jnp.inexact)}


@pytest.mark.parametrize("name", others_slow([*SYSTEMS], "conv", "text", "nice"))
def test_with_64_bits_a_system_has_the_precision_of_what_goes_in(name):
    """In the default tier of convolutions, recurrent layers and a flow."""
    with jax.enable_x64(True):
        assert dtypes(name, "float32") == {"float32"}
        assert dtypes(name, "float64") == {"float64"}


@pytest.mark.parametrize("name", others_slow([*SYSTEMS], "text", "nice"))
def test_a_system_promotes_no_dtypes(name):
    with jax.numpy_dtype_promotion("strict"):
        assert dtypes(name, "float32") == {"float32"}
