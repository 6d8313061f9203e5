"""Config files and what the command line changes in them: --config.loss.beta=4."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jvae import registry
from jvae.errors import ConfigError, first_line, nearest
from jvae.training import config as configs
from jvae.workdir import renamed


def load_config(path: str | Path) -> Any:
    """Returns get_config() of a Python file: an ml_collections.ConfigDict, locked.

    Args:
      path: the file, or 'FILE:TEXT' for get_config(TEXT).

    Raises:
      ConfigError: no such file, no get_config, or it fails.
    """
    file, arguments = _file_and_arguments(path)
    if not file.is_file():
        problem = "is no file" if file.exists() else "does not exist"
        raise ConfigError(f"config file {path} {problem}", fix="See configs/.")
    spec = importlib.util.spec_from_file_location(f"jvae_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"config file {path} is no Python file")
    module = importlib.util.module_from_spec(spec)

    # A config may import its base from the folder that holds it.
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        spec.loader.exec_module(module)
        if "get_config" not in dir(module):
            raise ConfigError(f"config file {path} has no get_config()")
        config = module.get_config(*arguments)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # a config file may run any code
        why = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f"config file {path} fails: {why}") from error
    finally:
        sys.path.pop(0)

    if not isinstance(config, Mapping | ConfigDict):
        kind = type(config).__name__
        raise ConfigError(f"get_config() in {path} must return a dict, got {kind}")
    return config


def _file_and_arguments(path: str | Path) -> tuple[Path, list[str]]:
    """Returns the file of 'FILE' or 'FILE:TEXT', and [TEXT] if there is one."""
    file = Path(path).expanduser()
    name, _, text = str(path).rpartition(":")
    if name and not file.exists() and Path(name).expanduser().is_file():
        return Path(name).expanduser(), [text]
    return file, []


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
                raise ConfigError(
                    f"config.{where} has no fields of its own",
                    fix=f"Set --config.{where} whole, e.g. to \"{{'name': 'x'}}\".",
                )
            top = section_names() if i == 0 else set(node)
            is_schedule = i == 1 and sections[0] == "schedules"
            if not is_schedule and (i > 0 or section not in top):
                raise ConfigError(
                    f"config.{where} is unknown", fix=nearest(section, top)
                )
            node[section] = {}
        node = node[section]

    known = known_fields(config, sections)
    if sections == ["model"] and renamed.is_earlier(node.get("name"), name):
        known = None  # what it is called now is checked with the whole config
    if known is not None and name not in known:
        raise ConfigError(f"config.{path} is unknown", fix=nearest(name, known))

    annotation = known[name].type if known is not None else Any
    node[name] = parse_value(path, text, annotation)


def section_names() -> set[str]:
    """Returns the names of the top-level fields that are sections."""
    fields = registry.of(configs.Experiment).values()
    return {field.name for field in fields if field.type == configs.Section}


def known_fields(
    config: Mapping[str, Any], sections: Sequence[str]
) -> Mapping[str, registry.Field] | None:
    """Returns the fields of a section of `config`; None where they are not listed."""
    if not sections:
        return registry.of(configs.Experiment)
    if len(sections) > 1 or sections[0] == "schedules":
        return None
    section = config.get(sections[0], {})
    named = {"name": registry.Field("name", str, "", "which one")}
    return {**named, **configs.section_fields(sections[0], section)}


def parse_value(path: str, text: str, annotation: Any) -> Any:
    """Returns `text` as a value that `annotation` accepts, such as 'a,b' as two words.

    Raises:
      ConfigError: it is none.
    """
    candidates: list[Any] = []
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        candidates.append(ast.literal_eval(text))
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        candidates.append(words[text.lower()])
    candidates += [text, [word.strip() for word in text.split(",")]]
    candidates += [[value] for value in candidates]  # one number where a list is meant
    for value in candidates:
        if registry.accepts(annotation, value):
            return float(value) if registry.base_type(annotation) is float else value
    name = registry.Field("", annotation, None, "").type_name
    raise ConfigError(f"config.{path} must be {name}, got {text!r}")


def experiment_config(path: str, overrides: Mapping[str, str]) -> dict[str, Any]:
    """Returns the config of a file as a plain dict, overrides applied and checked."""
    config = renamed.current(configs.plain(load_config(path)))
    # Names first: they decide which other fields there are.
    for name in sorted(overrides, key=lambda n: not n.endswith(".name")):
        override(config, name, overrides[name])
        config = renamed.current(config)  # so that the last one to be set counts
    return config


def with_data_fields(
    config: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the data section of a config with other fields.

    Args:
      config: of a run.
      fields: values by name; text is read as that of --config.data.NAME.

    Raises:
      ConfigError: text that is no value of its field.
    """
    changed = {"data": dict(config["data"])}
    for name in sorted(fields, key=lambda n: n != "name"):  # which decides the others
        value = fields[name]
        if isinstance(value, str):
            override(changed, f"data.{name}", value)
        else:
            changed["data"][name] = value
    return changed["data"]


def describe_fields(config: Mapping[str, Any] | None) -> str:
    """Returns a line for every config field: name, type, value or default, meaning."""
    lines = ["", "config fields (--config.FIELD=VALUE):"]

    def describe(prefix: str, known: Mapping[str, registry.Field], values: Mapping):
        for name, field in known.items():
            value = values.get(name, field.default)
            if isinstance(value, Mapping):
                continue
            shown = "required" if value is registry.REQUIRED else repr(value)
            lines.append(f"  --config.{prefix}{name}  ({field.type_name}, {shown})")
            lines.append(f"      {field.meaning}")

    config = config or {}
    sections = section_names()
    top = registry.of(configs.Experiment)
    describe("", {k: v for k, v in top.items() if k not in sections}, config)
    for section in sorted(sections):
        lines.append(f"  [{section}]  {top[section].meaning}")
        values = config.get(section, {})
        is_open = "name" not in values and section in configs.NAMED
        if section != "schedules" and not is_open:
            describe(f"{section}.", configs.section_fields(section, values), values)
    if not config:
        text = "  With --config=FILE, the fields of its data, model and loss too."
        lines.append(text)
    return "\n".join(lines)
