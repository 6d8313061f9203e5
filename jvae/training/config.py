"""What a config may say: its sections, their fields, their defaults.

A config is a plain mapping here; files under configs/ make it with ml_collections.
Every section is splatted into a function whose signature and docstring are its
schema (see `jvae.registry`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from ml_collections import ConfigDict

from jvae import data, losses, models, registry
from jvae.data.options import DataOptions
from jvae.errors import ConfigError, require
from jvae.ranges import Fraction, Ge, NonNegativeInt, PositiveInt, Seed
from jvae.runtime import mesh
from jvae.training import optimizers
from jvae.workdir import renamed

Section = Mapping[str, Any]


NAMED: dict[str, Mapping[str, Callable]] = {
    "data": data.DATASETS,
    "model": models.MODELS,
    "loss": losses.LOSSES,
}
"""Sections whose 'name' decides which fields they have, and the names of each."""
SECTIONS = (*NAMED, "optimizer", "mesh")
"""Sections whose fields are those of a function."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment, as its config file says it.

    Args:
      data: the data set and how it is fed, see `jvae.data.options` and its source.
      model: 'name' and the fields of that model.
      loss: 'name', its coefficients and options.
      optimizer: 'name' and the fields of `jvae.training.optimizers.build`.
      schedules: {coefficient of loss or model: 'name' of a schedule and its fields}.
      mesh: 'data' and 'params', devices along which batch and parameters are split.
      seed: of the initial parameters, the order of the data and all draws.
      num_steps: updates of the whole run.
      log_every_steps: how often training metrics are written.
      eval_every_steps: how often validation data is looked at (the ELBO, or the loss of
        a model without one) and pictures are made; 0 for never.
      checkpoint_every_steps: how often the run is saved; its end is saved always.
      keep_checkpoints: how many of the newest checkpoints stay, beside the best.
      ema_decay: decay of the parameters' moving average, which evaluation and
        sampling use, less in the first steps; 0 for none.
      accumulate_steps: micro-batches per update.
      steps_per_dispatch: updates done in one call of the device; more than 1 helps
        small models on accelerators.
      eval_examples: validation examples looked at during training; None for all.
      patience: evaluations in a row without a better model after which the run ends;
        None for never.
      spike_factor: updates are skipped whose gradient norm is over this many times the
        0.9-quantile of the last 100; None for none. Those that are not finite always
        are.
      max_skips: updates skipped in a row after which the run ends as diverged.
      init_from: workdir whose best parameters this run starts from, matched by path.
    """

    data: Section
    model: Section
    loss: Section
    optimizer: Section = dataclasses.field(default_factory=dict)
    schedules: Section = dataclasses.field(default_factory=dict)
    mesh: Section = dataclasses.field(default_factory=dict)
    seed: Seed = 0
    num_steps: NonNegativeInt = 1000
    log_every_steps: PositiveInt = 100
    eval_every_steps: NonNegativeInt = 1000
    checkpoint_every_steps: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 3
    ema_decay: Fraction = 0.0
    accumulate_steps: PositiveInt = 1
    steps_per_dispatch: PositiveInt = 1
    eval_examples: PositiveInt | None = None
    patience: PositiveInt | None = None
    spike_factor: Annotated[float, Ge(1)] | None = None
    max_skips: PositiveInt = 20
    init_from: str | None = None

    def __post_init__(self):
        """Checks every field, and what two decide together."""
        registry.check_instance(self, "config")
        n = self.steps_per_dispatch
        rule = f"be a multiple of steps_per_dispatch {n}"
        for name, value in registry.values(self).items():
            if name == "num_steps" or name.endswith("_every_steps"):
                require(value % n == 0, name, rule, value)

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as JSON can hold it."""
        return plain(registry.values(self))


def parse_experiment(config: Mapping[str, Any]) -> Experiment:
    """Returns the experiment that `config` describes, every section complete.

    Fields that are not given get the defaults of this release, so that what is stored
    with a run does not change with a later one.

    Args:
      config: a mapping, or an ml_collections.ConfigDict.

    Raises:
      ConfigError: an unknown, missing or impossible field, with the nearest name.
    """
    config = renamed.current(plain(config))
    registry.check(Experiment, config, "config")
    sections = {name: complete_section(name, config.get(name, {})) for name in SECTIONS}
    return Experiment(**{**config, **sections})


def section_fields(name: str, section: Section) -> dict[str, registry.Field]:
    """Returns the fields that a section may have, given the names in it.

    Args:
      name: 'data', 'model', 'loss', 'optimizer' or 'mesh'.
      section: the section; its 'name' chooses the function.
    """
    if name == "optimizer":
        return registry.of(optimizers.build, skip=("num_steps", "name"))
    if name == "mesh":
        return registry.of(mesh.build)
    function = registry.resolve(NAMED[name], section.get("name", ""), name)
    if name == "loss":
        return losses.config_fields(function)
    shared = registry.of(DataOptions) if name == "data" else {}
    return {**shared, **registry.of(function)}


def complete_section(name: str, section: Section) -> dict[str, Any]:
    """Returns the section with defaults filled in, after checking it."""
    if name in NAMED and "name" not in section:
        raise ConfigError(
            f"{name}.name is missing", fix=f"Known: {', '.join(NAMED[name])}."
        )
    known = section_fields(name, section)
    fields = {k: v for k, v in section.items() if k != "name"}
    registry.check_against(known, fields, name)
    named = {"name": section["name"]} if "name" in section else {}
    return {**named, **_defaults(known), **fields}


def section_defaults(name: str, section: Section) -> dict[str, Any]:
    """Returns the defaults of a section's fields, as JSON can hold them."""
    return plain(_defaults(section_fields(name, section)))


def top_level_defaults() -> dict[str, Any]:
    """Returns the defaults of the fields that are in no section, and no schedules."""
    fields = registry.of(Experiment, skip=("schedules", *SECTIONS))
    return {"schedules": {}, **_defaults(fields)}


def _defaults(fields: Mapping[str, registry.Field]) -> dict[str, Any]:
    return {
        k: f.default for k, f in fields.items() if f.default is not registry.REQUIRED
    }


def plain(value: Any) -> Any:
    """Returns mappings, ConfigDicts among them, as dicts, and sequences as lists."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
