"""Layers used by more than one model, each in the form that is fast on its backend.

Only here does a computation have two forms. All forms of a layer agree to rounding,
have the same parameters, and are tested against `jax.lax`.

Training mode is what `apply` was told: a collection that is mutable is updated, so
`BatchNorm` uses the statistics of the batch if 'batch_stats' is mutable and its
running ones if not. No module takes a `train` flag.
"""

from jvae.layers.batch_norm import BatchNorm
from jvae.layers.bounds import bounded
from jvae.layers.convolutions import (
    Conv,
    ConvTranspose,
    convolution,
    upsampling_convolution,
)
from jvae.layers.depthwise import depthwise_convolution
from jvae.layers.loops import loop_body, remat, scan
from jvae.layers.pointwise import (
    ACTIVATIONS,
    Activation,
    Dense,
    compute_dtype,
    dropout,
    row_product,
)
from jvae.layers.resize import (
    depth_to_space,
    double_bilinear,
    double_nearest,
    space_to_depth,
)

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Dense",
    "bounded",
    "compute_dtype",
    "convolution",
    "depth_to_space",
    "depthwise_convolution",
    "double_bilinear",
    "double_nearest",
    "dropout",
    "loop_body",
    "remat",
    "row_product",
    "scan",
    "space_to_depth",
    "upsampling_convolution",
]
