"""Distributions as small pytrees: posteriors, priors and likelihoods.

Arrays are [B, ...], one distribution per example over everything behind the first
axis. `log_prob` sums over it and returns [B], in nats, float32 whatever the inputs.
`sample(key)` draws once per example, example i with key i (see `jvae.keys`);
`sample(key, n)` returns n draws, [n, B, ...], draw j with key j of the split.
A density has all its constants.
"""

from jvae.distributions.discrete import Bernoulli, Categorical, softplus
from jvae.distributions.discretized_logistic import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
)
from jvae.distributions.events import (
    Distribution,
    as_distribution,
    data_log_prob,
    draw,
    sum_events,
)
from jvae.distributions.gaussian import LOG_TWO_PI, DiagGaussian, Gaussian, kl_per_group
from jvae.distributions.gumbel_softmax import GumbelSoftmax
from jvae.distributions.mixture import GaussianMixture
from jvae.distributions.sentences import Sentences
from jvae.distributions.von_mises_fisher import (
    UniformOnSphere,
    VonMisesFisher,
    arc,
    slerp,
)

__all__ = [
    "LOG_TWO_PI",
    "Bernoulli",
    "Categorical",
    "DiagGaussian",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Distribution",
    "Gaussian",
    "GaussianMixture",
    "GumbelSoftmax",
    "Sentences",
    "UniformOnSphere",
    "VonMisesFisher",
    "arc",
    "as_distribution",
    "data_log_prob",
    "draw",
    "kl_per_group",
    "slerp",
    "softplus",
    "sum_events",
]
