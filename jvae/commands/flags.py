"""Flags that several commands have, and how they are read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

import jvae
from jvae import registry
from jvae.errors import ConfigError, WorkdirError, nearest
from jvae.training import config_files

MOST_DIGITS = 19
"""Of a step; Python refuses to read thousands."""


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
    is_number = flags.step.isdecimal() and len(flags.step) < MOST_DIGITS
    step = int(flags.step) if is_number else flags.step
    return {"step": step, "params": flags.params}


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds what `model_of` reads: which model, and whether its modules may run."""
    add_choice(parser)
    add_imports(parser)


def model_of(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns 'step', 'params' and 'allow_imports' as `jvae.restore` takes them."""
    return {**choice_of(flags), "allow_imports": flags.allow_imports}


def model_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the flags of a command that restores a model and writes a folder."""
    parser = Parser(prog, description)
    parser.add_argument("workdir", nargs="?", help="folder of the run")
    parser.add_argument("out", nargs="?", help="the new folder")
    add_model(parser)
    return parser


def restored(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Any:
    """Returns (the flags of `model_parser`, the model that they name)."""
    from jvae.pretrained.restore import restore

    flags = parse(parser, arguments)
    if not flags.out:
        raise ConfigError("WORKDIR and OUT are missing", where=parser.prog)
    return flags, restore(flags.workdir, **model_of(flags))


def empty_folder(out: epath.PathLike) -> epath.Path:
    """Returns a folder to write to.

    Raises:
      WorkdirError: it has files in it.
    """
    folder = epath.Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise WorkdirError(
            "the folder is not empty", where=str(out), fix="Name a new folder."
        )
    return folder


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
            help=f"{field.meaning} ({field.type_name}, default {field.default})",
        )


def evaluation_of(
    flags: argparse.Namespace, options: Mapping[str, registry.Field]
) -> dict[str, Any]:
    """Returns what the flags of `add_evaluation` ask `evaluate_run` for."""
    settings = {
        name: config_files.parse_value(name, text, options[name].type)
        for name, text in chosen(flags, options).items()
        if text is not None
    }
    return {**choice_of(flags), "split": flags.split, **settings}


def chosen(flags: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Returns some of the flags by name, as a function of such arguments takes them."""
    values = vars(flags)
    return {name: values[name] for name in names}


def require_flag(flag: str, value: Any, example: str) -> None:
    """Raises ConfigError if a flag has no value."""
    if not value:
        raise ConfigError(f"{flag} is missing", fix=f"E.g. {flag}={example}.")


def config_of(flags: Any, overrides: Mapping[str, str]) -> dict[str, Any]:
    """Returns the config that the flags name, {} if they name none."""
    if not flags.config:
        return {}
    return config_files.experiment_config(flags.config, overrides)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Any:
    """Returns the flags; unknown ones and stray words are errors with a suggestion."""
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        actions = parser._actions
        known = [name for action in actions for name in action.option_strings]
        words = [f"--{action.dest}" for action in actions if not action.option_strings]
        word = unknown[0].partition("=")[0]
        what = "flag" if word.startswith("-") else "argument"
        hint = nearest(word, known) if what == "flag" else "Flags begin with --."
        if word in words:
            hint = f"Give {word.lstrip('-').upper()} without the flag; see --help."
        raise ConfigError(f"{what} {unknown[0]!r} is unknown", fix=hint)
    return flags
