"""Samplers of codes: they find what codes are like, are saved, and draw."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.stats import multivariate_normal

import jvae
from jvae.commands.sample import command
from jvae.contract import Model
from jvae.errors import ConfigError, WorkdirError
from jvae.pretrained import samplers
from jvae.pretrained.samplers.fit import training_codes
from jvae.pretrained.samplers.flow import fit_flow
from jvae.pretrained.samplers.mixture import fit_gaussian, fit_mixture
from jvae.pretrained.samplers.neighbors import NeighborSampler, fit_neighbors
from jvae.workdir import npz
from tests.tiers import others_slow

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
BLOBS = np.concatenate(
    [m + 0.3 * RNG.normal(size=(500, 2)) for m in ([-3.0, 0.0], [3.0, 1.0])]
)
SKEW = RNG.normal(size=(2000, 3)) @ np.array([[1, 2, 0], [0, 1, 0], [0, 0, 0.1]]) + 5
SMALL = {"gmm": {"num_components": 2}, "flow": {"num_steps": 20, "width": 8}}


@functools.partial(jax.jit, static_argnums=2)
def sample(sampler, key, n, temperature=1.0):
    return sampler.sample(key, n, temperature)


def draw(*args):
    return np.asarray(sample(*args))


def test_a_mixture_finds_two_blobs():
    found = fit_mixture(BLOBS, num_components=2)
    means = np.asarray(found.means)
    order = np.argsort(means[:, 0])
    np.testing.assert_allclose(means[order], [[-3, 0], [3, 1]], atol=0.1)
    np.testing.assert_allclose(found.weights, 0.5, atol=0.01)
    deviations = np.linalg.norm(np.asarray(found.roots), axis=-1)
    np.testing.assert_allclose(deviations, 0.3, atol=0.03)
    draws = draw(found, KEY, 4000)
    assert abs((draws[:, 0] < 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    cold = draw(found, KEY, 100, 0.0)
    for point in cold:
        assert np.abs(means - point).sum(-1).min() < 1e-6


def test_a_gaussian_has_mean_and_covariance_of_the_codes():
    found = fit_gaussian(SKEW)
    draws = draw(found, KEY, 20_000).astype(np.float64)
    error = 4 * SKEW.std(0) / np.sqrt(20_000)
    assert (abs(draws.mean(0) - SKEW.mean(0)) < error).all()
    root = np.asarray(found.roots)[0]
    covariance = np.cov(SKEW.T, bias=True)
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.cov(draws.T), covariance, rtol=0.1, atol=0.02)


def test_points_between_neighbors_lie_on_their_lines():
    codes = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 10.0], [10.0, 11.0]])
    found = fit_neighbors(codes, num_neighbors=1)
    draws = draw(found, KEY, 500)
    near = draws[:, 0] < 5
    assert (draws[near][:, 1] == 0).all() and (draws[~near][:, 0] == 10).all()
    assert 0.4 < near.mean() < 0.6
    still = draw(found, KEY, 50, 0.0)
    assert all((codes == z).all(1).any() for z in still)


@pytest.mark.slow
def test_a_flow_comes_near_the_density_of_its_codes():
    """In nats per code, of a Gaussian, against the exact entropy."""
    found = fit_flow(SKEW, num_steps=600, width=16)
    exact = multivariate_normal(SKEW.mean(0), np.cov(SKEW.T))
    fresh = exact.rvs(4000, random_state=1)
    lost = exact.logpdf(fresh) - np.asarray(found.log_prob(jnp.asarray(fresh)))
    assert -0.01 < lost.mean() < 0.1
    draws = draw(found, KEY, 4000)
    np.testing.assert_allclose(draws.mean(0), SKEW.mean(0), atol=0.2)
    cold = draw(found, KEY, 5, 0.0)
    np.testing.assert_allclose(cold, np.tile(cold[:1], (5, 1)), rtol=1e-4)


@pytest.mark.parametrize("name", others_slow([*samplers.SAMPLERS], "gmm"))
def test_draws_belong_to_their_keys_and_survive_the_disk(name, tmp_path):
    made = samplers.build(name, BLOBS, **SMALL.get(name, {}))
    keys = jax.random.split(KEY, 6)
    whole, part = draw(made, keys, 6), draw(made, keys[2:], 4)
    np.testing.assert_allclose(whole[2:], part, rtol=1e-5, atol=1e-6)
    samplers.save(made, name, tmp_path, {"codes": 1000})
    again = samplers.load(name, tmp_path)
    assert samplers.names(tmp_path) == [name]
    np.testing.assert_array_equal(draw(again, keys, 6), whole)
    assert jax.tree.structure(again) == jax.tree.structure(made)


def test_a_file_of_an_earlier_release_is_read(tmp_path):
    fitted = fit_neighbors(BLOBS, num_neighbors=1)
    samplers.save(fitted, "neighbours", tmp_path, {})
    tree, about = npz.read_npz(tmp_path / "neighbours.npz")
    assert about["kind"] == "NeighborSampler"
    (tmp_path / "neighbours.npz").unlink()
    earlier = {**about, "kind": "NeighbourSampler"}
    npz.write_npz(tmp_path / "neighbours.npz", tree, earlier)
    loaded = samplers.load("neighbours", tmp_path)
    assert isinstance(loaded, NeighborSampler)
    np.testing.assert_array_equal(draw(loaded, KEY, 6), draw(fitted, KEY, 6))


def test_options_out_of_range_and_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="num_components must be from 1 to 1000"):
        samplers.build("gmm", BLOBS, num_components=1001)
    with pytest.raises(ConfigError, match="num_neighbors must be from 1 to 999"):
        samplers.build("neighbours", BLOBS, num_neighbors=1000)
    with pytest.raises(ConfigError, match="Did you mean 'gmm'"):
        samplers.build("gm", BLOBS)
    with pytest.raises(ConfigError, match="sampler.components is unknown"):
        samplers.build("gmm", BLOBS, components=3)
    with pytest.raises(ConfigError, match="at least 2 for the sampler 'flow', got 1"):
        samplers.build("flow", BLOBS[:, :1])


def test_a_damaged_file_is_one_line(tmp_path):
    samplers.save(fit_gaussian(BLOBS), "gaussian", tmp_path, {})
    file = tmp_path / "gaussian.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WorkdirError, match="arrays cannot be read"):
        samplers.load("gaussian", tmp_path)
    for about in ({"fields": {}}, {"kind": "os.system", "fields": {}}, {"kind": "x"}):
        npz.write_npz(file, {"a": np.zeros(3)}, about)
        with pytest.raises(WorkdirError, match="arrays cannot be read"):
            samplers.load("gaussian", tmp_path)
    with pytest.raises(
        ConfigError, match="'gmm' was not fitted .* there are: gaussian"
    ):
        samplers.load("gmm", tmp_path)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """The workdir of a plain VAE, without samplers; these tests add some."""
    workdir = tmp_path_factory.mktemp("samplers") / "run"
    others = shutil.ignore_patterns("samplers")
    return shutil.copytree(trained, workdir, ignore=others)


def test_the_command_fits_once_and_writes_exactly_so_many_images(run, tmp_path, capsys):
    command([str(run), str(tmp_path / "a"), "--n=7", "--sampler=gmm", "--seed=3"])
    files = sorted(f.name for f in (tmp_path / "a").iterdir())
    assert files == [f"{i:05d}.png" for i in range(7)]
    image = np.asarray(Image.open(tmp_path / "a" / files[0]))
    assert image.dtype == np.uint8 and image.shape == (8, 8)
    assert "7 images" in capsys.readouterr().out

    (file,) = (run / "samplers").rglob("*.npz")
    written = file.stat().st_mtime_ns
    command([str(run), str(tmp_path / "b"), "--n=7", "--sampler=gmm", "--seed=3"])
    assert file.stat().st_mtime_ns == written
    for name in files:
        parts = ((tmp_path / f / name).read_bytes() for f in "ab")
        assert next(parts) == next(parts)
    model = jvae.restore(run)
    images = model.sample(jax.random.key(3), 7, sampler="gmm")
    unit = np.round(255 * np.asarray(images))[0, :, :, 0]
    np.testing.assert_array_equal(unit.astype("uint8"), image)
    assert not np.allclose(images, model.sample(jax.random.key(3), 7))
    with pytest.raises(WorkdirError, match="is not empty"):
        command([str(run), str(tmp_path / "a")])
    with pytest.raises(ConfigError, match="'flow' was not fitted .* there are: gmm"):
        model.sample(KEY, 2, sampler="flow")
    with pytest.raises(ConfigError, match="label must be None with a sampler"):
        model.sample(KEY, 2, label=1, sampler="gmm")


@pytest.mark.slow
def test_codes_are_draws_whatever_the_batches(run):
    model, train = jvae.restore(run), jvae.data.build("digits").train
    codes = [
        training_codes(model, train, key=KEY, batch_size=n, num_examples=50)
        for n in (16, 64)
    ]
    np.testing.assert_allclose(codes[0], codes[1], rtol=1e-5, atol=1e-6)
    assert codes[0].shape == (50, 3)


def test_models_whose_codes_no_sampler_stands_for_are_refused(run):
    model = jvae.restore(run)
    for attributes, why in (
        ({}, "has not one q"),
        ({"posterior": 0, "decode": 0, "uniform_prior": True}, "no real vectors"),
        ({"posterior": 0, "decode": 0, "num_classes": 3}, "a prior for each class"),
        ({"posterior": 0, "decode": 0, "is_lossless": True}, "whose prior is exact"),
    ):
        other = type("Other", (Model,), attributes)()
        replaced = dataclasses.replace(model, model=other)
        with pytest.raises(ConfigError, match=why):
            training_codes(replaced, None, key=KEY)
