"""The command line: flags, config files, overrides, `--help`, errors in one line."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jvae
from jvae import compile_cache, distributed, fields
from jvae import config as configs
from jvae.errors import ConfigError, JvaeError, StoppedError, nearest
from jvae.writers import let_go

AGREED = (0, 2, 4, 5, 130, 143)
"""Exit statuses that all processes of a run end with, if one does."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the flags in one line."""

    def error(self, message: str):
        raise ConfigError(message, where=self.prog, fix="See --help.")


def train_parser() -> argparse.ArgumentParser:
    """Returns the flags of train.py."""
    parser = _Parser(
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
    return _with_common(parser)


def _with_common(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--help", "-h", action="store_true", help="show this and exit")
    parser.add_argument(
        "--version", action="version", version=f"jvae {jvae.__version__}"
    )
    return parser


def eval_parser(options: Mapping[str, fields.Field]) -> argparse.ArgumentParser:
    """Returns the flags of eval.py; `options` are those of the evaluation."""
    parser = _Parser(
        prog="eval.py",
        description="Evaluates a trained run from its workdir alone.",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("--workdir", help="folder of the run")
    parser.add_argument(
        "--step", default="best", help="'best', 'last' or a step (default best)"
    )
    parser.add_argument(
        "--params", default="ema", help="'ema' or 'raw' parameters (default ema)"
    )
    parser.add_argument(
        "--split", default="test", help="'test', 'validation' or 'train' (default test)"
    )
    parser.add_argument(
        "--out", help="folder for results; WORKDIR/evaluation/SPLIT_STEP if not given"
    )
    parser.add_argument(
        "--allow_imports",
        action="store_true",
        help="import the model, loss or data set of your own that the run names",
    )
    for name, field in options.items():
        parser.add_argument(
            f"--{name}",
            default=None,
            help=f"{field.meaning} ({field.type_name}, default {field.default})",
        )
    return _with_common(parser)


def load_config(path: str) -> Any:
    """Returns get_config() of a Python file: an ml_collections.ConfigDict, locked.

    Raises:
      ConfigError: no such file, no get_config, or it fails.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"config file {path} does not exist", fix="See configs/.")
    spec = importlib.util.spec_from_file_location(f"jvae_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"config file {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # A config may import its base from the folder that holds it.
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError, TypeError, ValueError) as error:
        raise ConfigError(f"config file {path} fails: {error}") from error
    finally:
        sys.path.pop(0)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"config file {path} has no get_config()")
    return module.get_config()


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns (the other arguments, {'loss.beta': '4'}) from --config.loss.beta=4."""
    rest, overrides = [], {}
    waiting: str | None = None
    for argument in arguments:
        if waiting is not None:
            overrides[waiting], waiting = argument, None
        elif argument.startswith("--config."):
            name, equals, value = argument.removeprefix("--config.").partition("=")
            if equals:
                overrides[name] = value
            else:
                waiting = name
        else:
            rest.append(argument)
    if waiting is not None:
        raise ConfigError(f"--config.{waiting} has no value", fix="Write =VALUE.")
    return rest, overrides


def override(config: dict[str, Any], path: str, text: str) -> None:
    """Sets the field at 'loss.beta' in a nested config to the value of `text`.

    Raises:
      ConfigError: no such field, or text of another type.
    """
    *sections, name = path.split(".")
    node: Any = config
    for i, section in enumerate(sections):
        if not isinstance(node.get(section), dict):
            where = ".".join(sections[: i + 1])
            if section in node:
                fix = f"Set --config.{where} whole, e.g. to \"{{'name': 'x'}}\"."
                raise ConfigError(f"config.{where} has no fields of its own", fix=fix)
            top = configs_sections() if i == 0 else set(node)
            if i == 0 and section in top:
                node[section] = {}
            else:
                raise ConfigError(
                    f"config.{where} is unknown", fix=nearest(section, top)
                )
        node = node[section]
    known = known_fields(config, sections)
    if known is not None and name not in known:
        raise ConfigError(f"config.{path} is unknown", fix=nearest(name, known))
    annotation = known[name].type if known is not None else Any
    node[name] = parse_value(path, text, annotation)


def configs_sections() -> set[str]:
    """Returns the names of the top-level fields that are sections."""
    return {
        name
        for name, field in fields.of(configs.Experiment).items()
        if field.type == configs.Section
    }


def known_fields(
    config: Mapping[str, Any], sections: Sequence[str]
) -> Mapping[str, fields.Field] | None:
    """Returns the fields of a section of `config`; None where they are not listed."""
    if not sections:
        return fields.of(configs.Experiment)
    if len(sections) > 1 or sections[0] == "schedules":
        return None
    section = config[sections[0]]
    named = {"name": fields.Field("name", str, "", "which one")}
    return {**named, **configs.section_fields(sections[0], section)}


def parse_value(path: str, text: str, annotation: Any) -> Any:
    """Returns `text` as a value that `annotation` accepts.

    Raises:
      ConfigError: it is none.
    """
    candidates: list[Any] = []
    try:
        candidates.append(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        pass
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        candidates.append(words[text.lower()])
    candidates.append(text)
    for value in candidates:
        if fields.accepts(annotation, value):
            return float(value) if annotation is float else value
    name = fields.Field("", annotation, None, "").type_name
    raise ConfigError(f"config.{path} must be {name}, got {text!r}")


def experiment_config(path: str, overrides: Mapping[str, str]) -> dict[str, Any]:
    """Returns the config of a file as a plain dict, overrides applied and checked."""
    loaded = load_config(path)
    config = loaded.to_dict() if hasattr(loaded, "to_dict") else dict(loaded)
    # Names first: they decide which other fields there are.
    for name in sorted(overrides, key=lambda n: not n.endswith(".name")):
        override(config, name, overrides[name])
    return config


def config_help(config: Mapping[str, Any] | None) -> str:
    """Returns a line for every config field: name, type, value or default, meaning."""
    lines = ["", "config fields (--config.FIELD=VALUE):"]

    def describe(prefix: str, known: Mapping[str, fields.Field], given: Mapping):
        for name, field in known.items():
            value = given.get(name, field.default)
            if isinstance(value, Mapping):
                continue
            shown = "required" if value is fields.REQUIRED else repr(value)
            lines.append(f"  --config.{prefix}{name}  ({field.type_name}, {shown})")
            lines.append(f"      {field.meaning}")

    config = config or {}
    sections = configs_sections()
    top = fields.of(configs.Experiment)
    describe("", {k: v for k, v in top.items() if k not in sections}, config)
    for section in sorted(sections):
        lines.append(f"  [{section}]  {top[section].meaning}")
        given = config.get(section, {})
        if section == "schedules" or ("name" not in given and section in configs.NAMED):
            continue
        describe(f"{section}.", configs.section_fields(section, given), given)
    if not config:
        lines.append(
            "  With --config=FILE, the fields of its data, model and loss too."
        )
    return "\n".join(lines)


def main(command: Callable[[Sequence[str]], None]) -> int:
    """Runs a command on sys.argv; returns the exit status, errors in one line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("jvae").setLevel(logging.INFO)
    compile_cache.switch_on()
    try:
        status = _status(command, sys.argv[1:])
    except Exception:
        if not distributed.is_initialised():
            raise
        traceback.print_exc()
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
    rest, overrides = split_overrides(arguments)
    parser = train_parser()
    flags = _parse(parser, rest)
    config = experiment_config(flags.config, overrides) if flags.config else None
    if flags.help:
        print(parser.format_help() + config_help(config))
        return
    if config is None:
        raise ConfigError("--config is missing", fix="E.g. --config=configs/digits.py.")
    from jvae import experiment  # the heavy imports come after the cheap checks

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
    from jvae import experiment
    from jvae.evaluation.report import Settings

    options = fields.of(Settings)
    rest, overrides = split_overrides(arguments)
    parser = eval_parser(options)
    flags = _parse(parser, rest)
    if flags.help:
        print(parser.format_help())
        return
    if not flags.workdir:
        raise ConfigError("--workdir is missing", fix="Name the workdir of a run.")
    given = {
        name: parse_value(name, getattr(flags, name), field.type)
        for name, field in options.items()
        if getattr(flags, name) is not None
    }
    experiment.evaluate(
        flags.workdir,
        step=int(flags.step) if flags.step.isdigit() else flags.step,
        params=flags.params,
        split=flags.split,
        out=flags.out,
        allow_imports=flags.allow_imports,
        data_fields=_data_overrides(overrides),
        **given,
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
        section[name] = parse_value(path, text, Any)
    return section


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Any:
    """Returns the flags; unknown ones and stray words are errors with a suggestion."""
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [f"--{name}" for name in vars(flags)]
        word = unknown[0].partition("=")[0]
        what = "flag" if word.startswith("-") else "argument"
        hint = nearest(word, known) if what == "flag" else "Flags begin with --."
        raise ConfigError(f"{what} {unknown[0]!r} is unknown", fix=hint)
    return flags
