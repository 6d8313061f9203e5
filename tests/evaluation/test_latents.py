import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import losses, models
from jvae.data.sources import ArraySource
from jvae.distributions import DiagGaussian
from jvae.evaluation import latents
from jvae.evaluation.latents import (
    active_units,
    collapse_verdict,
    evaluate_latents,
    information,
)
from jvae.pretrained.trained_model import TrainedModel
from tests.tiers import others_slow

KEY = jax.random.key(2)


@pytest.mark.parametrize("k", [0, 2])
def test_active_units_are_the_informative_dimensions(toys, k):
    scales = (1.0,) * k + (0.0,) * (3 - k)
    pixels = np.random.default_rng(0).normal(size=(60, 3))
    trained = toys.trained(toys.PixelCode(scales))
    found = evaluate_latents(trained, toys.source(pixels), batch_size=16, key=KEY)
    np.testing.assert_array_equal(found.active, np.arange(3) < k)
    expected = 0.5 * np.square(pixels.astype(np.float32) * scales).mean(0)
    np.testing.assert_allclose(found.kl, expected, rtol=1e-5)
    assert found.num_examples == 60


def test_active_means_a_variance_over_a_hundredth():
    means = np.array([[0.0, 0.0], [0.199, 0.201]])
    np.testing.assert_array_equal(active_units(means), [False, True])


@pytest.mark.parametrize("on_one_device", [False, True])
def test_mutual_information_of_64_separated_posteriors_is_log_64(toys, on_one_device):
    pixels = np.arange(64.0)[:, None] * np.ones((1, 2))
    devices = toys.ONE_DEVICE if on_one_device else None
    trained = toys.trained(toys.PixelCode((1.0, 1.0), -8.0), devices=devices)
    found = evaluate_latents(trained, toys.source(pixels), batch_size=24, key=KEY)
    assert found.information.terms["mutual_info"].mean == pytest.approx(
        4.158883, abs=1e-4
    )
    assert found.information.cap == pytest.approx(4.158883, abs=1e-6)
    assert found.information.is_capped


def test_a_collapsed_posterior_has_no_information(toys):
    trained = toys.trained(toys.PixelCode((0.0, 0.0)))
    pixels = np.random.default_rng(0).normal(size=(64, 2))
    found = evaluate_latents(trained, toys.source(pixels), batch_size=64, key=KEY)
    assert all(abs(term.mean) < 0.01 for term in found.information.terms.values())
    assert not found.information.is_capped
    assert collapse_verdict(found.kl, found.active).status == "collapsed"


@pytest.mark.slow
@pytest.mark.parametrize("elements", [700, 2**30])
def test_information_in_chunks_is_the_decomposition_of_the_kl(monkeypatch, elements):
    monkeypatch.setattr(latents, "MAP_ELEMENTS", elements)
    means, log_vars = jax.random.normal(KEY, (2, 50, 3))
    q = DiagGaussian(means, log_vars - 1.0)
    z = q.sample(KEY)
    log_prior = DiagGaussian.standard(50, 3).log_prob(z)
    found = information(q, z, log_prior=log_prior).terms
    truth = losses.decompose_kl(q, z)
    assert found.keys() == truth.keys() - {"kl"}
    for name, term in found.items():
        assert term.mean == pytest.approx(float(truth[name]), abs=1e-5)


@pytest.mark.parametrize("conditional", others_slow([False, True], True))
@pytest.mark.parametrize("name", others_slow(["mlp", "conv"], "mlp"))
def test_every_model_with_a_gaussian_posterior_has_its_kl_decomposed(
    toys, name, conditional
):
    """With class means too, but not the parts that compare with one prior for all."""
    classes = {"num_classes": 3} if conditional else {}
    model = models.build(name, image_shape=(4, 4, 1), latent_dim=2, **classes)
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 2, (24, 4, 4, 1)).astype(np.float32)
    arrays = {"image": pixels, "label": np.arange(24, dtype=np.int32) % 3}
    source = ArraySource(arrays)
    variables = model.init(KEY, arrays, KEY)
    variables = jax.tree.map(lambda a: draws.normal(size=a.shape), variables)
    params = jax.tree.map(lambda a: a.astype(np.float32), variables["params"])
    trained = TrainedModel(model, params, {}, toys.AS_STORED, toys.ONE_DEVICE)
    found = evaluate_latents(trained, source, batch_size=24, key=KEY)
    assert (found.draws is None) == conditional
    one_prior = {"marginal_kl", "dimension_wise_kl"}
    assert found.information.terms.keys() == (
        {"mutual_info", "total_correlation"} | (set() if conditional else one_prior)
    )
    assert 0.1 < found.information.terms["mutual_info"].mean <= np.log(24) + 1e-5


def test_negative_estimates_are_clamped_and_named():
    q = DiagGaussian(jnp.array([[-5.0], [5.0]]), jnp.zeros((2, 1)))
    found = information(q, -q.mean)  # every draw where the other posterior is
    assert found.terms["mutual_info"].mean == 0.0
    assert "mutual_info" in found.clamped
    assert information(q, q.mean).clamped == ()


def test_a_prior_that_is_not_standard_leaves_out_what_compares_with_it(toys):
    trained = toys.trained(toys.PixelCode((1.0, 1.0), prior_mean=1.0))
    source = toys.source(np.random.default_rng(0).normal(size=(20, 2)))
    found = evaluate_latents(trained, source, batch_size=8, key=KEY)
    assert found.information.terms.keys() == {"mutual_info", "total_correlation"}


def test_a_hierarchical_model_has_the_kl_of_its_groups_alone(toys):
    trained = toys.trained(toys.TwoGroups())
    pixels = np.ones((10, 2))
    found = evaluate_latents(trained, toys.source(pixels), batch_size=8, key=KEY)
    np.testing.assert_allclose(found.kl, [1.0, 0.0], atol=1e-6)
    assert found.means is found.active is found.information is None


@pytest.mark.parametrize(
    ("kl", "active", "status", "words"),
    [
        ([2.0, 1.0], [True, True], "healthy", "all 2 dimensions"),
        ([2.0, 0.0], [True, False], "partly collapsed", "1 of 2 dimensions unused"),
        ([2.0, 1.0], [False, False], "collapsed", "0 of 2 dimensions"),
        ([0.03, 0.03], [True, True], "collapsed", "0.06 nats"),
        ([2.0, 0.005], None, "partly collapsed", "1 of 2 groups"),
        ([2.0, 1.0], None, "healthy", "all 2 groups"),
        ([np.nan, 1.0], [True, True], "unknown", "not finite"),
    ],
)
def test_the_verdict_names_what_is_used(kl, active, status, words):
    active = None if active is None else np.array(active)
    verdict = collapse_verdict(np.array(kl), active)
    assert verdict.status == status
    assert words in verdict.sentence
    assert verdict.sentence.lower().startswith(status)
