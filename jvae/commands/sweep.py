"""Runs an experiment at several values and seeds; writes how far results spread.

jvae sweep --config=configs/digits.py --workdir=DIR --seeds=5 --set loss.beta=0.1,1,4

Runs that are finished are not repeated; a sweep that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from jvae import registry
from jvae.commands.flags import (
    Parser,
    add_evaluation,
    evaluation_of,
    parse,
)
from jvae.errors import ConfigError, IncompleteError
from jvae.sweeps.grid import plan, read_grid
from jvae.sweeps.sweep import Sweep
from jvae.training import config_files


def _parser(options: Mapping[str, registry.Field]) -> argparse.ArgumentParser:
    """Returns the flags; `options` are those of the evaluation."""
    flags = Parser(
        "jvae sweep",
        "Runs an experiment at several values and seeds, from where it stopped if it "
        "was begun, and writes a table of how far the results spread.",
        help_is_flag=True,
    )
    flags.add_argument("--config", help="config file, e.g. configs/digits.py")
    flags.add_argument("--workdir", help="folder of the sweep, made if missing")
    flags.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="runs of each value, from seed 0 (default 5)",
    )
    flags.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE,VALUE",
        help="values of a config field, e.g. loss.beta=0.1,1,4; may be repeated, then "
        "every combination is run",
    )
    flags.add_argument(
        "--metrics", help="names of results.json, with commas (default all)"
    )
    add_evaluation(flags, options)
    return flags


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    from jvae.evaluation.settings import Settings

    options = registry.of(Settings)
    rest, overrides = config_files.split_overrides(arguments)
    flags_of = _parser(options)
    flags = parse(flags_of, rest)
    if flags.help:
        config = flags.config and config_files.experiment_config(
            flags.config, overrides
        )
        print(flags_of.format_help() + config_files.describe_fields(config or None))
        return
    if not flags.config:
        raise ConfigError("--config is missing", fix="E.g. --config=configs/digits.py.")
    if not flags.workdir:
        raise ConfigError("--workdir is missing", fix="E.g. --workdir=runs/betas.")
    trials = plan(flags.config, read_grid(flags.set), overrides, flags.seeds)
    metrics = [name for name in (flags.metrics or "").split(",") if name]
    asked = evaluation_of(flags, options)
    sweep = Sweep(trials, flags.workdir, metrics=metrics, **asked)
    print(sweep.run().markdown, end="")
    if sweep.failed:
        trial, outcome = sweep.failed[0]
        raise IncompleteError(
            f"{len(sweep.failed)} of {len(trials)} runs have no results, the first "
            f"{trial.name}: {outcome.error}",
            exit_code=outcome.exit_code,
        )
