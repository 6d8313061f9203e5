"""What training measures of held-out data."""

import jax
import numpy as np
import pytest

from jvae.pretrained import image_grid, samples
from jvae.pretrained.trained_model import TrainedModel
from jvae.training import assembly, validation
from jvae.training import config as configs
from jvae.training.loop import trained_model_of

ENCODER = {
    "name": "infomax",
    "image_shape": [8, 8, 1],
    "latent_dim": 3,
    "channels": [4],
    "top_channels": [],
    "critic_hidden": [6],
}
CLASSIFIER = {
    "name": "mlp_classifier",
    "image_shape": [8, 8, 1],
    "hidden": [6],
    "latent_dim": 3,
}


def build(tiny, model, loss, **fields):
    tiny["model"], tiny["loss"] = model, loss
    tiny["data"]["transform"] = "signed"
    components = assembly.assemble(configs.parse_experiment(tiny | fields))
    return components, trained_model_of(components, components.create_state())


@pytest.mark.slow
def test_a_classifiers_score_is_its_loss_over_all_examples_once(tiny):
    components, trained = build(tiny, CLASSIFIER, {"name": "bottleneck", "beta": 0.5})
    held_out = components.splits.validation  # 80 in batches of 64
    found = validation.validate(components, trained, held_out)
    assert found.measure == "loss" and found.score == -found.numbers["loss"]
    assert found.sentence == f"validation loss {found.numbers['loss']:.4g} nats"
    n = found.numbers
    np.testing.assert_allclose(
        n["loss"], 0.5 * n["kl"] - n["log_likelihood"], rtol=1e-5
    )
    # The rate draws nothing, so it can be had without batches.
    everything = held_out.read(np.arange(80))
    batch = components.prepare(everything, jax.random.key(0))
    q = components.model.apply(
        {"params": trained.params}, batch, method=components.model.posterior
    )
    np.testing.assert_allclose(n["kl"], q.kl_to_standard_normal().mean(), rtol=1e-5)
    few = validation.validate(components, trained, held_out, 10)
    assert few.numbers["kl"] != n["kl"]


@pytest.mark.slow
def test_running_statistics_are_used_and_kept(tiny):
    components, trained = build(tiny, ENCODER, {"name": "infomax"})
    held_out = components.splits.validation
    a = validation.validate(components, trained, held_out).numbers
    scaled = jax.tree.map(lambda s: 4.0 * s + 1.0, trained.state)
    other = TrainedModel(
        trained.model, trained.params, scaled, trained.transform, trained.mesh
    )
    b = validation.validate(components, other, held_out).numbers
    assert abs(a["loss"] - b["loss"]) > 1e-3
    before = jax.tree.map(np.asarray, trained.state)
    jax.tree.map(np.testing.assert_array_equal, before, trained.state)


def test_an_annealed_loss_is_scored_with_its_last_coefficients(tiny):
    schedule = {"beta": {"name": "linear", "start": 0.0, "end": 2.0, "steps": 10}}
    components, trained = build(
        tiny, CLASSIFIER, {"name": "bottleneck"}, schedules=schedule
    )
    n = validation.validate(components, trained, components.splits.validation).numbers
    np.testing.assert_allclose(
        n["loss"], 2.0 * n["kl"] - n["log_likelihood"], rtol=1e-5
    )


def test_a_model_that_draws_no_images_has_no_pictures(tiny):
    components, trained = build(tiny, ENCODER, {"name": "infomax"})
    assert (
        validation.training_pictures(components, trained, components.splits.test) == {}
    )


def test_a_reconstruction_stands_beside_its_image(tiny):
    """In the default tier: nothing else there looks at what the grids show."""
    components = assembly.assemble(configs.parse_experiment(tiny))
    trained = trained_model_of(components, components.create_state())
    held_out, key = components.splits.test, components.keys["evaluation"]
    grid = validation.training_pictures(components, trained, held_out)[
        "reconstructions"
    ]
    half = validation.NUM_PICTURES // 2
    x = np.asarray(trained.prepare(held_out.read(np.arange(half))["image"], key))
    pairs = zip(x, samples.reconstructions(trained, x, key, "mean"), strict=True)
    expected = [components.transform.to_unit(image) for pair in pairs for image in pair]
    np.testing.assert_array_equal(
        grid, image_grid.grid(np.asarray(expected), columns=8)
    )
