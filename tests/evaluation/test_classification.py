"""What is measured of a classifier, where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae.data.sources import ArraySource
from jvae.distributions import Categorical, DiagGaussian
from jvae.evaluation.classification import (
    classification_metrics,
    evaluate_classification,
)
from jvae.evaluation.disentanglement import discrete_entropy
from jvae.models import SingleLatent
from jvae.pretrained.predictions import label_probs

KEY = jax.random.key(1)
N = 40
LABEL = np.arange(N) % 4
# The first pixel is the label, but for every tenth example.
SHOWN = np.where(np.arange(N) % 10 == 3, (LABEL + 1) % 4, LABEL)


class Reader(SingleLatent, nn.Module):
    """z is a one-hot of the first pixel, with noise; the logits are `gain` z."""

    gain: float = 5.0
    log_var: float = -15.0
    num_classes: int = 4
    target = "label"

    def posterior(self, batch):
        mean = jax.nn.one_hot(batch["image"][:, 0, 0, 0].astype(int), 4)
        return DiagGaussian(mean, jnp.full_like(mean, self.log_var))

    def prior(self, batch):
        return DiagGaussian.standard(len(batch["image"]), 4)

    def likelihood(self, z, batch):
        return Categorical(self.gain * z)


@pytest.fixture
def evaluated(toys):
    def run(num_samples=5, batch_size=16, **fields):
        trained = toys.trained(Reader(**fields), params={})
        image = SHOWN.astype("f4").reshape(N, 1, 1, 1)
        source = ArraySource({"image": image, "label": LABEL})
        return evaluate_classification(
            trained, source, batch_size=batch_size, key=KEY, num_samples=num_samples
        )

    return run


def test_accuracies_confusions_and_bounds_of_a_reader(evaluated):
    found = evaluated()
    np.testing.assert_array_equal(found.by_mean, SHOWN)
    np.testing.assert_array_equal(found.by_draws, SHOWN)
    table = np.zeros((4, 4), int)
    for true, given in zip(LABEL, SHOWN, strict=True):
        table[true, given] += 1
    np.testing.assert_array_equal(found.confusion, table)
    rows = classification_metrics(found)
    assert rows["accuracy"].value == rows["accuracy_of_draws"].value == 0.9
    assert rows["accuracy"].num_samples is None
    assert rows["accuracy_of_draws"].num_samples == 5
    right, wrong = 5.0 - np.log(np.exp(5.0) + 3), -np.log(np.exp(5.0) + 3)
    cross_entropy = -(0.9 * right + 0.1 * wrong)
    np.testing.assert_allclose(rows["cross_entropy"].value, cross_entropy, rtol=2e-3)
    told = rows["label_information"]
    np.testing.assert_allclose(
        told.value, np.log(4) - rows["cross_entropy"].value, rtol=1e-6
    )
    np.testing.assert_allclose(
        rows["label_information_bits"].value, told.value / np.log(2), rtol=1e-6
    )
    rate = 0.5 * (4 * (np.exp(-15.0) + 15.0 - 1.0) + 1.0)
    np.testing.assert_allclose(rows["rate"].value, rate, rtol=1e-5)
    assert told.value <= np.log(4) <= rows["rate"].value


def test_logits_of_zero_are_chance_and_know_nothing(evaluated):
    rows = classification_metrics(evaluated(gain=0.0))
    np.testing.assert_allclose(rows["cross_entropy_bits"].value, 2.0, rtol=1e-6)
    np.testing.assert_allclose(rows["label_information"].value, 0.0, atol=1e-6)
    assert rows["accuracy"].value == 0.25


def test_noise_makes_a_draw_worse_than_the_mean_and_many_draws_better(evaluated):
    noisy = {"log_var": 0.0, "gain": 3.0}
    one, many = evaluated(num_samples=1, **noisy), evaluated(num_samples=400, **noisy)
    rows = {n: classification_metrics(f) for n, f in ((1, one), (400, many))}
    assert rows[1]["accuracy_of_draws"].value < rows[400]["accuracy_of_draws"].value
    assert rows[400]["accuracy_of_draws"].value == rows[400]["accuracy"].value == 0.9


@pytest.mark.slow
def test_nothing_depends_on_the_batch_size(evaluated):
    noisy = {"log_var": 0.0}
    a, b = evaluated(batch_size=8, **noisy), evaluated(batch_size=40, **noisy)
    np.testing.assert_array_equal(a.by_draws, b.by_draws)
    # Of probabilities near 1 the logarithm is rounded as the logits of 5 are.
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_probabilities_over_draws_are_the_mean_of_those_at_the_draws(toys):
    model = Reader(log_var=0.0)
    trained = toys.trained(model, params={})
    batch = {"image": SHOWN[:3].astype("f4").reshape(3, 1, 1, 1)}
    keys = jax.random.split(KEY, (2, 3))
    found = label_probs(trained, batch, keys)
    q = model.posterior(batch)
    wanted = jnp.stack([jax.nn.softmax(5.0 * q.sample(k)) for k in keys]).mean(0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    at_mean = label_probs(trained, batch)
    np.testing.assert_allclose(at_mean, jax.nn.softmax(5.0 * q.mean), rtol=1e-5)


def test_the_entropy_of_labels():
    np.testing.assert_allclose(discrete_entropy(np.repeat([1, 5], 3)), np.log(2))
    assert discrete_entropy(np.zeros(4, int)) == 0.0
