"""What a config says of every data set: how its examples are fed and prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from jvae import registry
from jvae.errors import require


def data_options(
    batch_size: int = 128,
    transform: Literal[
        "unit", "signed", "binarize", "threshold", "dequantize", "levels", "tokens"
    ]
    | str = "unit",
    num_bits: int = 8,
    padding: int = 0,
    mirror: bool = False,
    num_validation: int = 0,
    placement: Literal["host", "device"] = "host",
    num_threads: int = 2,
) -> dict[str, Any]:
    """Returns the checked options of `config.data` that every data set has.

    Args:
      batch_size: examples per update, over all devices and processes.
      transform: what pixels become on the device: 'unit' [0, 1], 'signed' [-1, 1],
        'binarize' (Bernoulli draws, new at every visit), 'threshold', 'dequantize'
        (uniform noise over the bin), 'levels' (integers), or an import path; 'tokens'
        for sentences.
      num_bits: bits per pixel that are kept.
      padding: rows and columns of zeros around every image, on each side; they count
        as pixels.
      mirror: whether half of the training images, by chance, are seen mirrored.
      num_validation: training examples held out for validation if the data set has no
        validation split of its own; 0 for none, then 'best' is the last checkpoint.
      placement: 'host' feeds batches from the host; 'device' keeps the training data
        in device memory.
      num_threads: threads that read batches ahead.
    """
    require(batch_size >= 1, "data.batch_size", "be at least 1", batch_size)
    require(padding >= 0, "data.padding", "be at least 0", padding)
    require(num_threads >= 0, "data.num_threads", "be at least 0", num_threads)
    return dict(locals())


def options_of(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the checked options of a config's data section, defaults filled in."""
    names = registry.of(data_options)
    return data_options(**{k: v for k, v in section.items() if k in names})
