"""The runs of a sweep: every combination of values and seeds, each with its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jvae.errors import ConfigError, require
from jvae.sweeps import table
from jvae.training import config as configs
from jvae.training import config_files
from jvae.workdir import renamed

MAX_NAME = 120
"""Characters of a folder's name, well below the 255 of file systems."""

Grid = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      values: {field that the sweep sets: its value}.
      seed: of the run.
      config: the whole of it, as JSON can hold it.
    """

    values: Mapping[str, Any]
    seed: int
    config: Mapping[str, Any]

    @property
    def group(self) -> str:
        """Its values: 'loss.beta=0.1', the same in whatever order they are set."""
        words = [f"{field}={_safe(v)}" for field, v in sorted(self.values.items())]
        text = "__".join(words)
        return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}-{_digest(text)}"

    @property
    def name(self) -> str:
        """Its folder: 'loss.beta=0.1/seed=0'."""
        return "/".join(filter(None, (self.group, f"seed={self.seed}")))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _safe(value: Any) -> str:
    """Returns a value for a folder's name; what could be misread gets a digest too."""
    if value is None or isinstance(value, bool | int | float):
        return table.format_value(value)
    numbers = isinstance(value, list) and all(type(x) in (int, float) for x in value)
    if numbers and len(value) > 1:
        return "-".join(map(table.format_value, value))
    words = "none true false inf nan".split()
    if isinstance(value, str) and value.lower() not in words:
        if re.fullmatch(r"[A-Za-z][\w.+-]{0,39}", value, re.ASCII):
            return value
    text = value if isinstance(value, str) else json.dumps(value)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40]
    return "-".join(filter(None, (slug, _digest(value))))


def split_values(field: str, text: str) -> list[str]:
    """Returns the values in '0.1,1,4'; commas in brackets or quotes divide nothing.

    Raises:
      ConfigError: there are none, or one is empty.
    """
    values, depth, quote = [""], 0, ""

    for character in text:
        if character == "," and not depth and not quote:
            values.append("")
            continue
        values[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")

    values = [value.strip() for value in values]
    if not all(values):
        what = f"--set {field} has no values" if values == [""] else ""
        raise ConfigError(
            what or f"--set {field} has an empty value, in {text!r}",
            fix="Write --set FIELD=VALUE,VALUE, e.g. --set loss.beta=0.1,1,4.",
        )
    return values


def read_grid(settings: Sequence[str]) -> dict[str, list[str]]:
    """Returns {'loss.beta': ['0.1', '1', '4']} of the arguments of --set."""
    grid: dict[str, list[str]] = {}
    for text in settings:
        field, _, values = text.partition("=")
        if field in grid:
            raise ConfigError(f"--set {field} is given twice", fix="Join the values.")
        if field == "seed":
            raise ConfigError("--set seed is what --seeds=N does, for seeds 0 to N-1")
        grid[field] = split_values(field, values)
    return grid


def plan(
    path: str, grid: Grid, overrides: Mapping[str, str], num_seeds: int
) -> list[Trial]:
    """Returns every combination of values for seed 0, then for seed 1, and so on.

    Args:
      path: the config file.
      grid: {field: the texts of its values}; {} for the config as it is.
      overrides: {field: text} for all runs.
      num_seeds: seeds 0 .. num_seeds - 1.

    Raises:
      ConfigError: a field or value that cannot be, a value given twice, a field that
        is both set and overridden.
    """
    require(num_seeds >= 1, "--seeds", "be at least 1", num_seeds)
    for field in ("seed", *grid):
        if field in overrides:
            by = "--seeds" if field == "seed" else "--set"
            raise ConfigError(f"--config.{field} is set by {by} already")
    trials = []
    seeds = [str(seed) for seed in range(num_seeds)]
    for texts in itertools.product(seeds, *grid.values()):
        chosen = dict(zip(("seed", *grid), texts, strict=True))
        experiment = config_files.experiment_config(path, {**overrides, **chosen})
        config = configs.parse_experiment(experiment).to_dict()
        fields = [renamed.path_now(config, field) for field in grid]
        values = {field: _at(config, field) for field in fields}
        trials.append(Trial(values, config["seed"], config))
    names = [trial.name for trial in trials]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"--set gives the same run twice, {twice[0]}")
    return trials


def _at(config: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config
