"""Makes a workdir for samples: BatchNorm's statistics are those of the samples.

jvae recalibrate --workdir=DIR --out=DIR --temperature=0.7

`jvae.restore(OUT)` samples, and images at that temperature come out better from a deep
hierarchy. Parameters are those of the run, averaged ones if it kept them; there is
nothing to train in it, and its likelihoods are not those of the run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jax
from etils import epath

from jvae.commands.flags import (
    Parser,
    add_choice,
    add_imports,
    choice_of,
    parse,
)
from jvae.errors import ConfigError, WorkdirError, require
from jvae.pretrained.batch_norm import COLLECTION, sampled
from jvae.pretrained.restore import Pretrained, restore
from jvae.workdir import checkpoints, files
from jvae.workdir.run_folder import CONFIG_FILE


def recalibrate(
    workdir: epath.PathLike,
    out: epath.PathLike,
    *,
    temperature: float = 1.0,
    num_passes: int = 500,
    batch_size: int = 16,
    seed: int = 0,
    step: int | str = "best",
    params: str = "ema",
    allow_imports: bool = False,
) -> Pretrained:
    """Returns a model with the statistics of its samples, and writes it to a workdir.

    Args:
      workdir: of a run.
      out: the new workdir, without checkpoints.
      temperature: of the samples, positive.
      num_passes: batches that are sampled.
      batch_size: images in each.
      seed: of the draws.
      step: which model of the run, as `jvae.restore` has it.
      params: 'ema' or 'raw', as there.
      allow_imports: whether modules that the config names may be imported.

    Raises:
      WorkdirError: no such run, or `out` has checkpoints.
      ConfigError: a model without BatchNorm or without samples, a number out of range.
    """
    require(0 < temperature < float("inf"), "temperature", "be positive", temperature)
    for name, value in (("num_passes", num_passes), ("batch_size", batch_size)):
        require(value >= 1, name, "be at least 1", value)
    root = files.absolute(out)
    if (root / checkpoints.CHECKPOINTS).is_dir():
        raise WorkdirError(
            "there are checkpoints", where=str(root), fix="Name another folder."
        )
    model = restore(workdir, step, params, allow_imports=allow_imports)
    name = model.name
    if COLLECTION not in model.state or not model.model.offers("generate"):
        raise ConfigError(f"{name} has no BatchNorm whose samples could be measured")
    trained = sampled(
        model,
        key=jax.random.key(seed),
        temperature=temperature,
        num_passes=num_passes,
        batch_size=batch_size,
    )
    root.mkdir(parents=True, exist_ok=True)
    files.write_whole(root / CONFIG_FILE, json.dumps(model.config, indent=2) + "\n")
    labels = {"config": model.config, "sampled_at": temperature}
    if model.vocabulary is not None:
        labels["vocabulary"] = list(model.vocabulary.words)
    item = {"params": model.params, "ema": None, "state": trained.state}
    folder = checkpoints.Checkpoints(root / checkpoints.CHECKPOINTS, keep=1)
    folder.save(model.step, {"model": item}, labels)
    folder.wait()
    folder.close()
    return restore(root, allow_imports=allow_imports)


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    flags_of = Parser("jvae recalibrate", __doc__)
    flags_of.add_argument("--workdir", help="folder of the run")
    flags_of.add_argument("--out", help="the new workdir")
    flags_of.add_argument("--temperature", type=float, default=1.0)
    flags_of.add_argument("--num_passes", type=int, default=500)
    flags_of.add_argument("--batch_size", type=int, default=16)
    flags_of.add_argument("--seed", type=int, default=0)
    add_choice(flags_of)
    add_imports(flags_of)
    flags = parse(flags_of, arguments)
    for name, folder in (("workdir", flags.workdir), ("out", flags.out)):
        if not folder:
            raise ConfigError(f"--{name} is missing", fix=f"E.g. --{name}=runs/nvae.")
    model = recalibrate(
        flags.workdir,
        flags.out,
        temperature=flags.temperature,
        num_passes=flags.num_passes,
        batch_size=flags.batch_size,
        seed=flags.seed,
        allow_imports=flags.allow_imports,
        **choice_of(flags),
    )
    print(f"step {model.step} with statistics of its samples in {flags.out}")
