"""A trained model, restored from a workdir without the flags it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath
from jax.sharding import Mesh

from jvae import import_paths, models
from jvae.contract import as_model
from jvae.data import rules, transforms
from jvae.data.vocabulary import Vocabulary
from jvae.errors import WorkdirError, require
from jvae.flows import check_scales
from jvae.pretrained.pretrained import Pretrained
from jvae.pretrained.samplers.store import folder_of
from jvae.runtime import mesh as meshes
from jvae.types import Params
from jvae.workdir import checkpoints, renamed

__all__ = ["Pretrained", "restore"]


def restore(
    workdir: epath.PathLike,
    step: int | str = "best",
    params: str = "ema",
    mesh: Mesh | None = None,
    allow_imports: import_paths.Allowed = False,
) -> Pretrained:
    """Returns the model that a run in `workdir` has trained.

    Needs neither the data set nor the optimizer, and works on a workdir that was moved
    and on any devices. Nothing in a workdir runs code, but for a model or transform of
    your own, which is imported by the path in its config if you allow it.

    Args:
      workdir: the run's folder.
      step: 'best' (on validation data; the last where none was measured), 'last', or
        the number of a checkpoint.
      params: 'ema', the averaged parameters if the run kept them, or 'raw'.
      mesh: the devices to use; None for all.
      allow_imports: whether modules that the config names may be imported, whose code
        then runs; or the import paths that may.

    Raises:
      WorkdirError: no such checkpoint, or one that is damaged or too new.
      ConfigError: `params` is unknown, an import is needed and not allowed, or a flow
        has no inverse.
    """
    devices = mesh or meshes.build()
    require(params in ("ema", "raw"), "params", "be 'ema' or 'raw'", params)

    folder, number = checkpoints.choose(workdir, step)
    item, meta = folder.restore_model(number, devices)
    config = renamed.current(meta["config"])
    for name in ("data", "model"):
        if not isinstance(config.get(name), Mapping):
            raise WorkdirError(
                f"the config of checkpoint {number} has no section {name}",
                where=str(workdir),
                fix="Take another step.",
            )
    config["data"] = rules.of_stored(config["data"])

    with import_paths.allowed(allow_imports):
        model = as_model(models.build(**config["model"]))
        section = config["data"]
        padding = section.get("padding", 0)  # not in runs of earlier releases
        name, num_bits = section["transform"], section["num_bits"]
        transform = transforms.build(name, num_bits, padding)

    weights = params_of(item, params)
    check_scales(weights, f"{workdir}, step {number}", "Take another step.")

    return Pretrained(
        config=config,
        step=number,
        model=model,
        params=weights,
        state=item["state"],
        transform=transform,
        mesh=devices,
        vocabulary=Vocabulary.of_labels(meta),
        samplers=folder_of(workdir, number, params),
        sampled_at=meta.get("sampled_at"),
    )


def params_of(item: Mapping[str, Any], params: str) -> Params:
    """Returns the averaged parameters if they are asked for and there are any."""
    averaged = item["ema"] if params == "ema" else None
    return item["params"] if averaged is None else averaged
