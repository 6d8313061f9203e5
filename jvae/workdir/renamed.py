"""Fields and values of a config that earlier releases called otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLOW = {"keep": "none", "couplings": "couplings", "recompute": "steps"}
FLOW |= {"invert": "invert"}
NVAE = {"keep": "none", "recompute": "cells"}

FIELDS: dict[tuple[Any, str], tuple[str, dict[str, str]]] = {
    ("glow", "memory"): ("remat", FLOW),
    ("fvae", "memory"): ("remat", FLOW),
    ("nvae", "memory"): ("remat", NVAE),
}
"""(model, its field before): (the field now, {value before: value now})."""

LATENTS = {"normalised_gaussian": "normalized_gaussian"}
"""Names of latents."""


def current(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with the names of this release.

    Args:
      config: of any release, 0.1.0 or later; stays as it is. Values that no release
        has known stay too, and are refused where they are checked.
    """
    model = config.get("model")
    if not isinstance(model, Mapping):
        return dict(config)
    fields = dict(model)
    for name in model:
        if is_earlier(model.get("name"), name):
            field, values = FIELDS[model["name"], name]
            fields[field] = _renamed(values, fields.pop(name))
    if "latent" in fields:
        fields["latent"] = _latent(fields["latent"])
    return {**config, "model": fields}


def is_earlier(model: Any, field: str) -> bool:
    """Returns whether a field of a model is one that has another name now.

    Args:
      model: the name of the model, as a config has it.
      field: of that model.
    """
    return isinstance(model, str) and (model, field) in FIELDS


def path_now(config: Mapping[str, Any], path: str) -> str:
    """Returns what 'section.field' is called in this release."""
    section, _, field = path.partition(".")
    name = config["model"]["name"]
    if section == "model" and is_earlier(name, field):
        return f"model.{FIELDS[name, field][0]}"
    return path


def _latent(latent: Any) -> Any:
    """Returns the latents of a model, a name or {'name': ..., fields}."""
    if isinstance(latent, Mapping) and "name" in latent:
        return {**latent, "name": _renamed(LATENTS, latent["name"])}
    return _renamed(LATENTS, latent)


def _renamed(values: Mapping[str, str], value: Any) -> Any:
    return values.get(value, value) if isinstance(value, str) else value
