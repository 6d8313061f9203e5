"""Agreement of clusters with labels: known numbers, bounds, and what a report shows."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jvae.data.sources import ArraySource
from jvae.distributions import DiagGaussian, Gaussian, GaussianMixture
from jvae.errors import ConfigError
from jvae.evaluation.clustering import (
    Clusters,
    adjusted_rand_index,
    cluster_metrics,
    contingency,
    evaluate_clusters,
    majority_accuracy,
    matched_accuracy,
    normalized_mutual_info,
)
from jvae.models import SingleLatent
from jvae.pretrained.predictions import has_clusters
from jvae.reports import images as gallery
from jvae.reports import report

KEY = jax.random.key(0)
LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
FOUND = np.array([1, 1, 2, 2, 2, 2, 0, 0, 0, 0])


class ByPixel(nn.Module, SingleLatent):
    """z is the two pixels, y their larger one, of three: the last is never used."""

    num_clusters: int = 3
    target = "image"

    def posterior(self, batch):
        mean = batch["image"].reshape(len(batch["image"]), 2)
        return DiagGaussian(mean, jnp.zeros_like(mean))

    def prior(self, batch):
        means = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
        return GaussianMixture(jnp.zeros(3), means, jnp.zeros((3, 2)))

    def cluster_log_probs(self, z):
        unused = jnp.full((len(z), 1), -1e9)
        return jax.nn.log_softmax(jnp.concatenate([1e3 * z, unused], -1))

    def likelihood(self, z, batch):
        return Gaussian(z.reshape(len(z), 1, 2, 1), jnp.zeros((1, 1, 1, 1)))

    def decode(self, z):
        return self.likelihood(z, {}).mean

    def generate(self, key, n, temperature=1.0, label=None):
        p = self.prior({})
        if label is None:
            return self.decode(p.sample(key, n, temperature))
        one_hot = jax.nn.one_hot(label, 3)
        return self.decode(p.component(one_hot).tempered(0.0).sample(key))


def images(pixels):
    return np.asarray(pixels, np.float32).reshape(-1, 1, 2, 1)


# Twelve bright on the left, eight on the right; three of each kind are mislabelled.
LEFT = np.arange(20) < 12
PIXELS = np.where(LEFT[:, None], [[0.9, 0.1]], [[0.2, 0.8]])
TRUE = np.where(np.isin(np.arange(20), [0, 1, 2, 12, 13, 14]), LEFT, ~LEFT).astype(int)
LABELLED = ArraySource({"image": images(PIXELS), "label": TRUE})
UNLABELLED = ArraySource({"image": images(PIXELS)})


def test_the_worked_example_has_its_known_numbers():
    assert matched_accuracy(LABELS, FOUND) == pytest.approx(0.9)
    assert majority_accuracy(LABELS, FOUND) == pytest.approx(0.9)
    found = normalized_mutual_info(LABELS, FOUND)
    assert found == pytest.approx(0.806005970, abs=1e-9)
    found = adjusted_rand_index(LABELS, FOUND)
    assert found == pytest.approx(0.723247232, abs=1e-9)


def test_one_cluster_for_all_is_chance_on_balanced_classes():
    labels, one = np.arange(1000) % 10, np.zeros(1000, int)
    assert matched_accuracy(labels, one) == pytest.approx(0.1)
    assert majority_accuracy(labels, one) == pytest.approx(0.1)
    assert normalized_mutual_info(labels, one) == pytest.approx(0.0, abs=1e-9)
    assert adjusted_rand_index(labels, one) == pytest.approx(0.0, abs=1e-9)


def test_more_clusters_than_classes_help_the_vote_and_not_the_matching():
    every_one = np.arange(len(LABELS))
    assert majority_accuracy(LABELS, every_one) == 1.0
    assert matched_accuracy(LABELS, every_one) == pytest.approx(0.3)


def test_fewer_clusters_than_classes_leave_a_class_without_one():
    found = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    assert matched_accuracy(LABELS, found) == pytest.approx(0.7)
    assert majority_accuracy(LABELS, found) == pytest.approx(0.7)


def test_the_table_counts_every_example_once():
    wanted = [[0, 0, 4], [2, 0, 0], [1, 3, 0]]
    np.testing.assert_array_equal(contingency(LABELS, FOUND), wanted)


numbers = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1)


@given(numbers, st.permutations(range(7)))
def test_the_vote_is_never_below_the_matching_and_names_do_not_matter(pairs, names):
    labels, found = np.array(pairs).T
    renamed = np.array(names)[found]
    vote, matched = majority_accuracy(labels, found), matched_accuracy(labels, found)
    assert 0.0 < matched <= vote <= 1.0
    largest = np.unique(labels, return_counts=True)[1].max()
    assert vote >= largest / len(labels)
    assert majority_accuracy(labels, renamed) == vote
    assert matched_accuracy(labels, renamed) == matched


@given(st.lists(st.integers(0, 6), min_size=1), st.permutations(range(7)))
def test_a_perfect_relabelling_is_perfect(labels, names):
    labels = np.array(labels)
    found = np.array(names)[labels]
    for measure in (majority_accuracy, matched_accuracy, adjusted_rand_index):
        assert measure(labels, found) == 1.0
    if len(set(labels)) > 1:
        assert normalized_mutual_info(labels, found) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("labels", "found"),
    [([0, 1], [0]), ([], []), ([0, -1], [0, 1]), ([[0]], [[0]])],
    ids=["lengths", "nothing", "negative", "rank"],
)
def test_labels_and_clusters_that_do_not_fit_are_refused(labels, found):
    with pytest.raises(ConfigError, match="labels and clusters must be"):
        majority_accuracy(np.array(labels, int), np.array(found, int))


@pytest.mark.parametrize("batch_size", [8, 16])
def test_an_example_is_in_the_most_probable_cluster_of_its_mean(toys, batch_size):
    trained = toys.trained(ByPixel())
    found = evaluate_clusters(trained, LABELLED, batch_size=batch_size, key=KEY)
    np.testing.assert_array_equal(found.assignments, np.where(LEFT, 0, 1))
    np.testing.assert_array_equal(found.labels, TRUE)
    np.testing.assert_array_equal(found.histogram, [12, 8, 0])


def test_without_labels_there_is_a_histogram_and_no_accuracy(toys):
    trained = toys.trained(ByPixel())
    found = evaluate_clusters(trained, UNLABELLED, batch_size=8, key=KEY)
    rows = cluster_metrics(found)
    assert found.labels is None and rows.keys() == {"clusters_used"}
    assert (rows["clusters_used"].value, rows["clusters_used"].unit) == (2.0, "of 3")


def evaluated(toys, source, folder):
    settings = report.Settings(
        num_examples=20, batch_size=8, num_samples=2, chunk_size=2, num_images=4
    )
    options = {"config": {}, "step": 0, "split": "test", "key": KEY}
    trained = toys.trained(ByPixel())
    return report.evaluate(trained, source, folder, settings=settings, **options)


@pytest.mark.slow
def test_a_report_has_the_clusters_beside_everything_else(toys, tmp_path):
    results = evaluated(toys, LABELLED, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    metrics = {n: row["value"] for n, row in results["metrics"].items()}
    assert metrics["matched_accuracy"] == pytest.approx(0.7)
    assert metrics["majority_accuracy"] == pytest.approx(0.7)
    assert results["cluster_sizes"] == [12, 8, 0]
    assert results["cluster_labels"] == [[9, 3], [3, 5]]
    assert {"elbo", "normalized_mutual_info", "clusters_used"} < metrics.keys()
    page = (tmp_path / "report.html").read_text()
    assert "Accuracy by Hungarian matching" in page and "Cluster 1" in page
    pages = {f"cluster_{y:03d}.png" for y in range(3)} | {"cluster_sizes.png"}
    assert pages < results["pictures"].keys()
    assert "12 members" in results["pictures"]["cluster_000.png"]
    assert results["pictures"]["cluster_002.png"].startswith("No members")


@pytest.mark.slow
def test_a_report_of_data_without_labels_has_no_accuracy(toys, tmp_path):
    results = evaluated(toys, UNLABELLED, tmp_path)
    assert not {"matched_accuracy", "majority_accuracy"} & results["metrics"].keys()
    assert "cluster_labels" not in results and results["cluster_sizes"] == [12, 8, 0]


@pytest.mark.slow
def test_a_page_shows_members_above_samples_of_the_same_cluster(toys):
    trained = toys.trained(ByPixel())
    clusters = Clusters(np.where(LEFT, 0, 1), 3)
    _, first, second, empty = gallery.cluster_pages(trained, LABELLED, clusters, KEY)
    assert [p.title for p in (first, second, empty)] == [
        "Cluster 0",
        "Cluster 1",
        "Cluster 2",
    ]
    sheet = np.asarray(Image.open(io.BytesIO(second.png))) / 255.0
    height = sheet.shape[0] // (2 * gallery.CLUSTER_ROWS)
    left, right = 10, sheet.shape[1] // gallery.COLUMNS - 10
    upper, lower = sheet[height // 2], sheet[-height // 2]
    np.testing.assert_allclose([upper[left], upper[right]], [0.2, 0.8], atol=5e-3)
    np.testing.assert_allclose([lower[left], lower[right]], [0.0, 1.0], atol=5e-3)


def test_only_the_largest_clusters_get_a_page(toys, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_CLUSTER_PAGES", 1)
    clusters = Clusters(np.where(LEFT, 1, 0), 3)
    made = gallery.cluster_pages(toys.trained(ByPixel()), LABELLED, clusters, KEY)
    assert [picture.title for picture in made[1:]] == ["Cluster 1"]


def test_models_without_clusters_have_none(toys):
    assert not has_clusters(toys.trained(toys.TwoGroups()))
    assert has_clusters(toys.trained(ByPixel()))
