"""Libraries that only some data sets need."""

from __future__ import annotations

import importlib
from typing import Any

from jvae.errors import ConfigError


def library(module: str, package: str) -> Any:
    """Returns the imported `module`.

    Args:
      module: its import path.
      package: what pip calls it, for the message.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{module} cannot be imported: {error}",
            fix=f"Run: pip install '{package}'.",
        ) from error
