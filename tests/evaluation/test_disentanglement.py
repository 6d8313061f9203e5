"""Scores of codes whose relation to the factors is known."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from jvae.data.sources import ArraySource
from jvae.errors import ConfigError
from jvae.evaluation import disentanglement as d
from jvae.evaluation.results import evaluate_all
from jvae.evaluation.settings import Settings
from tests.tiers import others_slow

N = 2000
FACTORS = np.random.default_rng(0).integers(0, 5, (N, 3))
NOISE = 0.01 * np.random.default_rng(1).normal(size=(N, 6))
IDENTITY = FACTORS + NOISE[:, :3]
CONSTANT = np.zeros((N, 3))
TWICE = np.concatenate([FACTORS, FACTORS], 1) + NOISE
# The first two factors stand in two dimensions alike.
TURNED = IDENTITY @ np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
DIAGONAL = np.eye(5)


CODES = {"identity": IDENTITY, "constant": CONSTANT, "twice": TWICE}
CASES = [
    ("identity", "mig", 0.9, 1.0),
    ("constant", "mig", 0.0, 0.2),
    ("twice", "mig", 0.0, 0.1),
    ("identity", "sap", 0.9, 1.0),
    ("constant", "sap", 0.0, 0.2),
    ("twice", "sap", 0.0, 0.2),
    ("identity", "factor_vae", 0.9, 1.0),
    ("constant", "factor_vae", 0.0, 0.2),
    ("identity", "disentanglement", 0.9, 1.0),
    ("identity", "completeness", 0.9, 1.0),
    ("identity", "informativeness", 0.99, 1.0),
    ("twice", "disentanglement", 0.9, 1.0),
    ("twice", "completeness", 0.5, 0.75),
]


@functools.cache
def scores(name):
    return d.scores(CODES[name], FACTORS)


@pytest.mark.parametrize(
    ("name", "score", "low", "high"),
    others_slow(CASES, *(case for case in CASES if case[0] == "identity")),
)
def test_scores_of_known_codes(name, score, low, high):
    assert low <= getattr(scores(name), score) <= high


def test_thresholds_tell_what_they_can_and_chance_counts_for_nothing():
    """Half of a dimension is noise: of two values three quarters are right."""
    rng = np.random.default_rng(5)
    values = rng.integers(0, 2, 4000)
    seen = np.where(rng.random(4000) < 0.5, values, rng.integers(0, 2, 4000))
    codes = np.stack([seen, rng.integers(0, 2, 4000)], 1)
    halves = (codes[:2000], values[:2000, None], codes[2000:], values[2000:, None])
    table = d.attribute_accuracy(*halves)
    np.testing.assert_allclose(table[:, 0], [0.5, 0.0], atol=0.06)


@pytest.mark.slow
def test_a_turned_code_is_as_informative_and_less_disentangled():
    turned = d.scores(TURNED, FACTORS)
    assert turned.informativeness > 0.99
    assert turned.disentanglement < 0.8 < scores("identity").disentanglement
    assert turned.mig == pytest.approx(1 / 3, abs=0.05)
    assert turned.sap == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize(
    ("importance", "disentangled", "complete"),
    [
        (DIAGONAL, 1.0, 1.0),
        (np.zeros((5, 5)), 0.0, 0.0),
        (np.concatenate([DIAGONAL, DIAGONAL], 0), 1.0, 0.698970),
        (np.concatenate([DIAGONAL, DIAGONAL], 1), 0.698970, 1.0),
    ],
)
def test_dci_of_given_importances(importance, disentangled, complete):
    assert d.disentanglement(importance) == pytest.approx(disentangled, abs=1e-6)
    assert d.completeness(importance) == pytest.approx(complete, abs=1e-6)


def test_a_dimension_without_importance_counts_for_nothing():
    importance = np.concatenate([DIAGONAL, np.zeros((2, 5))])
    assert d.disentanglement(importance) == pytest.approx(1.0)


def test_entropies_and_information_of_whole_numbers():
    assert d.discrete_entropy(np.array([0, 1, 2] * 4)) == pytest.approx(np.log(3))
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert d.mutual_information(a, a) == pytest.approx(np.log(2))
    assert d.mutual_information(a, b) == pytest.approx(0.0, abs=1e-12)
    for i in range(3):
        mine = d.mutual_information(FACTORS[:, 0], FACTORS[:, i])
        other = mutual_info_score(FACTORS[:, 0], FACTORS[:, i])
        assert mine == pytest.approx(other, abs=1e-9)


def test_bins_have_equal_width_and_the_largest_value_is_in_the_last():
    codes = np.array([[0.0, 5.0], [0.49, 5.0], [0.51, 5.0], [1.0, 5.0]])
    np.testing.assert_array_equal(d.binned(codes, 2), [[0, 0], [0, 0], [1, 0], [1, 0]])


def test_codes_and_factors_of_different_lengths_are_refused():
    with pytest.raises(ConfigError, match=r"be \[N, D\] and \[N, K\]"):
        d.scores(IDENTITY[:5], FACTORS)


@pytest.mark.slow
def test_a_model_is_scored_where_factors_are_known_whatever_the_batches(toys):
    """A code that is the pixels, which are the factors."""
    images = IDENTITY.astype("float32")
    source = ArraySource(
        {"image": images[:500, None, :, None], "factors": FACTORS[:500].astype("int32")}
    )
    trained = toys.trained(toys.PixelCode((1.0, 1.0, 1.0)))
    options = {"key": jax.random.key(0), "num_examples": 450}
    found = [
        d.evaluate_disentanglement(trained, source, batch_size=n, **options)
        for n in (64, 200)
    ]
    assert found[0] == found[1] == d.scores(images[:450], FACTORS[:450])
    settings = Settings(num_samples=1, num_examples=450)
    metrics = evaluate_all(
        trained, source, key=options["key"], settings=settings
    ).metrics
    assert metrics["mig"].value == found[0].mig and metrics["sap"].unit == "of 1"
    plain = toys.source(images[:50, :])
    metrics = evaluate_all(
        trained, plain, key=options["key"], settings=settings
    ).metrics
    assert "mig" not in metrics


@pytest.mark.parametrize("num_constant", [1, 3])
def test_factors_that_do_not_vary_are_left_out(toys, num_constant):
    images, factors = IDENTITY[:40].astype("float32"), FACTORS[:40].astype("int32")
    factors[:, :num_constant] = 2
    source = ArraySource({"image": images[:, None, :, None], "factors": factors})
    trained = toys.trained(toys.PixelCode((1.0, 1.0, 1.0)))
    found = d.evaluate_disentanglement(
        trained, source, batch_size=40, key=jax.random.key(0)
    )
    if num_constant == 3:
        assert found is None
        return
    rest = d.scores(images, factors[:, num_constant:])
    assert dataclasses.replace(found, num_constant=0) == rest
    meaning = d.disentanglement_metrics(found)["mig"].meaning
    assert meaning.endswith("factors left out, as they do not vary: 1")
