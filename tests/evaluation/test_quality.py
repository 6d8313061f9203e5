"""Features that tell labels, and samples beside real images by them."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae.data.sources import ArraySource
from jvae.errors import ConfigError, DataError, WorkdirError
from jvae.evaluation.features import fit_features, read_features, write_features
from jvae.evaluation.quality import evaluate_quality
from jvae.reports.run import evaluate_run
from jvae.training import experiment

KEY = jax.random.key(0)


def split(n, seed):
    """Images [8, 8] whose upper or lower half is bright, which is their label."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n).astype(np.int32)
    image = rng.uniform(0.0, 0.3, (n, 8, 8, 1))
    image[:, :4] += 0.6 * (label == 0)[:, None, None, None]
    image[:, 4:] += 0.6 * (label == 1)[:, None, None, None]
    return ArraySource({"image": np.round(255 * image).astype("uint8"), "label": label})


TRAIN, TEST = split(400, 0), split(300, 1)


@pytest.fixture(scope="module")
def features():
    return fit_features(TRAIN, TEST, 2, num_steps=40)


class Half:
    """'Samples' that are upper halves, lower halves, or as the data, by temperature."""

    @staticmethod
    def generate(key, n, temperature, label):
        noise = jax.vmap(lambda k: jax.random.uniform(k, (9,)))(key)
        up = jnp.where(temperature == 0.5, True, noise[:, 0] < 0.5)
        rows = jnp.arange(8) < 4
        bright = rows[None] == up[:, None]
        image = 0.15 + 0.6 * bright[:, :, None, None] + jnp.zeros((n, 8, 8, 1))
        return image + 0.3 * (noise[:, 1:].reshape(n, 1, 8, 1) - 0.5)


@pytest.fixture
def trained(toys):
    class Model(toys.PixelCode):
        def generate(self, key, n, temperature=1.0, label=None):
            return Half.generate(key, n, temperature, label)

    return toys.trained(Model((1.0,)))


@pytest.mark.slow
def test_features_tell_labels_and_survive_the_disk(features, tmp_path):
    assert features.accuracy > 0.99 and features.image_shape == (8, 8, 1)
    assert features.name.startswith("classifier of 2 labels, 100.0% right, ")
    write_features(features, tmp_path / "f.npz")
    again = read_features(tmp_path / "f.npz")
    assert again.name == features.name
    images = np.random.default_rng(2).random((5, 8, 8, 1))
    np.testing.assert_array_equal(again.of(images), features.of(images))
    file = tmp_path / "f.npz"
    file.write_bytes(file.read_bytes()[:90])
    for name in ("f.npz", "none.npz"):
        with pytest.raises(WorkdirError, match="arrays cannot be read"):
            read_features(tmp_path / name)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_features(features):
    assert fit_features(TRAIN, TEST, 2, num_steps=40).digest == features.digest
    assert fit_features(TRAIN, TEST, 2, num_steps=41).digest != features.digest


def test_images_without_labels_have_none():
    with pytest.raises(DataError, match="features need labels"):
        fit_features(ArraySource({"image": TRAIN.arrays["image"]}), TEST, 2)


@pytest.mark.slow
def test_half_of_the_data_is_precise_and_covers_less(features, trained):
    """The temperature goes all the way: at 0.5 the toy draws one class alone."""
    found = evaluate_quality(
        trained,
        features,
        TEST,
        key=KEY,
        num_examples=200,
        temperatures=(1.0, 0.5),
        others=TRAIN,
    )
    real, whole, half = found.rows
    assert (real.sampler, whole.sampler, half.temperature) == (
        "real images",
        "prior",
        0.5,
    )
    assert real.frechet_distance < whole.frechet_distance < half.frechet_distance
    assert half.coverage < 0.6 < real.coverage
    assert half.recall <= whole.recall <= real.recall
    assert found.features == features.name and found.num_examples == 200


@pytest.mark.slow
def test_samplers_have_rows_of_their_own(features, toys):
    @flax.struct.dataclass
    class Still:
        code: jax.Array

        def sample(self, key, n, temperature=1.0):
            return jnp.tile(self.code[None], (n, 1))

    class Model(toys.PixelCode):
        def decode(self, z):
            return jnp.full((len(z), 8, 8, 1), 0.5) + 0.0 * z.sum()

        def generate(self, key, n, temperature=1.0, label=None):
            return Half.generate(key, n, temperature, label)

    trained = toys.trained(Model((1.0,)))
    options = {
        "key": KEY,
        "num_examples": 50,
        "samplers": {"still": Still(jnp.zeros(64))},
    }
    prior, still = evaluate_quality(trained, features, TEST, **options).rows
    assert still.sampler == "still" and still.frechet_distance > prior.frechet_distance
    assert still.recall == 0.0


@pytest.mark.slow
def test_too_few_images_and_images_of_another_size_are_refused(features, trained):
    with pytest.raises(ConfigError, match="fd_examples must be 0 or at least 6, got 5"):
        evaluate_quality(trained, features, TEST, key=KEY, num_examples=5)
    with pytest.raises(DataError, match="fd_examples is 301, and there are 300"):
        evaluate_quality(trained, features, TEST, key=KEY, num_examples=301)
    small = ArraySource({"image": TEST.arrays["image"][:, :4]})
    with pytest.raises(DataError, match=r"of images \[8, 8, 1\], these \[4, 8, 1\]"):
        evaluate_quality(trained, features, small, key=KEY, num_examples=50)


@pytest.mark.slow
def test_an_evaluation_fits_what_it_needs_once_and_reports_it(
    tiny, tmp_path, monkeypatch
):
    quick_fit = functools.partial(fit_features, num_steps=20)
    monkeypatch.setattr("jvae.evaluation.features.fit_features", quick_fit)
    experiment.run(tiny, tmp_path / "run")
    quick = {"num_samples": 1, "num_examples": 32, "num_images": 4, "batch_size": 32}
    asked = {"fd_examples": 60, "samplers": ["gaussian", "gmm"]}
    results = evaluate_run(tmp_path / "run", **quick, **asked)
    rows = [row["sampler"] for row in results["quality"]["rows"]]
    assert rows == ["real images", "prior", "prior", "gaussian", "gmm"]
    assert {"samples_gaussian.png", "samples_gmm.png"} <= results["pictures"].keys()
    page = next((tmp_path / "run" / "evaluation").rglob("report.html")).read_text()
    assert results["quality"]["features"] in page and "prior at 0.7" in page
    file = tmp_path / "run" / "features.npz"
    written = file.stat().st_mtime_ns
    again = evaluate_run(tmp_path / "run", **quick, **asked)
    assert file.stat().st_mtime_ns == written
    assert again["quality"] == results["quality"]
