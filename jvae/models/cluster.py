"""The VAE whose latents are a code z and a cluster y that the decoder does not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import keys, registry
from jvae.distributions import DiagGaussian, GaussianMixture
from jvae.errors import ConfigError, require
from jvae.models.latents import MAX_LOG_VAR, MIN_LOG_VAR, GaussianLatent
from jvae.models.vae import VAE, as_one_hot
from jvae.ranges import NonNegativeFloat, PositiveInt, Widths
from jvae.types import Array, Batch, Inference, Key, batch_size

Assignment = Literal["classifier", "responsibilities"]
Start = Literal["random", "codes"]

_GLOROT = nn.initializers.glorot_uniform()


class ClusterVAE(VAE):
    """q(z, y|x) = q(z|x) q(y|z), p(z, y) = p(y) N(z; mean_y, var_y), p(x|z).

    q(y|z) is a classifier on z (Su, 2018, https://kexue.fm/archives/5887) or the
    prior's own p(y|z), the responsibilities (Jiang et al., 2017,
    https://arxiv.org/abs/1611.05148).

    `kl` has D + 1 groups: what each dimension of z costs given y, averaged over
    q(y|z), and KL(q(y|z) || p(y)). `log_ratio` is log q(z|x) - log p(z) with y summed
    out: importance weights need no y, as the decoder sees none. So `kl` is in
    expectation the larger one, by what q(y|z) and a factorised q miss.

    Attributes:
      num_clusters: K.
      assignment: what q(y|z) is.
      classifier_hidden: widths of the classifier's layers, relu between them.
      mean_std: standard deviation of the means' initial values; 0 starts all at 0.
      learned_variances: whether var_y is learned, else 1.
      learned_weights: whether p(y) is learned, else 1 / K.
      components: where the prior's components start, 'random' or fitted to 'codes'.
    """

    num_clusters: int = 10
    assignment: Assignment = "classifier"
    classifier_hidden: Sequence[int] = (256,)
    mean_std: float = 0.0
    learned_variances: bool = False
    learned_weights: bool = False
    components: Start = "random"

    def setup(self):
        """Adds the components of the prior, and the classifier if there is one."""
        super().setup()
        shape, zeros = (self.num_clusters, self.latent_dim), nn.initializers.zeros
        normal, dtype = nn.initializers.normal(self.mean_std), jnp.float32
        start = normal if self.mean_std > 0.0 else zeros
        self.cluster_means = self.param("cluster_means", start, shape, dtype)
        if self.learned_variances:
            self.cluster_log_vars = self.param("cluster_log_vars", zeros, shape, dtype)
        if self.learned_weights:
            self.cluster_logits = self.param("cluster_logits", zeros, shape[:1], dtype)
        if self.assignment == "classifier":
            widths = (*self.classifier_hidden, self.num_clusters)
            self.classifier = [nn.Dense(w, kernel_init=_GLOROT) for w in widths]

    @property
    def num_init_examples(self) -> int:
        """How many examples `data_dependent_init` sees, 0 if it is not needed."""
        return 5000 if self.components == "codes" else 0

    def data_dependent_init(self, batch: Batch, key: Key) -> None:
        """Sets the prior's components to a mixture fitted to draws of q(z|x).

        Draws and not means: a dimension that says nothing of x has means without
        spread, and the prior is to be as wide as q(z).

        Args:
          batch: what `posterior` reads.
          key: one key.
        """
        draw_key, fit_key = jax.random.split(key)
        z = self.posterior(batch).sample(keys.per_example(draw_key, batch_size(batch)))
        fitted = GaussianMixture.fit(z, self.num_clusters, fit_key)
        self.put_variable("params", "cluster_means", fitted.means)
        if self.learned_variances:
            self.put_variable("params", "cluster_log_vars", fitted.log_vars)
        if self.learned_weights:
            self.put_variable("params", "cluster_logits", fitted.logits)

    def prior(self, batch: Batch) -> GaussianMixture:
        """Returns p(z), one mixture for all examples; nothing of `batch` is read."""
        log_vars = jnp.zeros_like(self.cluster_means)
        if self.learned_variances:
            log_vars = jnp.clip(self.cluster_log_vars, MIN_LOG_VAR, MAX_LOG_VAR)
        logits = jnp.zeros_like(self.cluster_means[:, 0])
        if self.learned_weights:
            logits = self.cluster_logits
        return GaussianMixture(logits, self.cluster_means, log_vars)

    def cluster_log_probs(self, z: Array) -> Array:
        """Returns [B, K], log q(y|z) for codes z [B, D]."""
        if self.assignment == "responsibilities":
            return self.prior({}).log_responsibilities(z)
        *layers, last = self.classifier
        for layer in layers:
            z = nn.relu(layer(z))
        return jax.nn.log_softmax(last(z))

    def infer(self, batch: Batch, key: Key) -> Inference:
        """Returns one draw z ~ q(z|x) per example; y is averaged over, not drawn.

        Args:
          batch: what `posterior` reads.
          key: one key, or [B] keys, one per example.
        """
        q, p = self.posterior(batch), self.prior(batch)
        z, log_q = q.sample_and_log_prob(keys.per_example(key, batch_size(batch)))
        log_y = self.cluster_log_probs(z)
        per_dim, of_y = self._cost(q, p, z, log_y), _cluster_kl(log_y, p.log_weights)
        kl = jnp.concatenate([per_dim, of_y[:, None]], axis=-1)
        return Inference(z, kl, log_q - p.log_prob(z))

    def _cost(
        self, q: DiagGaussian, p: GaussianMixture, z: Array, log_y: Array
    ) -> Array:
        """Returns [B, D], sum_y q(y|z) of log q(z_d|x) / p(z_d|y), or of its mean.

        The post takes the ratio at the draw that the classifier saw; VaDE takes the
        mean over q(z|x), the KL, as if y had been drawn independently of z.
        """
        if self.assignment == "responsibilities":
            terms = p.kl_per_dim(q)
        else:
            terms = q.log_prob_per_dim(z)[:, None] - p.log_prob_per_dim(z)
        return jnp.einsum("bk,bkd->bd", jnp.exp(log_y), terms, precision="highest")

    def sample_prior(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns n latents [n, D] of the prior, or of the clusters `label`.

        Args:
          key: one key, or [n] keys.
          n: number of latents.
          temperature: factor on the standard deviations of the clusters.
          label: [n] clusters, or one-hots [n, K]; None draws them from p(y).
        """
        p = self.prior({})
        if label is None:
            return p.sample(key, n, temperature)
        component = p.component(as_one_hot(label, self.num_clusters))
        return component.tempered(temperature).sample(key)


def _cluster_kl(log_y: Array, log_weights: Array) -> Array:
    """Returns [B], KL(q(y|z) || p(y)) for log probabilities [B, K] and [K]."""
    probs = jnp.exp(log_y)
    # A cluster of weight 0 has log q = log p = -inf, and costs nothing.
    log_ratio = jnp.where(probs > 0.0, log_y - log_weights[None], 0.0)
    return (probs * log_ratio).sum(-1)


@registry.checked("model.clusters")
def clusters(
    num_clusters: PositiveInt = 10,
    assignment: Assignment = "classifier",
    classifier_hidden: Widths = (256,),
    mean_std: NonNegativeFloat = 0.0,
    learned_variances: bool = False,
    learned_weights: bool = False,
    components: Start = "random",
) -> dict[str, Any]:
    """Returns the checked fields of `ClusterVAE` that `model.clusters` gives.

    Args:
      num_clusters: K.
      assignment: what q(y|z) is: a 'classifier' on z, or the 'responsibilities' of the
        prior's components, p(y|z).
      classifier_hidden: widths of the classifier's hidden layers.
      mean_std: standard deviation of the initial means; 0 starts them all at 0.
      learned_variances: whether clusters have variances of their own, else 1.
      learned_weights: whether p(y) is learned, else 1 / K.
      components: where the prior's components start: 'random' by `mean_std`, or fitted
        to the 'codes' of 5,000 training examples, which `init_from` makes useful.

    Raises:
      ConfigError: an impossible value, or components that start equal and would stay
        equal.
    """
    equal = components == "random" and mean_std == 0.0
    stuck = assignment == "responsibilities" and num_clusters > 1 and equal
    rule = "be positive with responsibilities, as equal components stay equal"
    require(not stuck, "model.clusters.mean_std", rule, mean_std)
    return {
        "num_clusters": num_clusters,
        "assignment": assignment,
        "classifier_hidden": tuple(classifier_hidden),
        "mean_std": mean_std,
        "learned_variances": learned_variances,
        "learned_weights": learned_weights,
        "components": components,
    }


def autoencoder(given: Mapping[str, Any] | None, **parts: Any) -> VAE:
    """Returns the VAE of these parts, one with clusters if their fields are `given`.

    Args:
      given: fields of `clusters`; None for a prior without.
      **parts: attributes of `VAE`.

    Raises:
      ConfigError: an unknown or impossible field, or clusters beside classes or of
        latents that are not Gaussian.
    """
    if given is None:
        return VAE(**parts)
    if not isinstance(parts.get("latent", GaussianLatent()), GaussianLatent):
        raise ConfigError(
            "model.clusters must be None unless model.latent is 'gaussian'",
            fix="Components are Gaussian; set one of them to its default.",
        )
    if parts.get("num_classes") is not None:
        raise ConfigError(
            "model.clusters and model.num_classes cannot both be set",
            fix="Clusters are found without labels; set one of them to None.",
        )
    registry.check(clusters, given, "model.clusters")
    return ClusterVAE(**parts, **clusters(**given))
