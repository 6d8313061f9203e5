"""Import paths 'package.module:Name' in a config: whose code may run, and where."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jvae.errors import ConfigError

Allowed = bool | frozenset[str]
"""Import paths that may be followed: all, none, or these."""

_may_import = contextvars.ContextVar[Allowed]("may_import", default=True)


@contextlib.contextmanager
def allowed(paths: Allowed) -> Iterator[None]:
    """A context in which names from a config may be import paths, or not.

    An import runs code, so names that come from a file somebody else has written, such
    as a workdir's, are looked up in registries alone unless the caller allows more.
    """
    token = _may_import.set(paths)
    try:
        yield
    finally:
        _may_import.reset(token)


def is_one(name: str) -> bool:
    """Returns whether a text is meant as an import path."""
    return re.fullmatch(r"[\w.-]*:[\w.:-]*", name) is not None


def named(config: Any) -> frozenset[str]:
    """Returns the import paths that a config names, in any of its sections."""
    if isinstance(config, Mapping):
        return frozenset().union(*map(named, config.values()))
    if isinstance(config, str) and is_one(config):
        return frozenset((config,))
    return frozenset()


def imported(name: str, where: str) -> Any:
    """Returns what an import path names; its module is imported, so its code runs.

    Args:
      name: 'package.module:Name'.
      where: the config section, for the message.

    Raises:
      ConfigError: it may not be imported here, see `allowed`, or cannot be.
    """
    paths = _may_import.get()
    if not (name in paths if isinstance(paths, frozenset) else paths):
        raise ConfigError(
            f"{where}.name {name!r} is an import path, whose code would run",
            fix="If you trust where it comes from, pass allow_imports=True or "
            "--allow_imports.",
        )
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}.name {name!r} cannot be imported: {error}",
            fix="Write 'package.module:Name' and put the package on PYTHONPATH.",
        ) from error
