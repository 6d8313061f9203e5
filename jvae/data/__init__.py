"""Data sets with random access, the order of training, what pixels become.

Importing this package needs numpy and jax; Grain, Pillow, scikit-learn and TensorFlow
Datasets are imported by the functions that use them.
"""

from jvae.data.datasets import DATASETS, build
from jvae.data.pipeline import batch_indices, eval_batches, order, train_batches
from jvae.data.sources import ArraySource, Source, Splits

__all__ = [
    "DATASETS",
    "ArraySource",
    "Source",
    "Splits",
    "batch_indices",
    "build",
    "eval_batches",
    "order",
    "train_batches",
]
