import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae.data import transforms
from jvae.data.sources import ArraySource
from jvae.errors import ConfigError, DataError

KEY = jax.random.key(3)


def first_pixel_and_draw(trained, key, batch):
    draw = jax.vmap(jax.random.normal)(key)
    return {"pixel": batch["image"][:, 0, 0, 0], "draw": draw}


@pytest.fixture
def gray():
    pixels = np.arange(37 * 6, dtype=np.uint8).reshape(37, 2, 3, 1)
    return ArraySource({"image": pixels})


def run(trained, source, batch_size, **options):
    options |= {"batch_size": batch_size, "key": KEY}
    return trained.map_examples(first_pixel_and_draw, source, **options)


def test_every_example_comes_once_and_in_order(toys, gray):
    trained = toys.trained(toys.PixelCode((1.0,)))
    for count in (1, 8, 9, 37):
        found = run(trained, gray, 8, num_examples=count)
        np.testing.assert_array_equal(found["pixel"], np.arange(count) * 6)


def mean_pixel(trained, key, batch):
    pixel, kept = batch["image"][:, 0, 0, 0], batch["mask"]
    return {"mean": (pixel * kept).sum() / kept.sum(), "rows": kept.sum()}


@pytest.mark.parametrize("count", [1, 8, 9, 37])
def test_a_mean_over_batches_is_that_over_examples(toys, gray, count):
    trained = toys.trained(toys.PixelCode((1.0,)))
    found = trained.mean_over_batches(
        mean_pixel, gray, batch_size=8, key=KEY, num_examples=count
    )
    np.testing.assert_allclose(found["mean"], 6 * np.arange(count).mean(), rtol=1e-6)
    sizes = np.array([8] * (count // 8) + [count % 8] * (count % 8 > 0))
    np.testing.assert_allclose(found["rows"], (sizes**2).sum() / count)


def test_draws_do_not_depend_on_batch_size_or_devices(toys, gray):
    transform = transforms.build("binarize")
    model = toys.PixelCode((1.0,))
    wide = run(toys.trained(model, transform), gray, 16)
    alone = run(toys.trained(model, transform, toys.ONE_DEVICE), gray, 5)
    jax.tree.map(np.testing.assert_array_equal, wide, alone)
    assert len(set(wide["draw"].tolist())) == 37


def test_data_and_latents_have_keys_of_their_own(toys, gray):
    def bits(image, keys):
        return jax.vmap(lambda k: jax.random.normal(k, (1, 1, 1)))(keys)

    transform = transforms.Transform(bits, "real", lambda x: x)
    found = run(toys.trained(toys.PixelCode((1.0,)), transform), gray, 8)
    assert not np.any(np.isclose(found["pixel"], found["draw"]))


def test_a_batch_that_devices_cannot_share_is_refused(toys, gray):
    with pytest.raises(ConfigError, match="multiple of the 8 devices, got 12"):
        run(toys.trained(toys.PixelCode((1.0,))), gray, 12)


def test_more_examples_than_there_are_is_refused(toys, gray):
    with pytest.raises(DataError, match="num_examples"):
        run(toys.trained(toys.PixelCode((1.0,))), gray, 8, num_examples=38)


def means(trained, key, batch):
    return trained.call("posterior", batch).mean


def test_nothing_is_compiled_again_for_new_parameters_even_if_fields_are_lists(toys):
    source = toys.source(np.ones((9, 2)))
    model = toys.PixelCode([1.0, 2.0])
    for offset in (0.0, 5.0):
        trained = toys.trained(model, params={"offset": jnp.full((1, 1), offset)})
        toys.TRACES.clear()
        found = trained.map_examples(means, source, batch_size=8, key=KEY)
        np.testing.assert_allclose(found, np.tile([1.0, 2.0], (9, 1)) + offset)
    assert toys.TRACES == []


@pytest.mark.parametrize(
    ("scales", "is_shared"),
    [([1.0, 2.0], True), ((1.0, 2.0), False), ([1.0, 3.0], False)],
)
def test_a_model_of_equal_fields_runs_the_same_program(toys, scales, is_shared):
    """As in a sweep, where every run builds its model again."""
    source = toys.source(np.ones((8, 2)))
    options = {"batch_size": 8, "key": KEY}
    toys.trained(toys.PixelCode([1.0, 2.0])).map_examples(means, source, **options)
    toys.TRACES.clear()
    found = toys.trained(toys.PixelCode(scales)).map_examples(means, source, **options)
    np.testing.assert_allclose(found, np.tile([scales], (8, 1)))
    assert (toys.TRACES == []) == is_shared


def test_fields_that_cannot_be_compared_are_no_error(toys):
    source, scales = toys.source(np.ones((8, 2))), np.array([1.0, 2.0])
    for _ in range(2):
        trained = toys.trained(toys.PixelCode(scales.copy()))
        found = trained.map_examples(means, source, batch_size=8, key=KEY)
        np.testing.assert_allclose(found, np.tile([scales], (8, 1)))


@dataclasses.dataclass
class Scaled:
    """Comparable and mutable, hence not hashable."""

    factor: float

    def __call__(self, image, key):
        return self.factor * image


def test_a_transform_that_is_not_hashable_prepares_and_evaluates(toys, gray):
    for factor in (2.0, 3.0):
        transform = transforms.Transform(Scaled(factor), "real", lambda x: x)
        trained = toys.trained(toys.PixelCode((1.0,)), transform)
        pixels = jnp.ones((2, 2, 3, 1))
        np.testing.assert_array_equal(trained.prepare(pixels, KEY), factor * pixels)
        found = run(trained, gray, 8)["pixel"]
        np.testing.assert_allclose(found, factor * np.arange(37) * 6)


@pytest.mark.slow
def test_restoring_needs_no_library_that_draws_or_reads_data():
    heavy = {"matplotlib", "sklearn", "PIL", "jinja2", "grain", "ml_collections"}
    code = (
        "import sys, jvae.pretrained.likelihood, jvae.pretrained.samples;"
        f"import jvae.evaluation.latents; print({heavy} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
