"""The evaluation of a run, from its workdir alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from jvae import import_paths, registry
from jvae.data import datasets
from jvae.evaluation.features import load_or_fit
from jvae.evaluation.settings import Settings
from jvae.pretrained import restore
from jvae.reports import report
from jvae.runtime import distributed
from jvae.training import config_files
from jvae.workdir import files
from jvae.workdir.metrics import read_metrics


def _with_error(row: Mapping[str, Any]) -> str:
    """Returns '-22.48 +- 0.31', a number and its standard error if it has one."""
    value, error = row["value"], row["standard_error"]
    if value is None:
        return "not finite"
    return f"{value:.5g}" + ("" if error is None else f" +- {error:.2g}")


@distributed.device_errors()
def evaluate_run(
    workdir: epath.PathLike,
    *,
    step: int | str = "best",
    params: str = "ema",
    split: str = "test",
    out: str | None = None,
    data_fields: Mapping[str, Any] | None = None,
    allow_imports: import_paths.Allowed = False,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluates a run from its workdir alone: results.json, pictures, report.html.

    Args:
      workdir: the run's folder; only read, but for the results.
      step: 'best', 'last' or the number of a checkpoint.
      params: 'ema' or 'raw'.
      split: 'test', 'validation' or 'train'.
      out: folder for the results; None for WORKDIR/evaluation/SPLIT_STEP.
      data_fields: fields of the data set that are different here, such as its path;
        text is read as that of --config.data.NAME.
      allow_imports: whether the modules that its config names may be imported, which
        runs their code; or the import paths that may.
      **settings: fields of `jvae.evaluation.settings.Settings`.

    Returns:
      What results.json holds.

    Raises:
      ConfigError: an unknown field or split, or an import that is not allowed.
      DataError: the data set is missing, or has no such split.
      WorkdirError: there is no such run or checkpoint.
      DeviceError: devices are missing, or out of memory.
    """
    registry.check(Settings, settings, "eval")
    distributed.check_devices()
    restored = restore.restore(workdir, step, params, allow_imports=allow_imports)
    if settings.get("statistics") != "train":  # which are measured anew
        restored.require_statistics_of_data()

    checked, config = Settings(**settings), restored.config
    with import_paths.allowed(allow_imports):
        section = config_files.with_data_fields(config, data_fields or {})
        vocabulary = restored.vocabulary
        source = datasets.load_split(section, split, vocabulary)
        needed = checked.needs_training_split(restored)
        train = datasets.load_split(section, "train", vocabulary) if needed else None

    folder = epath.Path(out or workdir).expanduser()
    if out is None:
        folder = folder / "evaluation" / f"{split}_{restored.step:08d}"
        files.check_within(folder, epath.Path(workdir).expanduser())

    features = None
    if checked.fd_examples > 0 and restored.makes_images:
        features = load_or_fit(workdir, section, checked.features)

    results = report.evaluate(
        restored,
        source,
        folder,
        config=config,
        step=restored.step,
        split=split,
        key=jax.random.key(config["seed"]),
        train=train,
        history=read_metrics(workdir),
        samplers={n: restored.sampler(n, train) for n in checked.samplers},
        features=features,
        settings=checked,
    )

    for name, row in results["metrics"].items():
        print(f"{name:18s} {_with_error(row)} {row['unit']}  ({row['kind']})")
    if "verdict" in results:
        print(results["verdict"]["sentence"])
    print(f"report: {folder / 'report.html'}")
    return results
