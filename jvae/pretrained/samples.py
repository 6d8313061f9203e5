"""Arrays of images that a model makes: reconstructions, samples, walks between them.

Images are [B, H, W, C] in the support of the likelihood, on the way in and out, and
means of p(x|z), not draws of it; `Transform.to_unit` turns them into intensities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jvae import keys
from jvae.distributions import arc, as_distribution
from jvae.errors import ConfigError, require
from jvae.losses.objective import apply_model
from jvae.pretrained.trained_model import TrainedModel
from jvae.runtime.mesh import rows
from jvae.types import Array, Key, Params, State

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
    if not trained.has_latents:
        raise ConfigError(f"{type(trained.model).__name__} has no code to decode")
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
    if not has_codes(trained):
        raise ConfigError(
            f"{type(trained.model).__name__} has no posterior mean to decode",
            fix="Use mode 'sample'.",
        )
    return trained.run(code_of, x)


def decoded(trained: TrainedModel, z: Any) -> Array:
    """Returns the means of p(x|z), [B, H, W, C], or the likeliest sentences [B, T].

    Args:
      trained: the model.
      z: [B, ...], as `codes` gives them.
    """
    return trained.run(_decode_codes, z)


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
        images = trained.run(_generate, key, placed, temperature, sampler)
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
    if not trained.model.offers("resample"):
        raise ConfigError(f"{type(trained.model).__name__} has no scales to draw again")
    for name, value in (("n", n), ("num", num)):
        require(value >= 1, name, "be at least 1", value)
    scales = len(trained.model.groups)
    require(0 <= num_kept <= scales, "num_kept", f"be within 0 and {scales}", num_kept)
    require(temperature >= 0.0, "temperature", "be at least 0", temperature)
    # A few rows at once; a row's images are its own whatever is beside it.
    rows = max(1, CHUNK // num)
    parts = [
        trained.run(
            _vary, key, np.arange(i, min(i + rows, n)), num_kept, temperature, num=num
        )
        for i in range(0, n, rows)
    ]
    return np.concatenate([np.asarray(part) for part in parts])


def checked_label(label: Any, n: int, classes: int | None) -> np.ndarray:
    """Returns [n] classes, or their one-hots [n, K], for a model with K classes.

    Args:
      label: one class, [n] classes or [n, K] one-hots.
      n: how many.
      classes: K, None of a model without.

    Raises:
      ConfigError: a model without classes, another number of labels, or a label that
        is no class; out of its range a one-hot would be zero, without a word.
    """
    if classes is None:
        raise ConfigError(
            f"label must be None for a model without classes, got {label}"
        )
    array = np.asarray(label)
    if array.ndim == 0:
        array = np.broadcast_to(array, (n,))
    shapes = ((n,), (n, classes))
    if array.shape not in shapes:
        raise ConfigError(f"label must hold {n} classes, got shape {list(array.shape)}")
    whole = np.issubdtype(array.dtype, np.integer)
    if array.ndim == 1 and not (whole and np.all((array >= 0) & (array < classes))):
        raise ConfigError(
            f"label must hold integers in 0..{classes - 1}, got {array.tolist()[:10]}"
        )
    return array


def interpolate(
    trained: TrainedModel,
    a: Array | np.ndarray,
    b: Array | np.ndarray,
    num: int,
    spherical: bool = False,
) -> Array:
    """Returns decoded points on the paths between the codes of a and b, [B, num, ...].

    A path is the model's `interpolate(start, end, fraction)`, or else the straight
    line; if `spherical` the arc of `jvae.distributions.arc`, which stays as far from 0
    as codes are.

    The first and last of each row are the reconstructions of a and b.

    Args:
      trained: the model.
      a: [B, H, W, C].
      b: [B, H, W, C].
      num: points on a line, at least 2.
      spherical: whether to go along an arc; codes must be vectors.

    Raises:
      ConfigError: a and b differ in shape, num < 2, the model has no posterior, or arcs
        are asked for of codes that are no vectors.
    """
    require(num >= 2, "num", "be at least 2", num)
    if a.shape != b.shape:
        raise ConfigError(
            f"a and b must have one shape, got {list(a.shape)} and {list(b.shape)}"
        )
    start, end = codes(trained, a), codes(trained, b)
    is_vector = isinstance(start, jax.Array) and start.ndim == 2
    if spherical and not is_vector:
        raise ConfigError(f"the codes of {type(trained.model).__name__} have no arcs")
    return trained.run(_decode_lines, start, end, num=num, spherical=spherical)


def interpolation_grid(trained: TrainedModel, x: Array | np.ndarray, num: int) -> Array:
    """Returns decoded points between the codes of four images, [num, num, ...].

    First along the paths from x[0] to x[1] and from x[2] to x[3], then from those to
    these: x[0] is at the top left, x[1] at the top right.

    Args:
      trained: the model.
      x: [4, H, W, C].
      num: points on a side, at least 2.

    Raises:
      ConfigError: x holds another number of images, num < 2, or the model has no
        posterior.
    """
    require(num >= 2, "num", "be at least 2", num)
    require(len(x) == 4, "x", "hold 4 images", len(x))
    z = codes(trained, x)
    left, right = (jax.tree.map(lambda a, i=i: a[i::2], z) for i in (0, 1))
    sides = trained.run(_paths, left, right, num=num)
    top, bottom = (jax.tree.map(lambda a, i=i: a[i], sides) for i in (0, 1))
    columns = trained.run(_decode_lines, top, bottom, num=num)
    return columns.swapaxes(0, 1)


def traversals(
    trained: TrainedModel,
    x: Array | np.ndarray,
    dims: Sequence[int],
    num: int,
    reach: float,
) -> Array:
    """Returns images along single dimensions, [B, len(dims), num, H, W, C].

    Of codes that are vectors whose dimensions move alone, unlike those of a sphere.

    Everything but one dimension of the code of x stays; that one goes from -reach to
    reach, standard deviations of a prior N(0, I). `by_kl` gives an order worth looking
    at.

    Args:
      trained: the model.
      x: [B, H, W, C].
      dims: the latent dimensions.
      num: steps, at least 2.
      reach: how far, above 0.

    Raises:
      ConfigError: a number out of range, or the model's codes are no vectors.
    """
    require(num >= 2, "num", "be at least 2", num)
    require(reach > 0.0, "reach", "be positive", reach)
    z = codes(trained, x)
    if trained.model.offers("code"):
        name = type(trained.model).__name__
        raise ConfigError(f"{name} has no single dimensions to move along")
    known = all(0 <= d < z.shape[-1] for d in dims)
    require(known, "dims", f"be in 0..{z.shape[-1] - 1}", list(dims))
    values = jnp.linspace(-reach, reach, num)
    return trained.run(_decode_axes, z, jnp.asarray(dims), values)


def by_kl(kl: np.ndarray, n: int) -> list[int]:
    """Returns the `n` dimensions with the largest KL, largest first; kl is [D]."""
    return [int(d) for d in np.argsort(-np.asarray(kl), kind="stable")[:n]]


def _call(model: Any, params, state, method, *args: Any) -> Any:
    return apply_model(model, method, params, state, *args, train=False)[0]


def code_of(model: Any, params: Params, state: State, x: Array) -> Any:
    """Returns the codes of images or sentences, as `codes`: the array-level function.

    Args:
      model: has `code` or `posterior`.
      params: its parameters.
      state: its other collections.
      x: images [B, H, W, C], or sentences.
    """

    def code(model, x):
        if model.offers("code"):
            return model.code(model.as_batch(x))
        q = model.posterior(model.as_batch(x))
        return as_distribution(q).mode

    return _call(model, params, state, code, x)


def _decode_codes(model, params, state, z):
    return _call(model, params, state, lambda m, z: m.decode(z), z)


def _redraw(model, params, state, x, key):
    def draw(model, batch, key):
        if model.offers("posterior"):  # not `infer`, whose prior may need a label
            z, _ = model.posterior(batch).sample_and_log_prob(key)
        else:
            z = model.infer(batch, key).latents
        if model.offers("write"):  # a likelihood of sentences sees the true words
            return model.decode(z)
        return model.likelihood(z, batch).mean

    return _call(model, params, state, draw, model.as_batch(x), key)


def _generate(model, params, state, key, chunk, temperature, sampler):
    def draw(model, each, label):
        if sampler is not None:
            return model.decode(sampler.sample(each, len(each), temperature))
        return model.generate(each, len(each), temperature, label)

    each = keys.at_indices(key, chunk["index"])
    return _call(model, params, state, draw, each, chunk.get("label"))


def _vary(model, params, state, key, rows, num_kept, temperature, *, num):
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

    return _call(model, params, state, vary, key)


def _decode_all(model, params, state, z, num_axes):
    """Returns the images [..., H, W, C] of codes with `num_axes` axes before a code."""
    axes = jax.tree.leaves(z)[0].shape[:num_axes]
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[num_axes:]), z)
    images = _decode_codes(model, params, state, flat)
    return images.reshape(*axes, *images.shape[1:])


def _paths(model, params, state, start, end, *, num, spherical=False):
    """Returns the points [B, num, *event] between codes [B, *event]."""

    def between(model, start, end, t):
        if spherical:
            return arc(start, end, t)
        return model.interpolate(start, end, t)

    inner = jax.tree.leaves(start)[0].ndim - 1
    t = jnp.linspace(0.0, 1.0, num).reshape(1, num, *(1,) * inner)
    ends = jax.tree.map(lambda a: a[:, None], (start, end))
    return _call(model, params, state, between, *ends, t)


def _decode_lines(model, params, state, start, end, *, num, spherical=False):
    points = _paths(model, params, state, start, end, num=num, spherical=spherical)
    return _decode_all(model, params, state, points, 2)


def _decode_axes(model, params, state, z, dims, values):
    is_moved = jax.nn.one_hot(dims, z.shape[-1], dtype=bool)
    shape = (z.shape[0], len(dims), len(values), z.shape[-1])
    moved = jnp.broadcast_to(values.reshape(1, 1, -1, 1), shape)
    base = jnp.broadcast_to(z[:, None, None], shape)
    points = jnp.where(is_moved[None, :, None], moved, base)
    return _decode_all(model, params, state, points, 3)
