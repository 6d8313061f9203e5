"""Draws images from a trained model and writes each as a PNG file.

jvae sample WORKDIR OUT --n=100 --temperature=0.8 --sampler=gmm

A sampler other than the prior is fitted to the codes of training images, unless it has
been for this checkpoint, and is saved in the workdir, where
`jvae.restore(WORKDIR).sample(..., sampler='gmm')` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from etils import epath

from jvae import keys
from jvae.commands.flags import chosen, empty_folder, model_parser, restored
from jvae.errors import ConfigError
from jvae.evaluation.quality import PRIOR
from jvae.pretrained import image_grid, samplers
from jvae.pretrained.restore import Pretrained


def write_images(
    model: Pretrained,
    out: epath.PathLike,
    n: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    sampler: str = PRIOR,
) -> None:
    """Writes OUT/00000.png and so on, n files.

    Args:
      model: from `jvae.restore`, of images.
      out: a folder; made if missing, must be empty.
      n: how many images.
      seed: of the draws.
      temperature: factor on the prior's standard deviation.
      sampler: 'prior' or a name of `jvae.pretrained.samplers.SAMPLERS`.

    Raises:
      WorkdirError: `out` has files in it.
      ConfigError: a number out of range, a model without images.
    """
    folder = empty_folder(out)
    if not model.makes_images:
        raise ConfigError(f"{model.name} makes no images")
    name = None if sampler == PRIOR else sampler
    if name is not None:
        model.sampler(name)
    images = model.sample(keys.of_seed(seed), n, temperature, sampler=name)
    unit = np.clip(np.asarray(model.transform.to_unit(jnp.asarray(images))), 0.0, 1.0)
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(np.round(255.0 * unit).astype(np.uint8)):
        image_grid.write_png(folder / f"{i:05d}.png", image)


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parser = model_parser("jvae sample", __doc__)
    parser.add_argument("--n", type=int, default=100, help="number of images")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    known = ", ".join((PRIOR, *samplers.SAMPLERS))
    parser.add_argument("--sampler", default=PRIOR, help=known)
    flags, model = restored(parser, arguments)
    options = chosen(flags, ("seed", "temperature", "sampler"))
    write_images(model, flags.out, flags.n, **options)
    print(f"step {model.step}: {flags.n} images in {flags.out}")
