"""Bounds on information from scores of pairs, and the objective made of them."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae import losses, models
from jvae.errors import ConfigError
from jvae.losses.infomax import ESTIMATORS
from jvae.runtime import mesh
from jvae.types import Inference, Views
from tests.tiers import others_slow

KEY = jax.random.key(2)
LN_2 = math.log(2.0)
ROWS = np.arange(8)
COUNTS = np.array([[4, 1, 0], [1, 2, 1]])
JITTED = {name: jax.jit(bound) for name, bound in ESTIMATORS.items()}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


def toy():
    """Returns (x, z of true pairs, z' of false ones): each pair as often as it comes.

    x and z of the true pairs are distributed as COUNTS / 9, of the false ones as the
    product of its margins.
    """
    total = COUNTS.sum()
    true = [(x, z) for (x, z), n in np.ndenumerate(COUNTS) for _ in range(n * total)]
    product = np.outer(COUNTS.sum(1), COUNTS.sum(0))
    false = [(x, z) for (x, z), n in np.ndenumerate(product) for _ in range(n)]
    return np.array(true), np.array(false)


def scores(critic):
    """Returns the scores of the toy's true and false pairs, as estimators take them."""
    true, false = toy()
    return critic[tuple(true.T)], critic[tuple(false.T)][None]


JOINT = COUNTS / COUNTS.sum()
PRODUCT = np.outer(JOINT.sum(1), JOINT.sum(0))
with np.errstate(divide="ignore"):
    RATIO = np.maximum(np.log(JOINT / PRODUCT), -40.0).astype("float32")


def kl(p, q):
    kept = p > 0
    return float((p[kept] * np.log(p[kept] / q[kept])).sum())


def test_at_the_true_log_ratio_jensen_shannon_is_twice_the_divergence_less_2_ln_2():
    middle = (JOINT + PRODUCT) / 2
    divergence = (kl(JOINT, middle) + kl(PRODUCT, middle)) / 2
    assert 0.0 < divergence < LN_2
    found = float(JITTED["jensen_shannon"](*scores(RATIO)))
    np.testing.assert_allclose(found / 2 + LN_2, divergence, rtol=1e-5)


def test_at_the_true_log_ratio_donsker_varadhan_is_the_mutual_information():
    found = JITTED["donsker_varadhan"](*scores(RATIO))
    np.testing.assert_allclose(found, kl(JOINT, PRODUCT), rtol=1e-5)


@pytest.mark.parametrize("name", ["jensen_shannon", "donsker_varadhan"])
def test_no_critic_does_better_than_the_true_log_ratio(name):
    best = float(JITTED[name](*scores(RATIO)))
    draws = np.random.default_rng(0)
    for size in (0.1, 0.5, 2.0):
        other = RATIO + size * draws.normal(size=RATIO.shape).astype("float32")
        assert float(JITTED[name](*scores(other))) < best


def test_perfectly_told_pairs_give_the_jensen_shannon_divergence_its_largest_value():
    true, false = np.full((5,), 60.0, "f4"), np.full((1, 5), -60.0, "f4")
    found = JITTED["jensen_shannon"](true, false)
    np.testing.assert_allclose(float(found) / 2 + LN_2, LN_2, rtol=1e-6)


def test_a_critic_that_says_nothing():
    true, false = np.zeros((64, 2, 2), "f4"), np.zeros((63, 64, 2, 2), "f4")
    found = JITTED["jensen_shannon"](true, false)
    np.testing.assert_allclose(found, -1.386294361, rtol=1e-6)
    for constant in np.array([0.0, 3.0], "f4"):
        for name in ("info_nce", "donsker_varadhan"):
            found = JITTED[name](true + constant, false + constant)
            np.testing.assert_allclose(found, 0.0, atol=2e-6)


def test_info_nce_is_never_above_the_log_of_the_candidates():
    true, false = np.full((64,), 200.0, "f4"), np.full((63, 64), -200.0, "f4")
    info_nce = JITTED["info_nce"]
    np.testing.assert_allclose(info_nce(true, false), 4.158883083, rtol=1e-6)
    one = info_nce(true, false[:1])
    np.testing.assert_allclose(one, LN_2, rtol=1e-6)


def test_info_nce_is_the_log_of_a_softmax():
    draws = np.random.default_rng(1)
    true, false = draws.normal(size=(6,)), draws.normal(size=(4, 6))
    shares = np.exp(true) / (np.exp(true) + np.exp(false).sum(0))
    wanted = np.log(5 * shares).mean()
    found = JITTED["info_nce"](true.astype("f4"), false.astype("f4"))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@every_estimator
def test_huge_scores_have_finite_values_and_gradients(name):
    bound = jax.jit(jax.value_and_grad(lambda s: ESTIMATORS[name](s[0], s[1:])))
    for size in (1e2, 1e4):
        value, grad = bound(np.array([[-size, size], [size, -size]], "f4"))
        assert np.isfinite(value) and np.isfinite(grad).all()


@every_estimator
def test_places_are_averaged_and_rows_of_padding_do_not_count(name):
    draws = np.random.default_rng(3)
    true = draws.normal(size=(5, 2, 3)).astype("f4")
    false = draws.normal(size=(2, 5, 2, 3)).astype("f4")
    places = [
        JITTED[name](true[:, i, j], false[:, :, i, j])
        for i in range(2)
        for j in range(3)
    ]
    found = JITTED[name](true, false)
    np.testing.assert_allclose(found, np.mean(places), rtol=1e-5)
    mask = np.array([True, True, False, True, False])
    true[~mask], false[:, ~mask] = 50.0, 50.0
    kept = JITTED[name](true[mask], false[:, mask])
    np.testing.assert_allclose(JITTED[name](true, false, mask), kept, rtol=1e-5)


def partners(num_seeds, *args):
    """Returns the partners at each of the seeds 0, 1, ..., [S, N, B]."""
    draw = jax.vmap(lambda seed: losses.in_batch_negatives(jax.random.key(seed), *args))
    return np.asarray(jax.jit(draw)(np.arange(num_seeds)))


@pytest.mark.parametrize("num", [1, 3, 7])
def test_partners_are_others_all_different_and_each_as_often(num):
    seen = set()
    for found in partners(20, 8, num):
        assert found.shape == (num, 8)
        for row in found:
            assert sorted(row) == list(range(8))
        for i in range(8):
            assert i not in found[:, i] and len(set(found[:, i])) == num
        seen.add(tuple(found[:, 0]))
    assert len(seen) > (1 if num == 7 else 3)


def test_partners_pass_over_rows_of_padding_as_if_they_were_not_there():
    mask = np.array([False, True, True, False, True, True])
    places = np.flatnonzero(mask)
    for found in partners(10, 6, 2, mask)[..., mask]:
        assert set(found.reshape(-1)) <= set(places)
        assert not (found == places).any() and (found[0] != found[1]).all()


def test_one_row_that_counts_gives_a_finite_loss():
    model, params, batch = small()
    mask = np.array([True] + [False] * 7)
    loss, _ = value(model, params, {**batch, "mask": mask})
    assert np.isfinite(loss)


FIELDS = {
    "image_shape": (4, 4, 1),
    "latent_dim": 3,
    "channels": (4,),
    "top_channels": (5,),
    "batch_norm": False,
    "critic_hidden": (6, 6),
}


@functools.cache
def small(**fields):
    """Returns (model, random parameters, batch of 8)."""
    model = models.build("infomax", **{**FIELDS, **fields})
    image = np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype("f4")
    batch = {"image": image}
    shapes = jax.eval_shape(model.init, KEY, batch, KEY)["params"]
    draws = np.random.default_rng(1)
    params = jax.tree.map(lambda a: 0.5 * draws.normal(size=a.shape), shapes)
    return model, jax.tree.map(np.float32, params), batch


def value(model, params, batch, coefficients=None, **options):
    loss = jax.jit(losses.build("infomax", model, **options))
    return jax.device_get(loss(params, {}, KEY, batch, coefficients or {}))


@functools.cache
def pairs_by_hand(critic, view):
    """Returns (views, scores of image i with code j [8, 8, ...], partners [2, 8])."""
    model, params, batch = small(critic=critic, global_view=view)

    def one_pair(model, i, j):
        """Scores of image i with the code of image j, each alone."""
        views = model.views(batch, KEY)
        image, code = (
            functools.partial(jax.lax.dynamic_slice_in_dim, start_index=k, slice_size=1)
            for k in (i, j)
        )
        z = code(views.inference.latents)
        return (
            model.global_scores(image(views.vector), z)[0],
            model.local_scores(image(views.map), z)[0],
        )

    @jax.jit
    def by_hand(params):
        apply = functools.partial(model.apply, {"params": params})
        pair = functools.partial(apply, method=one_pair)
        pairs = jax.vmap(jax.vmap(pair, (None, 0)), (0, None))(ROWS, ROWS)
        first = jax.random.split(KEY, 8)[0]
        others = losses.in_batch_negatives(jax.random.fold_in(first, 1), 8, 2)
        return apply(batch, KEY, method="views"), pairs, others

    return jax.device_get(by_hand(params))


@pytest.mark.parametrize(
    ("name", "critic", "view"),
    others_slow(
        [*itertools.product(ESTIMATORS, ("joint", "dot"), ("features", "code"))],
        *[(name, "joint", "features") for name in ESTIMATORS],
        ("jensen_shannon", "dot", "code"),
    ),
)
def test_the_loss_is_its_weighted_terms_from_pairs_made_by_hand(name, critic, view):
    model, params, batch = small(critic=critic, global_view=view)
    weights = {"global_info": 0.3, "local_info": 0.7, "prior_kl": 0.2}
    loss, aux = value(model, params, batch, weights, estimator=name, num_negatives=2)
    found = aux.metrics
    wanted = 0.2 * found["kl"] - 0.3 * found["global_bound"]
    wanted -= 0.7 * found["local_bound"]
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)

    views, pairs, others = pairs_by_hand(critic, view)
    assert views.vector.shape == (8, 3 if view == "code" else 5)
    np.testing.assert_allclose(found["kl"], views.inference.kl.sum(-1).mean(), 1e-5)
    for of_pairs, bound in zip(pairs, ("global_bound", "local_bound"), strict=True):
        wanted = JITTED[name](of_pairs[ROWS, ROWS], of_pairs[ROWS, others])
        np.testing.assert_allclose(found[bound], wanted, rtol=1e-4, atol=1e-6)


