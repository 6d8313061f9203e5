"""Classifiers on frozen features, and nearest neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae import models
from jvae.data.sources import ArraySource
from jvae.distributions import DiagGaussian
from jvae.errors import ConfigError
from jvae.evaluation import neighbors, probes

KEY = jax.random.key(0)
DRAWS = np.random.default_rng(0)
ANGLES = 2 * np.pi * np.arange(5) / 5
CENTRES = 6.0 * np.stack([np.cos(ANGLES), np.sin(ANGLES), 0 * ANGLES], 1)


def blobs(n, spread=0.3):
    """Returns (features [n, 3], labels [n]) of five classes around a circle."""
    labels = np.arange(n) % 5
    return CENTRES[labels] + spread * DRAWS.normal(size=(n, 3)), labels


def test_classes_that_are_apart_are_told_apart_by_all():
    (train, labels), (test, true) = blobs(200), blobs(100)
    found = probes.accuracies_of(train, test, labels, true)
    assert found == {"knn_1": 1.0, "knn_20": 1.0, "linear": 1.0}


def test_features_that_say_nothing_are_chance():
    labels = np.arange(1000) % 5
    train, test = DRAWS.normal(size=(2, 1000, 3))
    for accuracy in probes.accuracies_of(train, test, labels, labels).values():
        assert 0.14 < accuracy < 0.26


def test_the_vote_is_by_cosine_and_a_linear_probe_by_scaled_features():
    (train, labels), (test, true) = blobs(200), blobs(100)
    lengths = np.exp(DRAWS.normal(size=(100, 1)))
    assert probes.knn_accuracy(train, test * lengths, labels, true, 1) == 1.0
    tiny = np.array([1e-6, 1e6, 1.0])
    assert probes.linear_accuracy(train * tiny, test * tiny, labels, true) == 1.0


def test_one_neighbor_of_examples_seen_is_the_example():
    train, labels = DRAWS.normal(size=(60, 4)), DRAWS.integers(0, 3, 60)
    assert probes.knn_accuracy(train, train, labels, labels, 1) == 1.0
    assert probes.knn_accuracy(train, train, labels, labels, 20) < 1.0


def test_a_vector_of_zeros_has_no_direction_and_does_no_harm():
    found = probes.directions(np.array([[0.0, 0.0], [3.0, 4.0]]))
    np.testing.assert_allclose(found, [[0.0, 0.0], [0.6, 0.8]], rtol=1e-6)


def test_principal_components_are_those_of_the_first_split():
    train, test = DRAWS.normal(size=(50, 6)), DRAWS.normal(size=(20, 6))
    a, b = probes.principal_components([train, test], 2)
    centered = train - train.mean(0)
    _, _, rows = np.linalg.svd(centered, full_matrices=False)
    for found, x in ((a, centered), (b, test - train.mean(0))):
        np.testing.assert_allclose(np.abs(found), np.abs(x @ rows[:2].T), atol=1e-8)
    assert probes.principal_components([train[:4], test], 9)[0].shape == (4, 4)


class Code(nn.Module):
    """Its code is the image times a parameter that starts at 1."""

    @nn.compact
    def posterior(self, batch):
        x = batch["image"].reshape(len(batch["image"]), -1)
        scale = self.param("scale", nn.initializers.ones, (1, 2))
        return DiagGaussian(scale * x, jnp.zeros_like(x))

    def __call__(self, batch, key):
        return self.posterior(batch)


def test_probes_of_a_model_see_its_codes_pixels_and_an_untrained_one(toys):
    """Training has made a parameter 0 that hides the label behind noise."""
    labels = np.arange(60) % 2
    pixels = np.stack([0.05 * labels, DRAWS.uniform(size=60)], 1)
    image = pixels.astype("f4")[:, None, :, None]
    source = ArraySource({"image": image, "label": labels})
    trained = toys.trained(Code(), params={"scale": np.array([[1.0, 0.0]])})
    found = probes.evaluate_probes(
        trained, source, source, batch_size=16, key=KEY, num_train=50
    )
    assert (found.num_train, found.num_test) == (50, 60)
    assert set(found.accuracies) == set(probes.FEATURES)
    assert found.accuracies["codes"]["linear"] == 1.0
    flat = probes.flat_pixels(image)
    wanted = probes.accuracies_of(flat[:50], flat, labels[:50], labels)
    assert found.accuracies["pixels"] == found.accuracies["untrained"] == wanted
    assert wanted["knn_20"] < found.accuracies["codes"]["knn_20"]
    rows = probes.probe_metrics(found)
    assert rows["probe_linear"].value == 1.0 and rows["probe_knn_1"].num_examples == 60


def test_a_model_without_codes_cannot_be_probed(toys):
    source = toys.source(np.zeros((4, 2)))
    trained = toys.trained(toys.TwoGroups(), params={})
    with pytest.raises(ConfigError, match="TwoGroups has no codes to probe"):
        probes.evaluate_probes(
            trained, source, source, batch_size=8, key=KEY, num_train=2
        )


@pytest.mark.slow
def test_the_untrained_encoder_has_other_parameters_of_the_same_shapes(toys):
    model = models.build("mlp", image_shape=(1, 2, 1), hidden=(3,), latent_dim=2)
    batch = {"image": np.zeros((1, 1, 2, 1), "f4")}
    params = model.init(KEY, batch, KEY)["params"]
    trained = toys.trained(model, params=params)
    other = probes.untrained(
        trained, toys.source(np.zeros((1, 2))), jax.random.key(1)
    ).params
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, other)
    kernel = ("encoder", "Dense_0", "kernel")
    a, b = params, other
    for name in kernel:
        a, b = a[name], b[name]
    assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nearest_puts_codes_that_are_not_finite_far_from_the_others(bad):
    codes = np.array([[0.0, 0.0], [bad, 0.0], [5.0, 0.0], [1.0, 0.0], [0.0, bad]])
    found = neighbors.nearest(codes, np.array([0, 1]), 3, "euclidean")
    assert found[0, :2].tolist() == [3, 2]
    assert found[1, 0] == 4


def test_nearest_by_distance_and_by_direction_leave_out_the_query():
    codes = np.array([[1.0, 0.0], [9.0, 0.1], [1.0, 1.0], [-1.0, 0.0], [1.1, 0.0]])
    by_distance = neighbors.nearest(codes, np.array([0, 3]), 2, "euclidean")
    np.testing.assert_array_equal(by_distance, [[4, 2], [0, 4]])
    by_cosine = neighbors.nearest(codes, np.array([0]), 3, "cosine")
    np.testing.assert_array_equal(by_cosine, [[4, 1, 2]])
    with pytest.raises(ConfigError, match=r"num must be in 1\.\.4, got 5"):
        neighbors.nearest(codes, np.array([0]), 5, "cosine")


@pytest.mark.parametrize("num_others", [0, 2])
def test_examples_of_one_label_only_are_told_as_that_one(num_others):
    """As of a sorted data set; two others are in the tenth that chooses the penalty."""
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(40, 3)), rng.normal(size=(8, 3))
    labels, true = np.full(40, 3), np.array([3, 3, 3, 3, 3, 3, 0, 1])
    labels[40 - num_others :] = 1
    accuracies = probes.accuracies_of(train, test, labels, true)
    assert set(accuracies) == {"knn_1", "knn_20", "linear"}
    if num_others == 0:
        assert set(accuracies.values()) == {6 / 8}
