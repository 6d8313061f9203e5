"""Evaluates a trained run from its workdir alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jvae import registry
from jvae.commands.flags import (
    Parser,
    add_evaluation,
    add_imports,
    evaluation_of,
    parse,
    require_flag,
)
from jvae.errors import ConfigError
from jvae.training import config_files


def command(arguments: Sequence[str], prog: str = "jvae eval") -> None:
    """Runs the command; `prog` is what it is called in its help and errors."""
    from jvae.evaluation.settings import Settings
    from jvae.reports.run import evaluate_run

    options = registry.of(Settings)
    rest, overrides = config_files.split_overrides(arguments)
    parser = Parser(prog, __doc__)
    parser.add_argument("--workdir", help="folder of the run")
    add_evaluation(parser, options)
    parser.add_argument(
        "--out", help="folder for results; WORKDIR/evaluation/SPLIT_STEP if not given"
    )
    add_imports(parser)
    flags = parse(parser, rest)
    require_flag("--workdir", flags.workdir, "runs/digits")
    evaluate_run(
        flags.workdir,
        out=flags.out,
        allow_imports=flags.allow_imports,
        data_fields=_data_overrides(overrides),
        **evaluation_of(flags, options),
    )


def _data_overrides(overrides: Mapping[str, str]) -> dict[str, str]:
    """Returns the fields of --config.data.FIELD=VALUE; no others are taken."""
    section: dict[str, str] = {}
    for path, text in overrides.items():
        head, _, name = path.partition(".")
        if head != "data" or not name:
            raise ConfigError(
                f"--config.{path} cannot change a trained run",
                fix="Only --config.data.FIELD is taken, where the data lies here.",
            )
        section[name] = text
    return section
