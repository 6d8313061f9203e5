"""A run from beginning to end: go on from what is saved, train, evaluate, save."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

import jvae
from jvae.runtime import distributed
from jvae.runtime.preemption import StopSignal
from jvae.training import assembly, batches, loop, validation
from jvae.training import config as configs
from jvae.training.identity import check_agreement, check_same_run, with_rule
from jvae.workdir.run_folder import check_name, opened, read_saved_config


@distributed.device_errors()
def run(
    config: Mapping[str, Any], workdir: epath.PathLike, stop: StopSignal | None = None
) -> None:
    """Trains an experiment in a workdir, from where it stopped if it was begun.

    Args:
      config: the sections and fields of `jvae.training.config.Experiment`.
      workdir: the run's folder; a bucket will do.
      stop: that of the caller, who listens to signals already; None to listen here.

    Raises:
      ConfigError: a config that cannot be right, or is another in another process.
      DataError: a data set that is missing or damaged.
      WorkdirError: a folder that cannot be used, holds another run, or could not be
        written at the end.
      DivergedError: too many updates in a row were skipped.
      DeviceError: devices or processes are missing or gone, or out of memory.
      StoppedError: SIGTERM, Ctrl-C or a notice has stopped it, and it is saved.
    """
    check_name(workdir)
    distributed.check_devices()
    experiment = distributed.together(lambda: configs.parse_experiment(config))
    stored = distributed.from_first(lambda: read_saved_config(workdir))
    experiment = configs.parse_experiment(with_rule(experiment.to_dict(), stored))
    check_agreement({**_code(), **experiment.to_dict()})
    with StopSignal() if stop is None else contextlib.nullcontext(stop) as stop:
        components = distributed.together(lambda: assembly.assemble(experiment))
        check_agreement({"data set": components.data_digest})
        with (
            opened(workdir, experiment.to_dict(), check_same_run) as folder,
            loop.TrainingRun(components, folder, stop) as run_,
            distributed.device_errors(),
        ):
            run_.train()


def _code() -> dict[str, str]:
    """Returns what else decides the draws and the programs of a process."""
    jax_config: Any = jax.config
    return {
        "jvae": jvae.__version__,
        "jax": jax.__version__,
        "floats": str(jnp.result_type(float)),  # other ones with JAX_ENABLE_X64
        "jax_threefry_partitionable": str(jax_config.jax_threefry_partitionable),
        "jax_default_prng_impl": jax_config.jax_default_prng_impl,
        "jax_disable_jit": str(jax_config.jax_disable_jit),
    }


@distributed.device_errors()
def dry_run(config: Mapping[str, Any]) -> dict[str, float]:
    """Builds, compiles, does two steps and an evaluation; prints what a run costs.

    Writes nothing.

    Returns:
      'parameters', 'bytes' of state and temporaries on a device, 'examples_per_second',
      'elbo' of 64 examples after two steps ('loss', where there is no ELBO).

    Raises:
      ConfigError, DataError: as `run` would.
    """
    experiment = configs.parse_experiment(config)
    distributed.check_devices()
    components = assembly.assemble(experiment)

    state = components.create_state()
    size = sum(x.size for x in jax.tree.leaves(state.params))
    # Others of sentences may be wider.
    batch = next(batches.training_batches(components, 0))

    compiled = components.compile_step(state).lower(state, batch).compile()
    memory = compiled.memory_analysis()
    state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    began = time.monotonic()
    state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    seconds = time.monotonic() - began

    trained = loop.trained_model_of(components, state)
    few = min(64, len(components.splits.test))
    scores = validation.validate(components, trained, components.splits.test, few)
    images = experiment.data["batch_size"] * experiment.steps_per_dispatch

    costs = {
        "parameters": size,
        "bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "examples_per_second": images / seconds,
        scores.measure: scores.numbers[scores.measure],
    }

    print(
        f"parameters {size:,}; memory per device {costs['bytes'] / 2**20:,.0f} MiB; "
        f"{costs['examples_per_second']:,.0f} examples/s in one step; "
        f"{scores.measure} of {few} test examples after 2 dispatches "
        f"{costs[scores.measure]:,.1f} nats"
    )
    return costs
