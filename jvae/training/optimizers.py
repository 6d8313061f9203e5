"""Optimizers by name from optax, with the usual things around them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from jvae import registry
from jvae.errors import require
from jvae.ranges import (
    Fraction,
    Ge,
    Le,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Schedule = Callable[[Any], Any]


def adam(b1: float, b2: float, eps: float, momentum: float):
    """Returns Adam's scaling (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980)."""
    return optax.scale_by_adam(b1, b2, eps)


def adamax(b1: float, b2: float, eps: float, momentum: float):
    """Returns Adamax's scaling, Adam with the infinity norm."""
    return optax.scale_by_adamax(b1, b2, eps)


def rmsprop(b1: float, b2: float, eps: float, momentum: float):
    """Returns RMSProp's scaling, `b2` the decay of its second moment."""
    return optax.chain(optax.scale_by_rms(b2, eps), sgd(b1, b2, eps, momentum))


def sgd(b1: float, b2: float, eps: float, momentum: float):
    """Returns plain momentum, none if it is 0."""
    return optax.trace(momentum) if momentum else optax.identity()


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "adamw": adam,
    "adamax": adamax,
    "rmsprop": rmsprop,
    "sgd": sgd,
}


def rate_schedule(
    peak: float,
    num_steps: int,
    schedule: str = "constant",
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    final_fraction: float = 0.0,
) -> Schedule:
    """Returns step -> learning rate; the arguments are those of `build`."""
    end = peak * final_fraction
    length = max((decay_steps or num_steps) - warmup_steps, 1)
    after: Schedule
    if schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, length, alpha=final_fraction)
    elif schedule == "exponential":
        fraction = max(final_fraction, 1e-8)
        after = optax.exponential_decay(peak, length, fraction, end_value=end or None)
    else:
        after = optax.constant_schedule(peak)
    if warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


_NO_KERNEL = re.compile("bias|scale|shift|theta|log_.*|cluster_.*")


def is_kernel(params: Any) -> Any:
    """Returns True for the leaves that weight decay acts on: kernels, not biases.

    By name as well as by shape: the biases and scales of stacked layers are matrices.
    """

    def of_leaf(path: Any, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim >= 2 and not _NO_KERNEL.fullmatch(name)

    return jax.tree_util.tree_map_with_path(of_leaf, params)


class NormTaking(optax.GradientTransformationExtraArgs):
    """An optimizer whose `update` may be given the norm of its argument, as `norm`.

    The training step has computed it, for its guard and its metrics. A rule that is
    wrapped around one is of another class, and is given none.
    """


def clip_by_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Returns `optax.clip_by_global_norm`, whose `update` may be given the norm."""

    def update(updates, state, params=None, *, norm=None, **extra):
        norm = optax.tree.norm(updates) if norm is None else norm
        factor = jnp.where(norm < max_norm, 1.0, max_norm / norm)
        return jax.tree.map(lambda g: (factor * g).astype(g.dtype), updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def lagging(
    rule: optax.GradientTransformation, every: int, until: int | None
) -> optax.GradientTransformation:
    """Returns `rule`, by which the decoder is updated at every `every`-th step only.

    The encoder so stays close to the true posterior of a decoder that has hardly moved,
    and is used before the decoder learns to do without it. He et al., 2019,
    https://arxiv.org/abs/1901.05534, repeat encoder updates until they no longer help;
    here their number is fixed.

    Args:
      rule: an update rule without a learning rate.
      every: how many encoder updates there are for one of the decoder.
      until: the step from which on both are always updated; None for never.
    """

    def due(step):
        turn = step % every == every - 1
        return turn if until is None else turn | (step >= until)

    def labels(params):
        rule = "be 1 for a model without a decoder"
        require("decoder" in params, "optimizer.decoder_every", rule, every)
        return {k: "decoder" if k == "decoder" else "others" for k in params}

    rules = {"decoder": optax.conditionally_mask(rule, due), "others": rule}
    return optax.partition(rules, labels)


@registry.checked("optimizer")
def build(
    name: Literal["adam", "adamw", "adamax", "rmsprop", "sgd"] = "adam",
    *,
    num_steps: PositiveInt,
    learning_rate: PositiveFloat = 1e-3,
    schedule: Literal["constant", "cosine", "exponential"] = "constant",
    warmup_steps: NonNegativeInt = 0,
    decay_steps: PositiveInt | None = None,
    final_fraction: Annotated[float, Ge(0), Le(1)] = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
    decayed: Literal["kernels", "all"] = "kernels",
    clip_norm: PositiveFloat | None = None,
    b1: Fraction = 0.9,
    b2: Fraction = 0.999,
    eps: PositiveFloat = 1e-8,
    momentum: Fraction = 0.0,
    decoder_every: PositiveInt = 1,
    decoder_every_until: NonNegativeInt | None = None,
) -> tuple[NormTaking, Schedule]:
    """Returns (optimizer, step -> learning rate).

    Args:
      name: the update rule.
      num_steps: steps of the whole run; the trainer passes it.
      learning_rate: the peak learning rate.
      schedule: what follows the warm-up: 'constant', 'cosine' or 'exponential' decay.
      warmup_steps: steps of the linear rise from 0 to the peak.
      decay_steps: step at which the decay ends; None for num_steps, so that a longer
        run decays more slowly.
      final_fraction: the learning rate at the end as a fraction of the peak.
      weight_decay: factor on parameters; decoupled for adamw, added to the gradient for
        the others.
      decayed: which parameters decay, 'kernels', never biases and scales, or 'all'.
      clip_norm: largest global norm of the gradient; None for no clipping.
      b1: decay of the first moment (adam, adamw, adamax).
      b2: decay of the second moment (adam, adamw, adamax, rmsprop).
      eps: added to the denominator (adam, adamw, adamax, rmsprop).
      momentum: of rmsprop and sgd.
      decoder_every: updates of the encoder for one of the decoder; more than 1 for a
        decoder that lags behind, against collapse.
      decoder_every_until: step from which on both are always updated; None for never.

    Raises:
      ConfigError: an unknown name or field, a value out of range.
    """
    rate = rate_schedule(
        learning_rate, num_steps, schedule, warmup_steps, decay_steps, final_fraction
    )
    scale = registry.resolve(OPTIMIZERS, name, "optimizer")(b1, b2, eps, momentum)
    mask = is_kernel if decayed == "kernels" else None
    decay = optax.add_decayed_weights(weight_decay, mask=mask)
    parts = [clip_by_norm(clip_norm)] if clip_norm is not None else []
    # Decoupled decay follows the scaling, ordinary decay is part of the gradient.
    if weight_decay > 0.0:
        scale = optax.chain(*([scale, decay] if name == "adamw" else [decay, scale]))
    if decoder_every > 1:
        scale = lagging(scale, decoder_every, decoder_every_until)
    rule = optax.chain(*parts, scale, optax.scale_by_learning_rate(rate))
    return NormTaking(rule.init, optax.with_extra_args_support(rule).update), rate
