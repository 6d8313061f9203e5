"""A TensorFlow data set, built without TensorFlow."""

import numpy as np
import PIL.Image
import pytest


@pytest.fixture(scope="session")
def make_squares():
    """A function (folder, file_format) that writes 'squares' and 'uneven' there."""
    import tensorflow_datasets as tfds

    class Squares(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "squares"
        shape = (6, 5, 1)

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=self.shape),
                "label": tfds.features.ClassLabel(num_classes=4),
                "weight": tfds.features.Scalar(np.float32),
                "depth": tfds.features.Tensor(shape=(2, 2), dtype=np.float32),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {
                "train": self._generate_examples(0, 30),
                "test": self._generate_examples(1, 8),
            }

        def _generate_examples(self, split, count):
            for i in range(count):
                random = np.random.default_rng([i, split])
                pixels = random.integers(0, 256, (6, 5), np.uint8)
                picture = PIL.Image.fromarray(self.drawn(pixels, i))
                depth = np.full((2, 2), i / 30, np.float32)
                others = {"label": i % 4, "weight": 1.0, "depth": depth}
                yield i, {"image": picture, **others}

        def drawn(self, pixels, i):
            return pixels

    class Uneven(Squares, skip_registration=True):
        name = "uneven"
        shape = (None, None, 3)

        def drawn(self, pixels, i):
            return np.full((8 + i, 9, 3), i, np.uint8)

    def make(folder, file_format):
        shards = tfds.download.DownloadConfig(num_shards=2)
        for builder in (Squares, Uneven):
            builder(data_dir=str(folder), file_format=file_format).download_and_prepare(
                download_config=shards
            )
        return folder

    return make


@pytest.fixture(scope="session")
def prepared(make_squares, tmp_path_factory):
    """A data directory with 'squares' 1.0.0 and 'uneven' 1.0.0, two shards a split."""
    return make_squares(tmp_path_factory.mktemp("prepared"), "array_record")
