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
        field, values = FIELDS.get((model.get("name"), name), (name, {}))
        if field != name:
            value = fields.pop(name)
            fields[field] = _renamed(values, value)
    if "latent" in fields:
        fields["latent"] = _latent(fields["latent"])
    return {**config, "model": fields}


def is_earlier(model: str, field: str) -> bool:
    """Returns whether a field of a model is one that has another name now."""
    return (model, field) in FIELDS


def _latent(latent: Any) -> Any:
    """Returns the latents of a model, a name or {'name': ..., fields}."""
    if isinstance(latent, Mapping) and "name" in latent:
        return {**latent, "name": _renamed(LATENTS, latent["name"])}
    return _renamed(LATENTS, latent)


def _renamed(values: Mapping[str, str], value: Any) -> Any:
    return values.get(value, value) if isinstance(value, str) else value
