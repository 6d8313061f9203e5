"""Models with one-hot codes and directions: what they report, what they can do."""

import jax
import numpy as np
import pytest

import jvae
from jvae.reports.run import evaluate_run
from jvae.training import experiment
from tests.runs import metrics

TEMPERATURE = {"name": "exponential", "end": 0.1, "decay": 0.9}
KINDS = {
    "discrete": {
        "latent": {"name": "gumbel_softmax", "num_values": 4},
        "schedules": {"temperature": TEMPERATURE},
        "loss": {"name": "elbo"},
        "not_shown": ["Active units", "Traversals"],
    },
    "sphere": {
        "latent": {"name": "von_mises_fisher", "concentration": 10.0},
        "schedules": {},
        "loss": {"name": "iwae", "num_samples": 2},
        "not_shown": ["Total correlation", "Traversals"],
    },
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def config(tiny, kind):
    tiny["model"]["latent"] = KINDS[kind]["latent"]
    for section in ("schedules", "loss"):
        tiny[section] = KINDS[kind][section]
    return tiny


@pytest.mark.slow
def test_what_they_report_and_what_they_can_be_asked(config, kind, tmp_path):
    run = tmp_path / "run"
    experiment.run(config, run)

    rows = [r for r in metrics(run) if r["split"] == "train"]
    if kind == "discrete":
        wanted = [0.1 + 0.9 * 0.9 ** (r["step"] - 1) for r in rows]
        np.testing.assert_allclose([r["temperature"] for r in rows], wanted, rtol=1e-5)

    results = evaluate_run(run, num_samples=4, num_images=16)
    assert results["metrics"]["elbo"]["value"] < 0
    assert results["metrics"]["mutual_info"]["value"] >= 0
    page = (run / "evaluation" / "test_00000012" / "report.html").read_text()
    for name in (*KINDS[kind]["not_shown"], "Samples at other temperatures"):
        assert f"Not shown: {name}" in page

    model = jvae.restore(run)
    key, x = jax.random.key(0), np.zeros((3, 8, 8, 1), "float32")
    images = model.sample(key, 5)
    assert images.shape == (5, 8, 8, 1) and np.isfinite(images).all()
    np.testing.assert_array_equal(model.sample(key, 5, temperature=0.5), images)
    again = model.decode(model.encode(x).mode)
    np.testing.assert_allclose(model.reconstruct(x), again, rtol=1e-5)
    walk = model.interpolate(x, np.ones_like(x), 4)
    np.testing.assert_allclose(walk[:, 0], again, atol=1e-5)
    assert model.reconstruct(x, key).shape == x.shape
    assert np.isfinite(model.elbo(x, key)).all()
    assert np.isfinite(model.log_likelihood(x, key, num_samples=8)).all()


@pytest.mark.slow
def test_other_latents_are_not_taken_for_the_same_run(config, kind, tmp_path):
    experiment.run(config | {"num_steps": 1}, tmp_path)
    field = {"discrete": "num_values", "sphere": "concentration"}[kind]
    config["model"]["latent"] = {**config["model"]["latent"], field: 7}
    with pytest.raises(jvae.errors.WorkdirError, match=field):
        experiment.run(config, tmp_path)
