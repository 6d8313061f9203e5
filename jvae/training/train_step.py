"""The training step: one pure function of (state, batch), compiled over a mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jvae import keys, layers
from jvae.losses import num_examples
from jvae.runtime import mesh, xla_options
from jvae.training.optimizers import NormTaking
from jvae.types import (
    Array,
    Aux,
    Batch,
    Key,
    LossFn,
    Metrics,
    Params,
    State,
    batch_size,
)

WINDOW = 100
"""How many gradient norms a spike is compared with."""
QUANTILE = 0.9
"""Which of them, in order of size: after 10 in 100 at a new level it is that level."""


@flax.struct.dataclass
class Guard:
    """What is known about updates that were skipped.

    Attributes:
      skipped: int32, how many so far.
      in_a_row: int32, how many since the last one that was done.
      norms: float32 [WINDOW], the last finite gradient norms, inf where there are not
        so many yet; None if spikes are not looked for.
    """

    skipped: Array
    in_a_row: Array
    norms: Array | None

    @classmethod
    def new(cls, spike_factor: float | None = None) -> Guard:
        """Returns the guard of a run that has skipped nothing."""
        zero = jnp.zeros((), jnp.int32)
        none = spike_factor is None
        return cls(zero, zero, None if none else jnp.full(WINDOW, jnp.inf, jnp.float32))


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, and all that a run needs to go on.

    Attributes:
      step: int32, updates done or skipped.
      params: the model's parameters.
      opt_state: the optimizer's state.
      state: the model's other collections, {} if it has none.
      ema: exponential moving average of `params`, None if none is kept.
      guard: what was skipped.
    """

    step: Array
    params: Params
    opt_state: Any
    state: State
    ema: Params | None
    guard: Guard


PrepareFn = Callable[[Batch, Key], Batch]
StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def initializer(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    example: Batch,
    ema_decay: float = 0.0,
    spike_factor: float | None = None,
) -> Callable[[Key], TrainState]:
    """Returns key -> the state at step 0, a pure function.

    Args:
      model: the model to initialise.
      optimizer: whose state starts at zero.
      example: shapes and dtypes of a prepared batch.
      ema_decay: 0 if no average of the parameters is kept.
      spike_factor: None if no gradient norms are kept.
    """

    def create(key):
        init_key, draw_key = jax.random.split(key)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), example)
        variables = dict(model.init(init_key, zeros, draw_key))
        params = variables.pop("params")
        ema = jax.tree.map(jnp.copy, params) if ema_decay else None
        step = jnp.zeros((), jnp.int32)
        opt_state, guard = optimizer.init(params), Guard.new(spike_factor)
        return TrainState(step, params, opt_state, variables, ema, guard)

    return create


def abstract_state(create: Callable[[Key], TrainState], devices: Mesh) -> TrainState:
    """Returns the state's shapes, dtypes and places, with no array in memory.

    The place of an array depends on its shape alone, so Adam's moments lie where
    their parameters do; left to itself jit would put them all on one device.
    """
    return mesh.placed_shapes(jax.eval_shape(create, jax.random.key(0)), devices)


def create_state(
    create: Callable[[Key], TrainState], key: Key, devices: Mesh
) -> TrainState:
    """Returns the state at step 0, created where it will live."""
    places = jax.tree.map(lambda s: s.sharding, abstract_state(create, devices))
    options = xla_options.for_one_run(mesh.platform(devices))
    return jax.jit(create, out_shardings=places, compiler_options=options)(key)


