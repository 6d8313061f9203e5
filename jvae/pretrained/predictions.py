"""What a trained model says of an example: p(y|x) of a classifier, its cluster."""

from __future__ import annotations

import jax

from jvae.pretrained.trained_model import TrainedModel
from jvae.types import Array, Batch, Key


def label_probs(trained: TrainedModel, batch: Batch, keys: Key | None = None) -> Array:
    """Returns [B, K], p(y|z) at the code of each image, or averaged over draws of it.

    Args:
      trained: a classifier: `posterior` or `code`, `infer`, and `likelihood` over
        labels.
      batch: what the model reads, prepared.
      keys: [M, B], of M draws of z for each example; None for its mean.
    """

    def at_code(model, batch):
        has_noise = model.offers("posterior")
        z = model.posterior(batch).mean if has_noise else model.code(batch)
        return model.likelihood(z, batch).logits

    def at_draw(model, batch, key):
        return model.likelihood(model.infer(batch, key).latents, batch).logits

    if keys is None:
        return jax.nn.softmax(trained.call(at_code, batch))

    def draw(key):
        return jax.nn.softmax(trained.call(at_draw, batch, key))

    return jax.lax.map(draw, keys).mean(0)


def has_clusters(trained: TrainedModel) -> bool:
    """Returns whether the model assigns codes to clusters."""
    return trained.model.offers("cluster_log_probs")


def clusters_of(trained: TrainedModel, batch: Batch) -> Array:
    """Returns [B], argmax q(y|z) at z = E q(z|x).

    Args:
      trained: a model with `posterior` and `cluster_log_probs`.
      batch: what the model reads, prepared.
    """

    def assign(model, batch):
        return model.cluster_log_probs(model.posterior(batch).mean).argmax(-1)

    return trained.call(assign, batch)
