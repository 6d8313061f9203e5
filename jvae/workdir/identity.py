"""What makes two configs the same run: fields that a run cannot change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jvae.workdir import renamed

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


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a config that a run cannot change: what is learned, how."""
    config = renamed.current(config)
    fields = {k: v for k, v in config.items() if k not in CHANGEABLE}
    fields["data"] = {
        k: v for k, v in config["data"].items() if k not in CHANGEABLE_DATA
    }
    return fields


def differences(
    stored: Mapping[str, Any], given: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Returns 'section.field: A there, B here' for every field that differs."""
    texts = []
    for name in sorted({*stored, *given}):
        a, b = stored.get(name), given.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            texts += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            texts.append(f"{prefix}{name}: {a!r} there, {b!r} here")
    return texts
