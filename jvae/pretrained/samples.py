"""Arrays of images that a model makes: reconstructions and samples.

Images are [B, H, W, C] in the support of the likelihood, on the way in and out, and
means of p(x|z), not draws of it; `Transform.to_unit` turns them into intensities.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jvae import keys
from jvae.distributions import as_distribution
from jvae.errors import require
from jvae.pretrained.inputs import checked_label
from jvae.pretrained.trained_model import TrainedModel
from jvae.runtime.mesh import rows
from jvae.types import Array, Batch, Key

CHUNK = 128
"""Images that are made at once; with more a CPU waits for memory."""


def reconstructions(
    trained: TrainedModel,
    x: Array | np.ndarray,
    key: Key,
    mode: Literal["mean", "sample"] = "mean",
) -> Array:
    """Returns the mean of p(x|z), [B, H, W, C], at a latent code of every image.

    Args:
      trained: the model.
      x: [B, H, W, C].
      key: one key, or [B] keys, of the draws; not used by 'mean'.
      mode: 'mean' takes z as the mean of q(z|x) (its mode, where that is another point,
        as the mean of one-hot or unit vectors is none), 'sample' as a draw of it.

    Raises:
      ConfigError: 'mean' of a model without one posterior.
    """
    require(mode in ("mean", "sample"), "mode", "be 'mean' or 'sample'", mode)
    trained.require(trained.has_latents, "has no code to decode")
    if mode == "mean":
        return decoded(trained, codes(trained, x))
    return trained.run(_redraw, x, keys.per_example(key, len(x)))


def codes(trained: TrainedModel, x: Array | np.ndarray) -> Any:
    """Returns the codes of images: the mode of q(z|x), or else its mean.

    The mode of a Gaussian is its mean. That of one-hot or unit vectors is one of them,
    which their mean, where no decoder was trained, is not. A hierarchy has a code of
    many arrays, its method `code`.

    Args:
      trained: the model.
      x: [B, H, W, C].

    Returns:
      [B, ...], or a pytree of these.

    Raises:
      ConfigError: the model has neither one posterior nor `code`.
    """
    lack, fix = "has no posterior mean to decode", "Use mode 'sample'."
    trained.require(has_codes(trained), lack, fix)
    return trained.run(code_of, x)


def decoded(trained: TrainedModel, z: Any) -> Array:
    """Returns the means of p(x|z), [B, H, W, C], or the likeliest sentences [B, T].

    Args:
      trained: the model.
      z: [B, ...], as `codes` gives them.
    """
    return trained.run(decode_codes, z)


def has_codes(trained: TrainedModel) -> bool:
    """Returns whether the model has posterior means, and so `codes`."""
    model = trained.model
    has_some = model.offers("code") or model.offers("posterior")
    return has_some and model.offers("decode")


def prior_samples(
    trained: TrainedModel,
    key: Key,
    n: int,
    temperature: float = 1.0,
    label: Array | np.ndarray | int | None = None,
    chunk_size: int = CHUNK,
    sampler: Any = None,
) -> np.ndarray:
    """Returns the means of p(x|z) for n draws of the prior, [n, H, W, C].

    Image i is made with key i of the key, whatever the chunk size and the devices.

    Args:
      trained: a model with `generate`.
      key: one key.
      n: how many images.
      temperature: factor on the prior's standard deviations; 0 takes its mean. It
        does not act on a uniform prior.
      label: a class or [n] classes of a conditional model, None takes them in turn; a
        cluster or [n] clusters of a model with clusters, None draws them.
      chunk_size: images made at once.
      sampler: of `jvae.pretrained.samplers`, draws codes in place of the prior; None
        for the prior.

    Raises:
      ConfigError: a number out of range, or labels that are not n classes.
    """
    require(n >= 1, "n", "be at least 1", n)
    require(temperature >= 0.0, "temperature", "be at least 0", temperature)
    require(chunk_size >= 1, "chunk_size", "be at least 1", chunk_size)

    num_classes = trained.model.num_classes
    if label is None and num_classes is not None:
        label = np.arange(n) % num_classes
    if label is not None:
        of_clusters = trained.model.num_clusters
        classes = of_clusters if num_classes is None else num_classes
        label = checked_label(label, n, classes)

    # A multiple of the devices, which then share a chunk; the last one overshoots.
    size = -(-min(chunk_size, n) // trained.mesh.size) * trained.mesh.size

    parts = []
    for start in range(0, n, size):
        index = np.arange(start, start + size) % n
        chunk = {} if label is None else {"label": np.asarray(label)[index]}
        placed = jax.device_put({"index": index, **chunk}, rows(trained.mesh))
        # The same key for every chunk: an image's own is made of its index.
        again = jax.random.clone(key)
        images = trained.run(_generate, again, placed, temperature, sampler)
        parts.append(np.asarray(images))

    return np.concatenate(parts)[:n]


def resample_fine_scales(
    trained: TrainedModel,
    key: Key,
    n: int,
    num: int,
    num_kept: int,
    temperature: float = 1.0,
) -> np.ndarray:
    """Returns samples of a hierarchy and others that share its coarse scales.

    Args:
      trained: a model with `resample`.
      key: of the draws; what is kept of a row is the same whatever `num_kept` is.
      n: rows.
      num: images in a row, the first of which the others are varied from.
      num_kept: how many scales they share, the coarsest; 0 shares nothing.
      temperature: factor on the prior's standard deviations.

    Returns:
      [n, num, H, W, C].

    Raises:
      ConfigError: a model without scales, or a number out of range.
    """
    trained.require(trained.model.offers("resample"), "has no scales to draw again")
    for name, value in (("n", n), ("num", num)):
        require(value >= 1, name, "be at least 1", value)
    scales = len(trained.model.groups)
    require(0 <= num_kept <= scales, "num_kept", f"be within 0 and {scales}", num_kept)
    require(temperature >= 0.0, "temperature", "be at least 0", temperature)
    # A few rows at once; a row's images are its own whatever is beside it.
    rows = max(1, CHUNK // num)
    parts = []
    for i in range(0, n, rows):
        numbers, again = np.arange(i, min(i + rows, n)), jax.random.clone(key)
        rest = (num_kept, temperature)
        parts.append(trained.run(_vary, again, numbers, *rest, num=num))
    return np.concatenate([np.asarray(part) for part in parts])


def code_of(trained: TrainedModel, x: Array) -> Any:
    """Returns the codes of images or sentences, as `codes`; eager, or within a trace.

    Args:
      trained: a model with `code` or `posterior`.
      x: images [B, H, W, C], or sentences.
    """
    batch = trained.model.as_batch(x)
    if trained.model.offers("code"):
        return trained.call("code", batch)
    return as_distribution(trained.call("posterior", batch)).mode


def decode_codes(trained: TrainedModel, z: Any) -> Array:
    """Returns `decoded`; eager, or within a trace."""
    return trained.call("decode", z)


def _redraw(trained: TrainedModel, x: Array, key: Key) -> Array:
    def draw(model, batch, key):
        if model.offers("posterior"):  # not `infer`, whose prior may need a label
            z, _ = as_distribution(model.posterior(batch)).sample_and_log_prob(key)
        else:
            z = model.infer(batch, key).latents
        if model.offers("write"):  # a likelihood of sentences sees the true words
            return model.decode(z)
        return model.likelihood(z, batch).mean

    return trained.call(draw, trained.model.as_batch(x), key)


def _generate(
    trained: TrainedModel, key: Key, chunk: Batch, temperature: Array, sampler: Any
) -> Array:
    each = keys.at_indices(key, chunk["index"])
    if sampler is not None:
        return trained.call("decode", sampler.sample(each, len(each), temperature))
    label = chunk.get("label")
    return trained.call("generate", each, len(each), temperature, label)


def _vary(
    trained: TrainedModel,
    key: Key,
    rows: Array,
    num_kept: Array,
    temperature: Array,
    *,
    num: int,
) -> Array:
    def vary(model, key):
        first_key, other_key = jax.random.split(key)
        each = keys.at_indices(first_key, rows)
        first = model.sample_prior(each, len(rows), temperature)
        repeated = jax.tree.map(lambda a: jnp.repeat(a, num, axis=0), first.z)
        places = (rows[:, None] * num + jnp.arange(num)[None]).reshape(-1)
        # The first of a row keeps all scales.
        of_image = jnp.where(places % num == 0, len(model.groups), num_kept)
        others = keys.at_indices(other_key, places)
        images = model.decode(model.resample(repeated, others, of_image, temperature))
        return images.reshape(len(rows), num, *images.shape[1:])

    return trained.call(vary, key)
