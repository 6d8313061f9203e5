"""Whether parameters still make a bijection: no scale may be 0, infinite or nan."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jvae.errors import ConfigError
from jvae.types import Params

MAX_LOG_SCALE = 80.0
"""Beyond it exp is 0 or infinite in float32, or nearly so."""

LOG_SCALES = {"log_scale": "a scale", "log_diagonal": "a 1x1 kernel"}


def check_scales(params: Params, where: str, fix: str = "") -> None:
    """Raises ConfigError where a layer of a flow has no inverse.

    Args:
      params: of any model; what is no scale of a flow is not looked at.
      where: where they come from, for the message.
      fix: what to do, for the message.
    """
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        what = LOG_SCALES.get(name.rsplit("/", 1)[-1])
        if what is None or bool((jnp.abs(value) <= MAX_LOG_SCALE).all()):
            continue
        low, high = float(value.min()), float(value.max())
        raise ConfigError(
            f"{what} of the flow is singular or not finite: {name} must be within "
            f"+-{MAX_LOG_SCALE:g}, it goes from {low:g} to {high:g}",
            where=where,
            fix=fix,
        )
