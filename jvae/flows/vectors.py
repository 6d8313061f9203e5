"""Steps for vectors: posteriors and priors of the codes of a VAE."""

from __future__ import annotations

from jvae.flows.actnorm import ActNorm
from jvae.flows.bijection import Bijection, Chain
from jvae.flows.coupling import Coupling, DenseNet, Kind
from jvae.flows.mixing import InvertibleConv
from jvae.flows.steps import Steps
from jvae.types import Array


class VectorSteps(Steps):
    """Steps of actnorm, a matrix, and a coupling that may see cond [B, F].

    Attributes:
      hidden: widths within the couplings' networks.
      coupling: 'additive' or 'affine'.
    """

    event_rank: int = 1
    hidden: tuple[int, ...] = (64,)
    coupling: Kind = "affine"

    def step(self, order: Array) -> Bijection:
        """Returns one step."""
        net = DenseNet(self.hidden, parent=None)
        return Chain(
            [
                ActNorm(self.features, parent=None),
                InvertibleConv(order, parent=None),
                Coupling(net, self.coupling, parent=None),
            ],
            parent=None,
        )
