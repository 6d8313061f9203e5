"""One of each kind of distribution, for images of one pixel with three channels."""

import numpy as np
import pytest

from jvae.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
)
from tests.distributions.jitted import normal


def mixture(seed, batch, channels, k, num_bits):
    """A random mixture for images of one pixel, its channels coupled if three."""
    spread = (batch, 1, 1, channels, k)
    return DiscretizedLogisticMixture(
        normal(seed, batch, 1, 1, k),
        normal(seed + 1, *spread, scale=0.5),
        normal(seed + 2, *spread, scale=0.5) - 1.5,
        np.tanh(normal(seed + 3, *spread)) if channels == 3 else None,
        num_bits,
    )


SHAPE = (4, 1, 1, 3)
LOC, LOG_SCALE = normal(0, *SHAPE), normal(1, *SHAPE) - 1.0
KINDS = {
    "diag_gaussian": DiagGaussian(LOC, LOG_SCALE),
    "bernoulli": Bernoulli(LOC),
    "gaussian": Gaussian(LOC, LOG_SCALE[..., :1]),
    "logistic": DiscretizedLogistic(LOC, LOG_SCALE, 3),
    "mixture": mixture(0, 4, 3, 4, 3),
    "categorical": Categorical(normal(2, *SHAPE, 8)),
}


@pytest.fixture
def kinds():
    """Distributions by name, [4, 1, 1, 3] each."""
    return KINDS


@pytest.fixture(params=KINDS)
def p(request):
    """A distribution of every kind in turn."""
    return KINDS[request.param]


@pytest.fixture
def mixture_of():
    """Makes a random mixture: (seed, batch, channels, components, bits)."""
    return mixture
