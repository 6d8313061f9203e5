"""Variational autoencoders and their relatives in JAX and Flax.

The losses are in `jvae.losses`, the models in `jvae.models`; `jvae.restore` gives a
trained model back.
"""

from typing import Any

__version__ = "0.2.0"

__all__ = ["restore"]


def __getattr__(name: str) -> Any:
    """Imports `restore` when it is asked for: it needs Orbax, the losses do not."""
    if name == "restore":
        from jvae.pretrained.restore import restore

        return restore
    raise AttributeError(f"module 'jvae' has no attribute {name!r}")