def make_train_step(
    loss: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    prepare: PrepareFn,
    run_key: Key,
    coefficients: Callable[[Array], Mapping[str, Array]] = lambda step: {},
    ema_decay: float = 0.0,
    accumulate_steps: int = 1,
    max_skips: int = 20,
    spike_factor: float | None = None,
    devices: Mesh | None = None,
) -> StepFn:
    """Returns train_step(state, batch) -> (state, metrics), a pure function.

    The step's randomness is `fold_in(run_key, state.step)`, so a run repeats itself
    from any saved state.

    An update whose loss or gradient is not finite is skipped: parameters, optimizer
    state, average and collections stay as they are, bit for bit, and the guard counts
    it. So is a spike, a gradient norm over `spike_factor` times the 0.9-quantile of the
    last 100; as spikes enter those 100, norms at a new level are soon ordinary ones.
    After `max_skips` in a row nothing is updated any more, and the run is to end.

    Args:
      loss: what is minimised.
      optimizer: the update rule.
      prepare: (raw batch, key) -> batch in the support of the likelihood.
      run_key: the run's key.
      coefficients: step -> the annealed coefficients of the loss.
      ema_decay: decay of the parameters' moving average, 0 for none; smaller in the
        first steps, min(ema_decay, (1 + step) / (10 + step)).
      accumulate_steps: micro-batches per update, whose gradients are averaged.
      max_skips: updates skipped in a row after which all are.
      spike_factor: how far over the usual a gradient norm may be; None for any.
      devices: over which parameters are split, and so are gradients as soon as they are
        summed; None for whole ones.

    Returns:
      The step; its metrics are those of the loss, 'gradient_norm', 'skipped_updates'
      and 'skipped_in_a_row'.
    """
    gradients = gradient_fn(loss, accumulate_steps)

    def updated(state, grads, norm, collections):
        known = {"norm": norm} if isinstance(optimizer, NormTaking) else {}
        arguments = (grads, state.opt_state, state.params)
        updates, opt_state = optimizer.update(*arguments, **known)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            # A young average looks back a ninth of its age, or the first, useless
            # parameters would stay in it for 1 / (1 - decay) steps.
            step = state.step.astype(jnp.float32)
            weight = jnp.maximum(1.0 - ema_decay, 9.0 / (10.0 + step))
            ema = optax.incremental_update(params, ema, weight)
        return params, opt_state, collections, ema

    def unchanged(state, grads, norm, collections):
        return state.params, state.opt_state, state.state, state.ema

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(run_key, state.step)
        data_key, draw_key = jax.random.split(step_key)
        batch = prepare(batch, data_key)
        arguments = (state.params, state.state, draw_key, batch)
        (value, aux), grads = gradients(*arguments, coefficients(state.step))

        if devices is not None:
            grads = mesh.split(grads, devices)
        norm = _global_norm(grads)
        is_good = jnp.isfinite(value) & _is_usual(norm, state.guard, spike_factor)
        is_good &= state.guard.in_a_row < max_skips
        guard = _counted(state.guard, state.step, norm, is_good)

        new = jax.lax.cond(is_good, updated, unchanged, state, grads, norm, aux.state)
        params, opt_state, collections, ema = new
        metrics = {
            **aux.metrics,
            "gradient_norm": norm,
            "skipped_updates": guard.skipped,
            "skipped_in_a_row": guard.in_a_row,
        }
        step = state.step + 1
        return TrainState(step, params, opt_state, collections, ema, guard), metrics

    return train_step


def with_gathered_variables(loss: LossFn, devices: Mesh) -> LossFn:
    """Returns the loss at variables that every device has put together for the step.

    The new collections are whole too: XLA would else find their split in the layers
    that they are the statistics of.

    Args:
      loss: takes parameters and collections first.
      devices: the mesh.
    """

    def at_whole(params, collections, *arguments):
        whole = mesh.all_gathered((params, collections), devices)
        value, aux = loss(*whole, *arguments)
        return value, Aux(aux.metrics, mesh.all_gathered(aux.state, devices))

    return at_whole


