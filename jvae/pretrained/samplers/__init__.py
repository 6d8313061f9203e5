"""Where latents are drawn from after training: what the codes of data look like.

The codes that a trained encoder makes of data are not distributed as the prior says.
A sampler is fitted to draws of q(z|x) over training images, is saved beside the run and
draws in the prior's place. It makes better images; p(x) of the model stays what it was.
"""

from jvae.pretrained.samplers.fit import SAMPLERS, build
from jvae.pretrained.samplers.flow import FlowSampler
from jvae.pretrained.samplers.mixture import MixtureSampler
from jvae.pretrained.samplers.neighbors import NeighborSampler
from jvae.pretrained.samplers.store import load, names, save

__all__ = [
    "SAMPLERS",
    "FlowSampler",
    "MixtureSampler",
    "NeighborSampler",
    "build",
    "load",
    "names",
    "save",
]
