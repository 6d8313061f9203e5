import dataclasses
import json
import math
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import models, registry
from jvae.data import transforms
from jvae.data.sources import ArraySource
from jvae.errors import ConfigError
from jvae.evaluation.settings import Settings
from jvae.reports.report import evaluate, flat_fields, strict_json

KEY = jax.random.key(6)
QUICK = Settings(
    num_examples=20, batch_size=16, num_samples=3, chunk_size=2, num_images=9
)
HISTORY = [{"step": s, "split": "train", "elbo": -1.0 / s} for s in (1, 2, 3)]
CONFIG = {"model": {"name": "mlp", "note": "<script>alert(1)</script>"}, "seed": 0}


def strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def tiny():
    shape = (4, 4, 1)
    model = models.build("mlp", image_shape=shape, latent_dim=3, hidden=(8,))
    init = jax.jit(model.init)
    params = init(KEY, {"image": jnp.zeros((1, *shape))}, KEY)["params"]
    pixels = np.random.default_rng(0).integers(0, 256, (30, *shape), np.uint8)
    source = ArraySource({"image": pixels})
    return model, params, transforms.build("threshold"), source


@pytest.fixture
def report(toys, tiny, tmp_path):
    model, params, transform, source = tiny
    trained = toys.trained(model, transform, params=params)

    def run(**options):
        given = {"config": CONFIG, "step": 7, "split": "test", "key": KEY}
        given |= {"settings": QUICK, **options}
        return evaluate(trained, source, tmp_path / "out", **given)

    return run


@pytest.mark.slow
def test_a_report_is_complete_strict_and_needs_nothing_else(report, tmp_path):
    began = time.process_time()
    results = report(history=HISTORY)
    # Two cores at most: that is under 30 s of waiting on one.
    assert time.process_time() - began < 60.0
    out = tmp_path / "out"
    assert strictly((out / "results.json").read_text()) == results
    files = {file.name for file in out.iterdir()}
    assert files == {"results.json", "report.html", *results["pictures"]}
    assert {"samples_t0.7.png", "curves.png", "traversals.png"} < files
    assert (results["step"], results["num_examples"]) == (7, 20)
    assert all(m["num_examples"] == 20 for m in results["metrics"].values())
    page = (out / "report.html").read_text()
    assert "http://" not in page and "https://" not in page
    assert "<script" not in page and "&lt;script&gt;" in page
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == len(results["pictures"])
    assert all('src="data:image/png;base64,' in image for image in images)
    assert all(len(re.search('alt="(.*?)"', image)[1]) > 10 for image in images)
    for row in results["metrics"].values():
        assert row["label"] in page or "||" in row["label"] or "|" in row["label"]
    assert results["verdict"]["sentence"] in page


@pytest.mark.slow
def test_a_report_repeats_itself(report):
    assert report() == report()


@pytest.mark.slow
def test_a_hierarchical_model_has_a_report_of_what_it_offers(toys, tmp_path):
    trained = toys.trained(toys.TwoGroups())
    source = toys.source(np.full((9, 2), 0.5))
    options = {"config": {}, "step": 0, "split": "test", "key": KEY}
    results = evaluate(trained, source, tmp_path, settings=QUICK, **options)
    pictures = {"reconstructions.png", "kl_per_dimension.png", "rate_distortion.png"}
    assert results["pictures"].keys() == pictures
    assert results["num_examples"] == 9
    assert results["metrics"].keys() == {"elbo", "nll", "log_likelihood", "kl"}


@pytest.mark.slow
def test_the_codes_of_all_data_are_told_dimension_by_dimension(toys, tmp_path):
    # z = 2 x + noise of deviation 0.5, over x with mean 0.5 and deviation 0.1.
    pixels = np.random.default_rng(0).normal(0.5, 0.1, (4000, 1))
    model = toys.PixelCode((2.0,), log_var=2 * math.log(0.5))
    options = {"config": {}, "step": 0, "split": "test", "key": KEY}
    settings = dataclasses.replace(QUICK, num_examples=4000, batch_size=400)
    trained, source = toys.trained(model), toys.source(pixels)
    found = evaluate(trained, source, tmp_path, settings=settings, **options)
    assert found["aggregate"]["mean"] == pytest.approx([1.0], abs=0.04)
    std = math.hypot(2.0 * 0.1, 0.5)
    assert found["aggregate"]["std"] == pytest.approx([std], abs=0.03)
    assert f"{found['aggregate']['std'][0]:.2f}" in found["pictures"]["aggregate.png"]
    page = (tmp_path / "report.html").read_text()
    assert "Every dimension of the code" in page


@pytest.mark.slow
def test_checksums_are_those_of_the_parameters_whatever_the_devices(toys, tmp_path):
    def checksums(offset, devices, config):
        params = {"offset": jnp.full((1, 1), offset)}
        model = toys.PixelCode((1.0,))
        trained = toys.trained(model, params=params, devices=devices)
        options = {"config": config, "step": 0, "split": "test", "key": KEY}
        source = toys.source(np.full((9, 1), 0.5))
        found = evaluate(trained, source, tmp_path, settings=QUICK, **options)
        return found["checksums"]

    first = checksums(0.0, None, {"a": 1, "b": 2})
    assert first == checksums(0.0, toys.ONE_DEVICE, {"b": 2, "a": 1})
    other = checksums(1e-7, None, {"a": 1, "b": 3})
    assert other["parameters"] != first["parameters"]
    assert other["config"] != first["config"] and other["state"] == first["state"]
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in first.values())


def test_numbers_that_are_not_finite_become_null():
    found = strict_json({"a": math.nan, "b": [1, (math.inf, True)], "c": jnp.float32})
    assert found == {"a": None, "b": [1, [None, True]], "c": str(jnp.float32)}


def test_nested_fields_have_dotted_names():
    tree = {"model": {"name": "mlp", "likelihood": {"std": 1.0}}, "empty": {}}
    expected = {"model.name": "mlp", "model.likelihood.std": 1.0, "empty": {}}
    assert dict(flat_fields(tree)) == expected


def test_every_setting_says_what_it_means():
    assert all(field.meaning for field in registry.of(Settings).values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_examples", 0),
        ("chunk_size", 0),
        ("temperatures", [-1.0]),
        ("reach", 0.0),
        ("projection", "umap"),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must (be|hold)"):
        Settings(**{name: value})