def gradient_fn(loss: LossFn, accumulate_steps: int) -> Callable[..., Any]:
    """Returns ((loss, aux), gradient) as a function of the arguments of `loss`.

    Args:
      loss: what is differentiated by its first argument.
      accumulate_steps: parts of the batch, one after the other; losses, metrics and
        gradients are averaged, weighted by the rows that count, collections handed on.
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    if accumulate_steps == 1:
        return value_and_grad

    def rows(a):
        """Returns [B, ...] as [B / steps, steps, ...], so that shards stay equal."""
        return a.reshape(-1, accumulate_steps, *a.shape[1:])

    def accumulated(params, collections, key, batch, coefficients):
        each = keys.swapped(rows(keys.per_example(key, batch_size(batch))))
        micro = each, jax.tree.map(lambda a: rows(a).swapaxes(0, 1), dict(batch))

        def body(carry, micro_batch):
            (value, aux), grads = value_and_grad(
                params, carry, *micro_batch, coefficients
            )
            return aux.state, (value, grads, aux.metrics)

        collections, parts = layers.scan(body, collections, micro)
        sizes = jax.vmap(num_examples)(micro[1]) if "mask" in batch else None
        value, grads, metrics = jax.tree.map(lambda a: _mean_of_parts(a, sizes), parts)
        return (value, Aux(metrics, collections)), grads

    return accumulated


def _mean_of_parts(parts: Array, sizes: Array | None) -> Array:
    """Returns the mean of [N, ...], weighted by [N] sizes, None for equal ones."""
    if sizes is None:
        return parts.mean(0)
    if not jnp.issubdtype(parts.dtype, jnp.inexact):  # a metric that is a count
        parts = parts.astype(jnp.float32)
    weights = (sizes / jnp.maximum(sizes.sum(), 1)).astype(parts.dtype)
    weights = weights.reshape(-1, *(1,) * (parts.ndim - 1))
    # What couples examples may be nan where there is none.
    return jnp.where(weights > 0, weights * parts, 0).sum(0)


def _is_usual(norm: Array, guard: Guard, spike_factor: float | None) -> Array:
    """Returns whether a gradient norm is finite and no spike."""
    if guard.norms is None or spike_factor is None:
        return jnp.isfinite(norm)
    usual = jnp.sort(guard.norms)[int(QUANTILE * WINDOW)]
    return jnp.isfinite(norm) & (norm <= spike_factor * usual)


def _counted(guard: Guard, step: Array, norm: Array, is_good: Array) -> Guard:
    """Returns the guard after an update that was done (`is_good`) or skipped."""
    norms = guard.norms
    if norms is not None:
        place = step % WINDOW
        newest = jnp.where(jnp.isfinite(norm), norm, norms[place])
        norms = norms.at[place].set(newest)
    skip = 1 - is_good.astype(jnp.int32)
    return Guard(guard.skipped + skip, (guard.in_a_row + 1) * skip, norms)


def _global_norm(tree: Any) -> Array:
    """Returns the global Euclidean norm.

    As dot products, which XLA:CPU vectorises better than a sum of squares.
    """
    squares = [jnp.vdot(x, x, precision="highest") for x in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))


def compile_train_step(
    train_step: StepFn, state: TrainState, devices: Mesh, *, steps_per_dispatch: int = 1
) -> Any:
    """Returns the jitted step over the mesh; it consumes (donates) the state.

    Args:
      train_step: from `make_train_step`.
      state: gives the shapes; not consumed here.
      devices: the mesh.
      steps_per_dispatch: if n > 1, batches are stacked [n, B, ...], the function does
        n steps, and metrics are stacked [n].
    """
    state_shardings = mesh.parameter_shardings(state, devices)
    batches = mesh.rows(devices, leading=0 if steps_per_dispatch == 1 else 1)

    def steps(state, batches):
        if steps_per_dispatch == 1:
            return train_step(state, batches)
        return layers.scan(train_step, state, batches)

    return jax.jit(
        steps,
        donate_argnums=0,
        in_shardings=(state_shardings, batches),
        out_shardings=(state_shardings, mesh.replicated(devices)),
        compiler_options=xla_options.for_repeated_runs(mesh.platform(devices)),
    )
