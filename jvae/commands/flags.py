"""Flags that several commands have, and how they are read."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import jvae
from jvae import registry
from jvae.errors import ConfigError, nearest
from jvae.training import config_files


class Parser(argparse.ArgumentParser):
    """Flags of a command; says what is wrong with them in one line.

    Args:
      prog: what the command is called.
      description: what it does; None for nothing.
      help_is_flag: whether --help is left to the command, which has more to say; else
        it is shown at once.
    """

    def __init__(self, prog: str, description: str | None, help_is_flag: bool = False):
        super().__init__(prog, None, description, allow_abbrev=False, add_help=False)
        action: Any = "store_true" if help_is_flag else "help"
        self.add_argument("--help", "-h", action=action, help="show this and exit")
        self.add_argument("--debug", action="store_true", help="show tracebacks")
        version = f"jvae {jvae.__version__}"
        self.add_argument("--version", action="version", version=version)

    def error(self, message: str):
        """Raises ConfigError."""
        raise ConfigError(message, where=self.prog, fix="See --help.")


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
    parser = Parser(prog, description)
    parser.add_argument("workdir", nargs="?", help="folder of the run")
    parser.add_argument("out", nargs="?", help="the new folder")
    add_choice(parser)
    add_imports(parser)
    return parser


def add_imports(parser: argparse.ArgumentParser) -> None:
    """Adds --allow_imports."""
    parser.add_argument(
        "--allow_imports",
        action="store_true",
        help="import the model, loss or data set of your own that the run names",
    )


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
    texts = vars(flags)
    settings = {
        name: config_files.parse_value(name, texts[name], field.type)
        for name, field in options.items()
        if texts[name] is not None
    }
    return {**choice_of(flags), "split": flags.split, **settings}


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Any:
    """Returns the flags; unknown ones and stray words are errors with a suggestion."""
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [f"--{name}" for name in (*vars(flags), "help", "version")]
        word = unknown[0].partition("=")[0]
        what = "flag" if word.startswith("-") else "argument"
        hint = nearest(word, known) if what == "flag" else "Flags begin with --."
        raise ConfigError(f"{what} {unknown[0]!r} is unknown", fix=hint)
    return flags
