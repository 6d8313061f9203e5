"""Trains an experiment, from where it stopped if it was begun."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from jvae.commands.flags import Parser, chosen, config_of, needed, parse
from jvae.runtime import distributed
from jvae.training import config_files


def command(arguments: Sequence[str], prog: str = "jvae train") -> None:
    """Runs the command; `prog` is what it is called in its help and errors."""
    parser = Parser(prog, __doc__, help_is_flag=True)
    add = parser.add_argument
    add("--config", help="config file, e.g. configs/digits.py")
    add("--workdir", help="folder of the run, made if missing")
    text = "build, compile, do two steps and an evaluation, say the cost; write nothing"
    add("--dry_run", action="store_true", help=text)
    text = "join the other processes of a TPU pod, Slurm, Open MPI or Kubernetes job"
    add("--distributed", action="store_true", help=text)
    add("--coordinator", help="HOST:PORT of process 0, where nothing tells JAX")
    add("--num_processes", type=int, help="how many there are")
    add("--process_id", type=int, help="this one's number, from 0")
    limit, text = distributed.JOIN_SECONDS, "seconds to wait for the other processes"
    add("--join_timeout", type=int, default=limit, help=f"{text} (%(default)s)")
    limit = distributed.SILENCE_SECONDS
    text = "seconds after which a process that says nothing is gone (%(default)s)"
    add("--silence_timeout", type=int, default=limit, help=text)
    rest, overrides = config_files.split_overrides(arguments)
    flags = parse(parser, rest)
    config = config_of(flags, overrides)
    if flags.help:
        print(parser.format_help() + config_files.describe_fields(config or None))
        return
    needed("--config", config, "configs/digits.py")
    # The heavy imports come after the cheap checks.
    from jvae.training import experiment

    if flags.dry_run:
        experiment.dry_run(config)
        return
    needed("--workdir", flags.workdir, "runs/digits")
    explicit = (flags.coordinator, flags.num_processes, flags.process_id)
    if flags.distributed or any(value is not None for value in explicit):
        seconds = chosen(flags, ("join_timeout", "silence_timeout"))
        distributed.initialize(*explicit, **seconds)
        if not distributed.is_first():
            logging.getLogger("jvae").setLevel(logging.ERROR)
    experiment.run(config, flags.workdir)
