"""FID between two sets of images, from Inception features that you have computed.

jvae fid REAL SAMPLES

Each file is .npy, features [N, D], or .npz with 'mu' [D] and 'sigma' [D, D], as tools
that compute FID write them. `jvae sample` writes the images. Of two files of
features, precision, recall, density and coverage too. See docs/samples.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from jvae.commands.flags import Parser, parse
from jvae.errors import UNREADABLE_NPZ, ConfigError, DataError
from jvae.evaluation import frechet

FIX = "Give features [N, D] as .npy, or 'mu' and 'sigma' as .npz."


@dataclasses.dataclass(frozen=True)
class ImageFeatures:
    """What is known of a set of images.

    Attributes:
      mean: [D], of its features.
      covariance: [D, D].
      values: [N, D]; None where the file has the moments alone.
    """

    mean: np.ndarray
    covariance: np.ndarray
    values: np.ndarray | None = None


def load_features(path: epath.PathLike) -> ImageFeatures:
    """Returns the features of a file, or their moments.

    Raises:
      DataError: no such file, or one that holds anything else.
    """
    try:
        with epath.Path(path).expanduser().open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.ndarray):
                return _of_moments(dict(content), path)
            return _of_values(np.asarray(content, np.float64), path)
    except DataError:
        raise
    except UNREADABLE_NPZ as error:
        raise DataError(
            f"features cannot be read: {error}", where=str(path), fix=FIX
        ) from error


def _check(condition: Any, what: str, path: Any) -> None:
    if not condition:
        raise DataError(what, where=str(path), fix=FIX)


def _of_values(values: np.ndarray, path: Any) -> ImageFeatures:
    fits = values.ndim == 2 and len(values) >= 2 and np.isfinite(values).all()
    rule, shape = "be finite numbers [N, D], N at least 2", list(values.shape)
    _check(fits, f"features must {rule}, got shape {shape}", path)
    return ImageFeatures(values.mean(0), np.atleast_2d(np.cov(values.T)), values)


def _of_moments(arrays: dict[str, np.ndarray], path: Any) -> ImageFeatures:
    both = "'mu' and 'sigma'"
    are_there = {"mu", "sigma"} <= arrays.keys()
    _check(are_there, f"{both} are not among {sorted(arrays)}", path)
    mean, covariance = arrays["mu"], arrays["sigma"]
    fits = mean.ndim == 1 and covariance.shape == (len(mean), len(mean))
    shapes = f"{list(mean.shape)} and {list(covariance.shape)}"
    _check(fits, f"{both} must be [D] and [D, D], got {shapes}", path)
    is_finite = np.isfinite(mean).all() and np.isfinite(covariance).all()
    _check(is_finite, f"{both} must be finite", path)
    return ImageFeatures(mean.astype(np.float64), covariance.astype(np.float64))


def compare(real: ImageFeatures, generated: ImageFeatures) -> dict[str, float]:
    """Returns 'fid', and of two files of features the measures of overlap.

    Args:
      real: of real images.
      generated: of samples.

    Raises:
      DataError: features of another size.
    """
    sizes = [len(f.mean) for f in (real, generated)]
    if sizes[0] != sizes[1]:
        raise DataError(f"features have {sizes[0]} and {sizes[1]} numbers")
    both = (real.mean, real.covariance, generated.mean, generated.covariance)
    metrics = {"fid": frechet.between_gaussians(*both)}
    if real.values is not None and generated.values is not None:
        if min(len(real.values), len(generated.values)) > frechet.NEIGHBOURS:
            metrics |= frechet.overlap(real.values, generated.values)
    return metrics


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("jvae fid", __doc__)
    parser.add_argument("real", nargs="?", help="of real images")
    parser.add_argument("samples", nargs="?", help="of samples")
    flags = parse(parser, arguments)
    if not flags.samples:
        raise ConfigError("name two files", where=parser.prog, fix=FIX)
    sets = [load_features(path) for path in (flags.real, flags.samples)]
    for path, features in zip((flags.real, flags.samples), sets, strict=True):
        if features.values is None:
            print(f"{path}: moments of {len(features.mean)} features")
            continue
        count, size = features.values.shape
        few = " (fewer than the covariance needs)" if count <= size else ""
        print(f"{path}: {count:,} images, {size} features{few}")
    for name, value in compare(*sets).items():
        print(f"{name:10s} {value:.6g}")
