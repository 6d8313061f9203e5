"""Trains an experiment, from where it stopped if it was begun."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from jvae.commands.flags import Parser, config_of, parse, require_flag
from jvae.runtime import distributed
from jvae.training import config_files


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(prog, __doc__, help_is_flag=True)
    parser.add_argument("--config", help="config file, e.g. configs/digits.py")
    parser.add_argument("--workdir", help="folder of the run, made if missing")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="build, compile, do two steps and one evaluation, say what it costs; "
        "writes nothing",
    )

    parser.add_argument(
        "--distributed",
        action="store_true",
        help="join the other processes of a TPU pod, Slurm, Open MPI or Kubernetes job",
    )
    parser.add_argument(
        "--coordinator", help="HOST:PORT of process 0, where nothing tells JAX"
    )
    parser.add_argument("--num_processes", type=int, help="how many there are")
    parser.add_argument("--process_id", type=int, help="this one's number, from 0")

    parser.add_argument(
        "--join_timeout",
        type=int,
        default=distributed.JOIN_SECONDS,
        help="seconds to wait for the other processes (%(default)s)",
    )
    parser.add_argument(
        "--silence_timeout",
        type=int,
        default=distributed.SILENCE_SECONDS,
        help="seconds after which a process that says nothing is gone (%(default)s)",
    )
    return parser


def command(arguments: Sequence[str], prog: str = "jvae train") -> None:
    """Runs the command; `prog` is what it is called in its help and errors."""
    rest, overrides = config_files.split_overrides(arguments)
    parser = _parser(prog)
    flags = parse(parser, rest)
    config = config_of(flags, overrides)
    if flags.help:
        print(parser.format_help() + config_files.describe_fields(config or None))
        return
    require_flag("--config", config, "configs/digits.py")
    # The heavy imports come after the cheap checks.
    from jvae.training import experiment

    if flags.dry_run:
        experiment.dry_run(config)
        return
    require_flag("--workdir", flags.workdir, "runs/digits")
    _join(flags)
    experiment.run(config, flags.workdir)


def _join(flags: argparse.Namespace) -> None:
    """Joins the other processes, if the flags say that there are any."""
    explicit = (flags.coordinator, flags.num_processes, flags.process_id)
    if flags.distributed or any(value is not None for value in explicit):
        distributed.initialize(
            *explicit,
            join_timeout=flags.join_timeout,
            silence_timeout=flags.silence_timeout,
        )
        if not distributed.is_first():
            logging.getLogger("jvae").setLevel(logging.ERROR)
