"""What makes two configs the same run: fields that a run cannot change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from jvae.data import rules
from jvae.errors import ConfigError, WorkdirError
from jvae.runtime import distributed
from jvae.training.config import SECTIONS, section_defaults, top_level_defaults
from jvae.workdir import renamed

Config = Mapping[str, Any]

CHANGEABLE = (
    "mesh",
    "num_steps",
    "log_every_steps",
    "eval_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "steps_per_dispatch",
    "eval_examples",
    "patience",
    "max_skips",
    "init_from",
)
"""Fields that a run may change when it goes on; of data also how it is fed."""
CHANGEABLE_DATA = ("placement", "num_threads")


def check_same_run(stored: Config, given: Config, root: epath.Path) -> None:
    """Raises WorkdirError if `given` learns something else than the stored run.

    Args:
      stored: config of the run, of any release.
      given: a config that is complete.
      root: workdir of the run, for the message.
    """
    stored = with_later_fields(stored, given)
    given = with_rule(given, stored)
    changed = differences(identity(stored), identity(given))
    if changed:
        raise WorkdirError(
            f"the run there has another config: {'; '.join(changed)}",
            where=str(root),
            fix="Use another workdir, or the stored values.",
        )


def check_agreement(values: Mapping[str, Any]) -> None:
    """Checks that all processes of a run do the same; all of them ask.

    Args:
      values: versions, a config, digests: what JSON can hold.

    Raises:
      ConfigError: they differ; in all processes, with the fields.
    """
    first, *others = distributed.gathered(values)
    for process, other in enumerate(others, 1):
        changed = differences(other, first)
        if changed:
            raise ConfigError(
                f"process {process} ('there') and process 0 ('here') differ: "
                f"{'; '.join(changed)}",
                fix="Start all with the same command, code and data.",
            )


def identity(config: Config) -> dict[str, Any]:
    """Returns the part of a config that a run cannot change: what is learned, how."""
    config = renamed.current(config)
    fields = {k: v for k, v in config.items() if k not in CHANGEABLE}
    fields["data"] = {
        k: v for k, v in config["data"].items() if k not in CHANGEABLE_DATA
    }
    return fields


def differences(stored: Config, given: Config, prefix: str = "") -> list[str]:
    """Returns 'section.field: A there, B here' for every field that differs."""
    texts = []
    for name in sorted({*stored, *given}):
        a, b = stored.get(name), given.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            texts += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            texts.append(f"{prefix}{name}: {a!r} there, {b!r} here")
    return texts


def with_rule(given: Config, stored: Config | None) -> dict[str, Any]:
    """Returns a config whose data are read by a rule with a number.

    Args:
      given: a config that is complete.
      stored: that of the run that goes on, whose rule it takes unless it names one;
        None for a new run, which takes the newest.
    """
    section = None if stored is None else stored["data"]
    return {**given, "data": rules.settled(given["data"], section)}


def with_later_fields(stored: Config, given: Config) -> dict[str, Any]:
    """Returns a stored config with the fields that came after its release.

    The default of a new field does what was done before there was one; of the rule by
    which data are read that is number 1.

    Args:
      stored: config of a run, of any release.
      given: a complete config. Sections with another name than there are not filled:
        what a stored config names is not to be imported before the two are compared.
    """
    stored = renamed.current(stored)
    complete = {**top_level_defaults(), **stored}
    for name in SECTIONS:
        section = stored.get(name, {})
        is_section = isinstance(section, Mapping)  # not in a file that is damaged
        if is_section and section.get("name") == given[name].get("name"):
            complete[name] = {**section_defaults(name, given[name]), **section}
            if name == "data":
                complete[name] |= rules.of_stored(section)
    return complete
