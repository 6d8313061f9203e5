"""Parameters that are not those of the start, without a compiled draw of each shape."""

import jax
import jax.numpy as jnp
import numpy as np


def perturbed(tree, scale, seed=0):
    """Returns the tree with normal noise of that scale added to every array."""
    rng = np.random.default_rng(seed)

    def noisy(a):
        return jnp.asarray(np.asarray(a) + scale * rng.normal(size=a.shape), a.dtype)

    return jax.tree.map(noisy, tree)
