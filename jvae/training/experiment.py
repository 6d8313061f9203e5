"""A run from beginning to end: go on from what is saved, train, evaluate, save."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from jvae import registry
from jvae.data import datasets
from jvae.evaluation.features import load_or_fit
from jvae.evaluation.settings import Settings
from jvae.pretrained import restore
from jvae.reports import report
from jvae.runtime import distributed
from jvae.runtime.preemption import Stop
from jvae.training import assembly, batches, components, loop, validation
from jvae.training import config as configs
from jvae.workdir.metrics import read_metrics
from jvae.workdir.run_folder import opened


@distributed.device_errors()
def run(
    config: Mapping[str, Any], workdir: epath.PathLike, stop: Stop | None = None
) -> None:
    """Trains an experiment in a workdir, from where it stopped if it was begun.

    Args:
      config: the sections and fields of `jvae.training.config.Experiment`.
      workdir: the run's folder; a bucket will do.
      stop: that of the caller, who listens to signals already; None to listen here.

    Raises:
      ConfigError: a config that cannot be right.
      DataError: a data set that is missing or damaged.
      WorkdirError: a folder that cannot be used, holds another run, or could not be
        written at the end.
      DivergedError: too many updates in a row were skipped.
      DeviceError: devices or processes are missing or gone, or out of memory.
      StoppedError: SIGTERM, Ctrl-C or a notice has stopped it, and it is saved.
    """
    experiment = configs.read(config)
    distributed.check_devices()
    with Stop() if stop is None else contextlib.nullcontext(stop) as stop:
        built = assembly.assemble(experiment)
        with (
            opened(workdir, experiment.to_dict()) as root,
            loop.Run(built, root, stop) as run_,
            distributed.device_errors(),
        ):
            run_.train()


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
    experiment = configs.read(config)
    distributed.check_devices()
    return _costs(assembly.assemble(experiment))


def _costs(built: components.Parts) -> dict[str, float]:
    state = assembly.create_state(built)
    size = sum(x.size for x in jax.tree.leaves(state.params))
    batch = next(batches.training_batches(built, 0))  # others of sentences may be wider
    compiled = assembly.compile_step(built, state).lower(state, batch).compile()
    memory = compiled.memory_analysis()
    state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    began = time.monotonic()
    state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    seconds = time.monotonic() - began
    subject = loop.subject_of(built, state)
    few = min(64, len(built.splits.test))
    found = validation.validate(built, subject, built.splits.test, few)
    images = built.experiment.data["batch_size"] * built.experiment.steps_per_dispatch
    costs = {
        "parameters": size,
        "bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "examples_per_second": images / seconds,
        found.measure: found.numbers[found.measure],
    }
    print(
        f"parameters {size:,}; memory per device {costs['bytes'] / 2**20:,.0f} MiB; "
        f"{costs['examples_per_second']:,.0f} examples/s in one step; "
        f"{found.measure} of {few} test images after 2 dispatches "
        f"{found.numbers[found.measure]:,.1f} nats"
    )
    return costs


def _with_error(row: Mapping[str, Any]) -> str:
    """Returns '-22.48 +- 0.31', a number and its standard error if it has one."""
    value, error = row["value"], row["standard_error"]
    if value is None:
        return "not finite"
    return f"{value:.5g}" + ("" if error is None else f" +- {error:.2g}")


@distributed.device_errors()
def evaluate(
    workdir: epath.PathLike,
    *,
    step: int | str = "best",
    params: str = "ema",
    split: str = "test",
    out: str | None = None,
    data_fields: Mapping[str, Any] | None = None,
    allow_imports: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluates a run from its workdir alone: results.json, pictures, report.html.

    Args:
      workdir: the run's folder; only read, but for the results.
      step: 'best', 'last' or the number of a checkpoint.
      params: 'ema' or 'raw'.
      split: 'test', 'validation' or 'train'.
      out: folder for the results; None for WORKDIR/evaluation/SPLIT_STEP.
      data_fields: fields of the data set that are different here, such as its path.
      allow_imports: whether the modules that its config names may be imported, which
        runs their code.
      **settings: fields of `jvae.evaluation.settings.Settings`.

    Returns:
      What results.json holds.

    Raises:
      ConfigError: an unknown field or split, or an import that is not allowed.
      DataError: the data set is missing, or has no such split.
      WorkdirError: there is no such run or checkpoint.
      DeviceError: devices are missing, or out of memory.
    """
    registry.check(Settings, settings, "eval")
    distributed.check_devices()
    restored = restore.restore(
        workdir, step=step, params=params, allow_imports=allow_imports
    )
    if settings.get("statistics") != "train":  # which are measured anew
        restored.require_statistics_of_data()
    with registry.imports(allow_imports):
        section = restored.config["data"] | dict(data_fields or {})
        vocabulary = restored.vocabulary
        source = datasets.load_split(section, split, vocabulary)
        chosen = Settings(**settings)
        needed = chosen.needs_training_split(restored.subject)
        train = datasets.load_split(section, "train", vocabulary) if needed else None
    folder = epath.Path(out or workdir).expanduser()
    if out is None:
        folder = folder / "evaluation" / f"{split}_{restored.step:08d}"
    makes_images = restored.subject.makes_images
    features = None
    if chosen.fd_examples > 0 and makes_images and train is not None:
        features = load_or_fit(workdir, section, chosen.features)
    results = report.evaluate(
        restored.subject,
        source,
        folder,
        config=restored.config,
        step=restored.step,
        split=split,
        key=jax.random.key(restored.config["seed"]),
        train=train,
        history=read_metrics(workdir),
        samplers={n: restored.sampler(n, train) for n in chosen.samplers},
        features=features,
        settings=chosen,
    )
    for name, row in results["metrics"].items():
        print(f"{name:18s} {_with_error(row)} {row['unit']}  ({row['kind']})")
    if "verdict" in results:
        print(results["verdict"]["sentence"])
    print(f"report: {folder / 'report.html'}")
    return results
