"""The command line: flags, config files, overrides, `--help`, errors in one line."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jvae
from jvae import registry
from jvae.errors import ConfigError, JvaeError, StoppedError, nearest
from jvae.runtime import compile_cache, distributed
from jvae.training import config_files
from jvae.workdir.metrics import let_go

AGREED = (0, 2, 4, 5, 130, 143)
"""Exit statuses that all processes of a run end with, if one does."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the flags in one line."""

    def error(self, message: str):
        """Raises ConfigError."""
        raise ConfigError(message, where=self.prog, fix="See --help.")


def train_parser() -> argparse.ArgumentParser:
    """Returns the flags of train.py."""
    parser = Parser(
        prog="train.py",
        description="Trains an experiment, from where it stopped if it was begun.",
        allow_abbrev=False,
        add_help=False,
    )
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
    return with_common(parser)


def with_common(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds --debug, --help and --version."""
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--help", "-h", action="store_true", help="show this and exit")
    parser.add_argument(
        "--version", action="version", version=f"jvae {jvae.__version__}"
    )
    return parser


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Adds which model of a run is meant, see `choice_of`."""
    parser.add_argument(
        "--step", default="best", help="'best', 'last' or a step (default best)"
    )
    parser.add_argument(
        "--params", default="ema", help="'ema' or 'raw' parameters (default ema)"
    )


def choice_of(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns 'step' and 'params' as `jvae.restore` takes them."""
    step = int(flags.step) if flags.step.isdigit() else flags.step
    return {"step": step, "params": flags.params}


def model_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the flags of a command that restores a model and writes a folder."""
    parser = Parser(
        prog=prog, description=description, allow_abbrev=False, add_help=False
    )
    parser.add_argument("workdir", nargs="?", help="folder of the run")
    parser.add_argument("out", nargs="?", help="the new folder")
    add_choice(parser)
    add_imports(parser)
    return with_common(parser)


def add_imports(parser: argparse.ArgumentParser) -> None:
    """Adds --allow_imports."""
    parser.add_argument(
        "--allow_imports",
        action="store_true",
        help="import the model, loss or data set of your own that the run names",
    )


def eval_parser(options: Mapping[str, registry.Field]) -> argparse.ArgumentParser:
    """Returns the flags of eval.py; `options` are those of the evaluation."""
    parser = Parser(
        prog="eval.py",
        description="Evaluates a trained run from its workdir alone.",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("--workdir", help="folder of the run")
    add_evaluation(parser, options)
    parser.add_argument(
        "--out", help="folder for results; WORKDIR/evaluation/SPLIT_STEP if not given"
    )
    add_imports(parser)
    return with_common(parser)


def add_evaluation(
    parser: argparse.ArgumentParser, options: Mapping[str, registry.Field]
) -> None:
    """Adds what is evaluated, and how much of it.

    Args:
      parser: gets the flags.
      options: the fields of `jvae.evaluation.settings.Settings`.
    """
    add_choice(parser)
    parser.add_argument(
        "--split", default="test", help="'test', 'validation' or 'train' (default test)"
    )
    for name, field in options.items():
        parser.add_argument(
            f"--{name}",
            default=None,
            help=f"{field.meaning} ({field.type_name}, default {field.default})",
        )


def evaluation_of(
    flags: argparse.Namespace, options: Mapping[str, registry.Field]
) -> dict[str, Any]:
    """Returns what the flags of `add_evaluation` ask `evaluate_run` for."""
    given = {
        name: config_files.parse_value(name, getattr(flags, name), field.type)
        for name, field in options.items()
        if getattr(flags, name) is not None
    }
    return {**choice_of(flags), "split": flags.split, **given}


def main(command: Callable[[Sequence[str]], None]) -> int:
    """Runs a command on sys.argv; returns the exit status, errors in one line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("jvae").setLevel(logging.INFO)
    compile_cache.switch_on()
    try:
        status = _status(command, sys.argv[1:])
    except Exception:  # a bug
        if not distributed.is_initialised():
            raise
        traceback.print_exc()  # as Python would, which would wait for the others first
        status = JvaeError.exit_code
    _flush()
    if distributed.is_initialised() and status not in AGREED:
        os._exit(status)  # the others do not come to where JAX would wait for them
    distributed.shut_down()
    return status


def _status(command: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    try:
        command(arguments)
        return 0
    except StoppedError as stopped:
        print(f"jvae: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except JvaeError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"jvae: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0  # whoever read the output has seen enough
    except KeyboardInterrupt:
        print("jvae: interrupted; run the same command to go on", file=sys.stderr)
        return 130


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            let_go(stream)


def train(arguments: Sequence[str]) -> None:
    """What train.py does with its arguments."""
    rest, overrides = config_files.split_overrides(arguments)
    parser = train_parser()
    flags = parse(parser, rest)
    config = (
        config_files.experiment_config(flags.config, overrides)
        if flags.config
        else None
    )
    if flags.help:
        print(parser.format_help() + config_files.describe_fields(config))
        return
    if config is None:
        raise ConfigError("--config is missing", fix="E.g. --config=configs/digits.py.")
    from jvae.training import (
        experiment,  # the heavy imports come after the cheap checks
    )

    if flags.dry_run:
        experiment.dry_run(config)
        return
    if not flags.workdir:
        raise ConfigError("--workdir is missing", fix="E.g. --workdir=runs/digits.")
    _join(flags)
    experiment.run(config, flags.workdir)


def _join(flags: argparse.Namespace) -> None:
    """Joins the other processes, if the flags say that there are any."""
    explicit = (flags.coordinator, flags.num_processes, flags.process_id)
    if flags.distributed or any(value is not None for value in explicit):
        distributed.initialise(*explicit)
        if not distributed.is_first():
            logging.getLogger("jvae").setLevel(logging.ERROR)


def evaluate(arguments: Sequence[str]) -> None:
    """What eval.py does with its arguments."""
    from jvae.evaluation.settings import Settings
    from jvae.reports.run import evaluate_run

    options = registry.of(Settings)
    rest, overrides = config_files.split_overrides(arguments)
    parser = eval_parser(options)
    flags = parse(parser, rest)
    if flags.help:
        print(parser.format_help())
        return
    if not flags.workdir:
        raise ConfigError("--workdir is missing", fix="Name the workdir of a run.")
    evaluate_run(
        flags.workdir,
        out=flags.out,
        allow_imports=flags.allow_imports,
        data_fields=_data_overrides(overrides),
        **evaluation_of(flags, options),
    )


def _data_overrides(overrides: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of --config.data.FIELD=VALUE; eval.py takes no others."""
    section: dict[str, Any] = {}
    for path, text in overrides.items():
        head, _, name = path.partition(".")
        if head != "data" or not name:
            raise ConfigError(
                f"--config.{path} cannot change a trained run",
                fix="eval.py takes --config.data.FIELD, where the data lies here.",
            )
        section[name] = config_files.parse_value(path, text, Any)
    return section


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Any:
    """Returns the flags; unknown ones and stray words are errors with a suggestion."""
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [f"--{name}" for name in vars(flags)]
        word = unknown[0].partition("=")[0]
        what = "flag" if word.startswith("-") else "argument"
        hint = nearest(word, known) if what == "flag" else "Flags begin with --."
        raise ConfigError(f"{what} {unknown[0]!r} is unknown", fix=hint)
    return flags
