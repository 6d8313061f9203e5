"""What a config says of every data set: how its examples are fed and prepared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jvae import registry
from jvae.ranges import Bits, NonNegativeInt, PositiveInt


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Options of `config.data` that every data set has.

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

    Raises:
      ConfigError: a value out of range.
    """

    batch_size: PositiveInt = 128
    transform: (
        Literal[
            "unit", "signed", "binarize", "threshold", "dequantize", "levels", "tokens"
        ]
        | str
    ) = "unit"
    num_bits: Bits = 8
    padding: NonNegativeInt = 0
    mirror: bool = False
    num_validation: NonNegativeInt = 0
    placement: Literal["host", "device"] = "host"
    num_threads: NonNegativeInt = 2

    def __post_init__(self) -> None:
        """Checks every field."""
        registry.check_instance(self, "data")

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> DataOptions:
        """Returns the options of a config's data section, defaults filled in."""
        known = registry.of(cls)
        return cls(**{name: v for name, v in section.items() if name in known})
