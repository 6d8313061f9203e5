"""Makes a workdir for samples: BatchNorm's statistics are those of the samples.

jvae recalibrate --workdir=DIR --out=DIR --temperature=0.7

`jvae.restore(OUT)` samples, and images at that temperature come out better from a deep
hierarchy. Parameters are those of the run, averaged ones if it kept them; there is
nothing to train in it, and its likelihoods are not those of the run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from etils import epath

from jvae import keys
from jvae.commands.flags import Parser, add_model, chosen, model_of, parse, require_flag
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
    sizes = {"num_passes": num_passes, "batch_size": batch_size}
    for name, value in sizes.items():
        require(value >= 1, name, "be at least 1", value)

    root = files.absolute(out)
    if (root / checkpoints.CHECKPOINTS).is_dir():
        raise WorkdirError(
            "there are checkpoints", where=str(root), fix="Name another folder."
        )

    model = restore(workdir, step, params, allow_imports=allow_imports)
    if COLLECTION not in model.state or not model.model.offers("generate"):
        raise ConfigError(
            f"{model.name} has no BatchNorm whose samples could be measured"
        )
    key = keys.of_seed(seed)
    trained = sampled(model, key=key, temperature=temperature, **sizes)

    root.mkdir(parents=True, exist_ok=True)
    files.write_whole(root / CONFIG_FILE, json.dumps(model.config, indent=2) + "\n")
    labels = {"config": model.config, "sampled_at": temperature}
    if model.vocabulary is not None:
        labels |= model.vocabulary.labels

    item = {"params": model.params, "ema": None, "state": trained.state}
    folder = checkpoints.Checkpoints(root / checkpoints.CHECKPOINTS, keep=1)
    folder.save(model.step, {"model": item}, labels)
    folder.wait()
    folder.close()
    return restore(root, allow_imports=allow_imports)


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("jvae recalibrate", __doc__)
    parser.add_argument("--workdir", help="folder of the run")
    parser.add_argument("--out", help="the new workdir")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--num_passes", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    add_model(parser)
    flags = parse(parser, arguments)
    require_flag("--workdir", flags.workdir, "runs/nvae")
    require_flag("--out", flags.out, "runs/nvae")
    options = chosen(flags, ("temperature", "num_passes", "batch_size", "seed"))
    model = recalibrate(flags.workdir, flags.out, **options, **model_of(flags))
    print(f"step {model.step} with statistics of its samples in {flags.out}")
