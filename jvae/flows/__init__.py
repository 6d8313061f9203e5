"""Flows: bijections whose volumes are known, from one layer to Glow.

Each is a Flax module with `forward(x, cond) -> (y, log_det [B])`, `inverse(y, cond)`,
and `data_dependent_init(x, cond)`, which sets by examples what is set by data.
"""

from jvae.flows.actnorm import ActNorm, ConditionalActNorm
from jvae.flows.bijection import Bijection, Chain, check_scales
from jvae.flows.coupling import ConvNet, Coupling, DenseNet
from jvae.flows.density import FlowPosterior, FlowPrior
from jvae.flows.glow import Glow, GlowSteps, Split
from jvae.flows.mixing import InvertibleConv
from jvae.flows.nice import Nice
from jvae.flows.squeeze import Permutation, Squeeze, random_orders
from jvae.flows.steps import Steps, VectorSteps

__all__ = [
    "ActNorm",
    "Bijection",
    "Chain",
    "ConditionalActNorm",
    "ConvNet",
    "Coupling",
    "DenseNet",
    "FlowPosterior",
    "FlowPrior",
    "Glow",
    "GlowSteps",
    "InvertibleConv",
    "Nice",
    "Permutation",
    "Split",
    "Squeeze",
    "Steps",
    "VectorSteps",
    "check_scales",
    "random_orders",
]
