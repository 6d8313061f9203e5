import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jvae
from jvae import data
from jvae.errors import ConfigError
from jvae.training import experiment
from tests.runs import TIMEOUT

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def model(trained):
    return jvae.restore(trained)


@pytest.fixture(scope="module")
def images(model):
    pixels = data.build("digits").test.read(np.arange(6))["image"]
    return model.prepare(pixels, KEY)


@pytest.mark.slow
def test_a_fresh_process_needs_nothing_but_the_workdir(trained, model, tmp_path):
    """Moved, without data set, optimizer or flags, and with the core libraries only."""
    shutil.copytree(trained, tmp_path / "moved", ignore=shutil.ignore_patterns("best"))
    code = """
import sys, jax, numpy as np, jvae
model = jvae.restore(sys.argv[1], step="last")
np.save(sys.argv[2], model.sample(jax.random.key(5), 3))
model.log_likelihood(np.zeros((2, 8, 8, 1), np.float32), jax.random.key(1), 4)
heavy = {"grain", "tensorflow", "tensorflow_datasets", "sklearn", "matplotlib",
         "ml_collections", "tqdm", "tensorboard", "PIL", "jinja2"}
print(sorted(heavy & set(sys.modules)))
"""
    flags = os.environ["XLA_FLAGS"]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(tmp_path / "moved"),
            str(tmp_path / "out.npy"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    here = jvae.restore(trained, step="last").sample(jax.random.key(5), 3)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), here)


@pytest.mark.parametrize("batch_size", [3, 7, 100])
def test_samples_are_as_many_as_asked_for_whatever_the_batch(model, batch_size):
    wanted = model.sample(jax.random.key(3), 11)
    got = model.sample(jax.random.key(3), 11, batch_size=batch_size)
    assert got.shape == (11, 8, 8, 1)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert np.abs(got - model.sample(jax.random.key(4), 11)).max() > 1e-3


def test_temperature_zero_decodes_the_mean_of_the_prior(model):
    decoded = model.decode(jnp.zeros((1, 3)))
    cold = model.sample(KEY, 4, temperature=0.0)
    np.testing.assert_allclose(cold, np.repeat(decoded, 4, 0), atol=1e-6)


def test_reconstructions_of_the_mean_repeat_and_draws_differ(model, images):
    again = model.reconstruct(images)
    np.testing.assert_array_equal(again, model.reconstruct(images))
    assert np.abs(again - model.reconstruct(images, KEY)).max() > 1e-4


def test_a_walk_begins_and_ends_at_the_reconstructions(model, images):
    walk = model.interpolate(images[:3], images[3:], 5)
    assert walk.shape == (3, 5, 8, 8, 1)
    np.testing.assert_allclose(walk[:, 0], model.reconstruct(images[:3]), atol=1e-6)
    np.testing.assert_allclose(walk[:, -1], model.reconstruct(images[3:]), atol=1e-6)
    with pytest.raises(ConfigError, match="one shape"):
        model.interpolate(images[:2], images[:3], 5)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.full((2, 8, 8, 1), 255, np.uint8), "255 to 255"),
        (np.full((2, 8, 8, 1), -0.5, np.float32), "-0.5 to -0.5"),
        (np.full((2, 8, 8, 1), np.nan, np.float32), "nan to nan"),
    ],
    ids=["stored pixels", "negative", "nan"],
)
def test_values_that_no_image_has_are_refused(model, image, got):
    for call in (
        model.encode,
        model.reconstruct,
        lambda x: model.interpolate(x, x, 3),
        lambda x: model.elbo(x, KEY),
        lambda x: model.log_likelihood(x, KEY, 2),
    ):
        with pytest.raises(ConfigError, match=rf"be within \[0, 1\], got {got}\."):
            call(image)


def test_traced_images_pass(model, images):
    found = jax.jit(lambda x: model.elbo(x, KEY))(images)
    np.testing.assert_allclose(found, model.elbo(images, KEY), rtol=1e-4)


def test_encode_decode_and_likelihood_fit_together(model, images):
    q = model.encode(images)
    assert q.mean.shape == (6, 3)
    z = q.sample(KEY)
    np.testing.assert_allclose(model.decode(z), model.likelihood(z).mean, atol=1e-6)
    log_prob = model.likelihood(z).log_prob(images)
    expected = log_prob - q.kl_to_standard_normal()
    np.testing.assert_allclose(model.elbo(images, KEY), expected, rtol=1e-4)


@pytest.mark.slow
def test_more_importance_samples_raise_the_bound_on_average(model, images):
    one = np.mean([model.elbo(images, jax.random.key(i)).mean() for i in range(20)])
    many = model.log_likelihood(images, KEY, 500).mean()
    assert many > one


@pytest.mark.parametrize(
    "options, words",
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": 2, "temperature": -1.0}, "temperature"),
        ({"n": 2, "label": 3}, "label must be None"),
    ],
)
def test_samples_that_cannot_be_are_refused(model, options, words):
    with pytest.raises(ConfigError, match=words):
        model.sample(KEY, **options)


def test_the_config_comes_back_whole(model, tiny):
    for name, value in tiny["model"].items():
        assert model.config["model"][name] == value
    assert model.step in (6, 12)


def test_an_unknown_model_in_a_checkpoint_is_not_guessed(trained, tmp_path):
    with pytest.raises(AttributeError, match="no attribute 'restor'"):
        jvae.restor(trained)


@pytest.mark.slow
def test_a_conditional_model_samples_the_class_it_is_told(tiny, tmp_path):
    tiny["model"]["num_classes"] = 10
    experiment.run(tiny | {"num_steps": 2}, tmp_path)
    model = jvae.restore(tmp_path)
    threes = model.sample(KEY, 4, temperature=0.0, label=3)
    fives = model.sample(KEY, 4, temperature=0.0, label=[5, 5, 5, 5])
    np.testing.assert_allclose(threes, np.repeat(threes[:1], 4, 0), atol=1e-6)
    assert np.abs(threes - fives).max() > 1e-4
    in_turn = model.sample(KEY, 10, temperature=0.0)
    np.testing.assert_allclose(in_turn[[3, 5]], [threes[0], fives[0]], atol=1e-6)
    image = np.zeros((2, 8, 8, 1), "float32")
    one_hot = np.eye(10, dtype="float32")[[3, 4]]
    np.testing.assert_allclose(
        model.elbo(image, KEY, label=[3, 4]), model.elbo(image, KEY, label=one_hot)
    )
    for label, message in (
        (10, r"integers in 0\.\.9, got \[10, 10\]"),
        ([0, -1], r"integers in 0\.\.9, got \[0, -1\]"),
        (1.5, r"integers in 0\.\.9"),
        ([1, 2, 3], r"label must hold 2 classes, got shape \[3\]"),
    ):
        for call in (
            lambda label: model.sample(KEY, 2, label=label),
            lambda label: model.elbo(image, KEY, label=label),
            lambda label: model.log_likelihood(image, KEY, 2, label=label),
        ):
            with pytest.raises(ConfigError, match=message):
                call(label)
