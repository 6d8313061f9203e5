"""Samplers on disk, beside the checkpoint that they belong to."""

from __future__ import annotations

from typing import Any

from etils import epath

from jvae import registry
from jvae.errors import ConfigError
from jvae.pretrained.samplers.flow import FlowSampler
from jvae.pretrained.samplers.mixture import MixtureSampler
from jvae.pretrained.samplers.neighbors import NeighborSampler
from jvae.workdir import files, npz

FOLDER = "samplers"
KINDS: dict[str, Any] = {
    "MixtureSampler": MixtureSampler,
    "NeighborSampler": NeighborSampler,
    "NeighbourSampler": NeighborSampler,  # its name in 0.1.0
    "FlowSampler": FlowSampler,
}
"""Samplers by what a file calls them."""


def folder_of(workdir: epath.PathLike, step: int, params: str) -> epath.Path:
    """Returns where the samplers of a step lie, WORKDIR/samplers/STEP_ema.

    Args:
      workdir: of the run.
      step: of the checkpoint.
      params: 'ema' or 'raw'.
    """
    return files.absolute(workdir) / FOLDER / f"{step:08d}_{params}"


def names(folder: epath.PathLike) -> list[str]:
    """Returns the names of the samplers that a folder has."""
    path = epath.Path(folder)
    return sorted(f.stem for f in path.glob("*.npz")) if path.is_dir() else []


def save(
    sampler: Any, name: str, folder: epath.PathLike, about: dict[str, Any]
) -> None:
    """Writes a sampler to FOLDER/NAME.npz, whole or not at all.

    Args:
      sampler: of one of the classes of `KINDS`.
      name: that it is asked for by.
      folder: from `folder_of`; made if missing.
      about: JSON, how it was fitted.
    """
    fields = registry.values(sampler)
    numbers = {name: fields[name] for name in ("depth", "width") if name in fields}
    kind = next(name for name, cls in KINDS.items() if type(sampler) is cls)
    said = {"kind": kind, "fields": numbers, **about}
    path = epath.Path(folder)
    files.check_within(path, path.parent.parent)
    npz.write_npz(path / f"{name}.npz", sampler, said)


def load(name: str, folder: epath.PathLike) -> Any:
    """Returns a saved sampler.

    Args:
      name: of the sampler.
      folder: from `folder_of`.

    Raises:
      ConfigError: there is none of that name; says which there are.
      WorkdirError: the file is damaged.
    """
    path = epath.Path(folder) / f"{name}.npz"
    if not path.exists():
        there = ", ".join(names(folder)) or "none"
        raise ConfigError(
            f"sampler {name!r} was not fitted for this checkpoint; there are: {there}",
            fix="jvae sample WORKDIR OUT --sampler=NAME fits one.",
        )
    tree, about = npz.read_npz(path)
    try:
        return KINDS[about["kind"]](**tree, **about["fields"])
    except (KeyError, TypeError) as error:
        raise npz.unreadable(path, error) from error
