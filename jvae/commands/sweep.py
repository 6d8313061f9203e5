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
    config_of,
    evaluation_of,
    parse,
    require_flag,
)
from jvae.errors import IncompleteError
from jvae.sweeps.grid import plan, read_grid
from jvae.sweeps.sweep import Sweep
from jvae.training import config_files


def _parser(options: Mapping[str, registry.Field]) -> argparse.ArgumentParser:
    """Returns the flags; `options` are those of the evaluation."""
    parser = Parser("jvae sweep", __doc__, help_is_flag=True)
    parser.add_argument("--config", help="config file, e.g. configs/digits.py")
    parser.add_argument("--workdir", help="folder of the sweep, made if missing")

    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="runs of each value, from seed 0 (default 5)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE,VALUE",
        help="values of a config field, e.g. loss.beta=0.1,1,4; may be repeated, then "
        "every combination is run",
    )

    parser.add_argument(
        "--metrics", help="names of results.json, with commas (default all)"
    )
    add_evaluation(parser, options)
    return parser


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    from jvae.evaluation.settings import Settings

    options = registry.of(Settings)
    rest, overrides = config_files.split_overrides(arguments)
    parser = _parser(options)
    flags = parse(parser, rest)
    if flags.help:
        config = config_of(flags, overrides)
        print(parser.format_help() + config_files.describe_fields(config or None))
        return
    require_flag("--config", flags.config, "configs/digits.py")
    require_flag("--workdir", flags.workdir, "runs/betas")
    trials = plan(flags.config, read_grid(flags.set), overrides, flags.seeds)
    metrics = [name for name in (flags.metrics or "").split(",") if name]
    asked = evaluation_of(flags, options)
    sweep = Sweep(trials, flags.workdir, metrics=metrics, **asked)
    print(sweep.run().markdown, end="")
    if sweep.failed:
        trial, outcome = sweep.failed[0]
        first = f"the first {trial.name}: {outcome.error}"
        raise IncompleteError(
            f"{len(sweep.failed)} of {len(trials)} runs have no results, {first}",
            exit_code=outcome.exit_code,
        )