def test_the_mean_over_dimensions_changes_the_weight_and_not_the_metric():
    model, params, batch = small()
    weights = {"global_info": 0.0, "local_info": 0.0, "prior_kl": 1.0}
    total, aux = value(model, params, batch, weights)
    mean, other = value(model, params, batch, weights, kl_over="mean")
    np.testing.assert_allclose(total, 3 * mean, rtol=1e-6)
    assert aux.metrics["kl"] == other.metrics["kl"] == total


@pytest.mark.parametrize("name", others_slow([*ESTIMATORS], "donsker_varadhan"))
def test_false_pairs_come_from_the_whole_batch_on_eight_devices(name):
    model, params, _ = small()
    image = np.random.default_rng(1).normal(size=(16, 4, 4, 1)).astype("f4")
    options = {"estimator": name, "num_negatives": 15}
    alone = value(model, params, {"image": image}, **options)
    rows = jax.device_put({"image": image}, mesh.rows(mesh.build()))
    loss, aux = value(model, params, rows, **options)
    np.testing.assert_allclose(loss, alone[0], rtol=1e-5)
    for metric, number in aux.metrics.items():
        np.testing.assert_allclose(number, alone[1].metrics[metric], rtol=1e-4)


class Constant(models.InfoMaxEncoder):
    """An encoder whose codes do not depend on x."""

    def views(self, batch, key):
        inference, vector, local = super().views(batch, key)
        same = Inference(
            jnp.ones_like(inference.latents), inference.kl, inference.log_ratio
        )
        return Views(same, vector, local)


