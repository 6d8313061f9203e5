"""The folder of a run: made and labelled with its config, or checked against it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from jvae import config as configs
from jvae.config import Experiment
from jvae.errors import WorkdirError

CONFIG_FILE = "config.json"


def open_workdir(workdir: epath.PathLike, experiment: Experiment) -> epath.Path:
    """Returns the run's folder, made and labelled, or checked against the config.

    Raises:
      WorkdirError: it cannot be a folder, or holds a run of another config.
    """
    root = epath.Path(workdir).expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (OSError, NotADirectoryError) as error:
        raise WorkdirError(
            f"workdir cannot be made: {error.strerror or error}",
            where=str(root),
            fix="Name a folder that can be written.",
        ) from error
    file = root / CONFIG_FILE
    given = experiment.to_dict()
    if file.exists():
        check_same_run(json.loads(file.read_text()), given, root)
    file.write_text(json.dumps(given, indent=2) + "\n")
    return root


def check_same_run(
    stored: Mapping[str, Any], given: Mapping[str, Any], root: epath.Path
) -> None:
    """Raises WorkdirError if `given` learns something else than the stored run."""
    changed = configs.differences(configs.identity(stored), configs.identity(given))
    if changed:
        raise WorkdirError(
            f"the run there has another config: {'; '.join(changed)}",
            where=str(root),
            fix="Use another workdir, or the stored values.",
        )


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
    """Returns WORKDIR/config.json.

    Raises:
      WorkdirError: there is none.
    """
    file = epath.Path(workdir).expanduser() / CONFIG_FILE
    if not file.exists():
        raise WorkdirError(
            f"there is no {CONFIG_FILE}",
            where=str(workdir),
            fix="Name the workdir of a run.",
        )
    return json.loads(file.read_text())