@pytest.mark.parametrize("name", ["jensen_shannon", "info_nce"])
def test_codes_that_are_all_the_same_tell_nothing_whatever_the_critic(name):
    model, params, batch = small()
    fields = {f: getattr(model, f) for f in model.__dataclass_fields__}
    constant = Constant(**{f: fields[f] for f in fields if f not in ("parent", "name")})
    _, aux = value(constant, params, batch, estimator=name)
    nothing = -2 * LN_2 if name == "jensen_shannon" else 0.0
    for bound in ("global_bound", "local_bound"):
        assert aux.metrics[bound] <= nothing + 1e-6


class Flat(models.InfoMaxEncoder):
    """Its map of places has lost an axis."""

    def views(self, batch, key):
        views = super().views(batch, key)
        return views._replace(map=views.map[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "jsd"}, "loss.estimator must be .*'info_nce'.*, got 'jsd'"),
        ({"kl_over": "max"}, r"loss.kl_over must be 'sum' . 'mean', got 'max'"),
        ({"num_negatives": 0}, "loss.num_negatives must be at least 1, got 0"),
        ({"prior_kl": -1.0}, "loss.prior_kl must be at least 0, got -1.0"),
    ],
)
def test_impossible_options_are_refused_when_it_is_built(options, message):
    with pytest.raises(ConfigError, match=message):
        losses.build("infomax", small()[0], **options)


def test_more_false_pairs_than_the_batch_has_are_refused():
    model, params, batch = small()
    loss = losses.build("infomax", model, num_negatives=8)
    with pytest.raises(ConfigError, match="must be below the batch of 8, got 8"):
        loss(params, {}, KEY, batch, {})


def test_a_model_without_critics_is_refused():
    plain = models.build("mlp", image_shape=(4, 4, 1))
    with pytest.raises(ConfigError, match="needs a model with views, got VAE"):
        losses.build("infomax", plain)


def test_a_map_of_the_wrong_rank_is_refused_with_its_shape():
    model, params, batch = small()
    flat = Flat(nn.Dense(1), "joint", (6, 6), "features", 3, (4, 4, 1))
    flat = flat.clone(encoder=model.encoder)
    loss = losses.build("infomax", flat)
    with pytest.raises(ConfigError, match=r"views of Flat must be .* \[8, 2, 4\]"):
        jax.eval_shape(loss, params, {}, KEY, batch, {})
