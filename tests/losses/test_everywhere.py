"""Every objective has one value: eager, jitted, mapped, sharded, padded, repeated.

Parametrised over all of `LOSSES`, so a new objective is tested by being registered. One
that couples the examples of a batch is also listed in `COUPLED`. Compiling is what
costs here, so one program often shows two things.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax.sharding import PartitionSpec

from jvae import losses, models
from jvae.runtime import mesh
from jvae.training import train_step
from tests.losses.classifier import Classifier
from tests.losses.hierarchy import TwoGroups
from tests.tiers import others_slow

COUPLED = ["decomposed_elbo", "cluster_elbo", "infomax", "hierarchical_elbo"]
UNCOUPLED = [name for name in losses.LOSSES if name not in COUPLED]
FIELDS = {
    "bottleneck": {"beta": 0.5},
    "iwae": {"num_samples": 2},
    "decomposed_elbo": {"total_correlation": 3.0},  # at 1 its parts add up to the KL
    "cluster_elbo": {"balance": 20.0},  # the term that couples
    "hierarchical_elbo": {"beta": 0.5, "smoothness": 0.1},  # at 1 nothing is balanced
}
EAGER = ["elbo", "iwae"]  # in the default tier
OF_LABELS = {"bottleneck"}  # refuse a model that does not score labels
ONE_PRIOR = {"decomposed_elbo"}  # refuse a prior that depends on the example
SIZES = {"image_shape": (2, 2, 1), "latent_dim": 2}
MODELS = {
    "plain": {"name": "mlp", **SIZES, "hidden": (3,)},
    "conditional": {"name": "mlp", **SIZES, "hidden": (3,), "num_classes": 3},
    "batch_norm": {"name": "conv", **SIZES, "channels": (2,), "batch_norm": True},
    "discrete": {
        "name": "mlp",
        **SIZES,
        "hidden": (3,),
        "latent": {"name": "gumbel_softmax", "num_values": 3, "temperature": 0.7},
    },
    "sphere": {"name": "mlp", **SIZES, "hidden": (3,), "latent": "von_mises_fisher"},
}


MADE = {
    "classifier": Classifier(),
    "classifier_batch_norm": Classifier(has_norm=True),
    "hierarchy": TwoGroups(side=2, has_norm=False),
    "hierarchy_batch_norm": TwoGroups(side=2),
}
OTHER_LATENTS = [
    ("elbo", "discrete"),
    ("iwae", "discrete"),
    ("prior_kl", "discrete"),
    ("elbo", "sphere"),
    ("iwae", "sphere"),
]
CLUSTERS = {"clusters": {"num_clusters": 3, "classifier_hidden": (4,)}}
MODELS |= {
    "clusters": {"name": "mlp", **SIZES, "hidden": (3,), **CLUSTERS},
    "clusters_batch_norm": {**MODELS["batch_norm"], **CLUSTERS},
}
WITH_CLUSTERS = {"cluster_elbo"}  # refuse a model without
ENCODER = {"name": "infomax", **SIZES, "channels": (3,), "top_channels": ()}
ENCODER |= {"critic_hidden": (4,)}
MODELS |= {
    "encoder": {**ENCODER, "batch_norm": False},
    "encoder_batch_norm": {**ENCODER, "batch_norm": True},
}
OF_ENCODERS = {"infomax"}  # need critics
OF_HIERARCHIES = {"hierarchical_elbo"}  # need kernels
B, DEVICES = 16, 8
KEY = jax.random.key(1)
EACH = jax.random.split(KEY, B)

every_loss = pytest.mark.parametrize("name", losses.LOSSES)


def kind_of(name):
    """Returns the kind of model that an objective is tried on."""
    if name in OF_LABELS:
        return "classifier"
    if name in WITH_CLUSTERS:
        return "clusters"
    if name in OF_ENCODERS:
        return "encoder"
    if name in OF_HIERARCHIES:
        return "hierarchy"
    return "plain" if name in ONE_PRIOR else "conditional"


def norm_kind_of(name):
    """Returns the same with BatchNorm."""
    kinds = {"classifier", "clusters", "encoder", "hierarchy"}
    return f"{kind_of(name)}_batch_norm" if kind_of(name) in kinds else "batch_norm"


@functools.cache
def example(kind):
    """Returns (model, params, state, batch of numpy arrays) with B examples."""
    model = MADE[kind] if kind in MADE else models.build(**MODELS[kind])
    draws = np.random.default_rng(0)
    image = draws.integers(0, 2, (B, 2, 2, 1)).astype("float32")
    batch = {"image": image, "label": np.arange(B, dtype="int32") % 3}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch, EACH)
    variables = jax.tree.map(
        lambda a: draws.standard_normal(a.shape).astype("float32"), shapes
    )
    params = variables.pop("params")
    return model, params, jax.tree.map(np.square, variables), batch  # variances > 0


def build(name, kind):
    return losses.build(name, example(kind)[0], **FIELDS.get(name, {}))


@functools.cache
def value_and_grad(name, kind):
    """Returns the jitted ((loss, aux), gradient) of an objective for a model."""
    return jax.jit(jax.value_and_grad(build(name, kind), has_aux=True))


@functools.cache
def reference(name, kind):
    """Returns ((loss, aux), gradient) on one device, in numpy."""
    _, params, state, batch = example(kind)
    return jax.device_get(value_and_grad(name, kind)(params, state, EACH, batch, {}))


def assert_trees_close(found, wanted, rtol=1e-5):
    """Compares with a tolerance relative to the largest number of the tree.

    Some gradients, of biases before a BatchNorm, are zero but for rounding.
    """
    scale = max(np.abs(w).max() for w in jax.tree.leaves(wanted))
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(f, w, rtol=rtol, atol=rtol * scale)


def assert_equals_reference(variant, name, kind):
    """Here with one key: it means the keys of its split."""
    _, params, state, batch = example(kind)
    found = variant(build(name, kind))(params, state, KEY, batch, {})
    assert_trees_close(found, reference(name, kind)[0])


class VariantsTest(chex.TestCase):
    @chex.variants(without_jit=True)
    @parameterized.parameters((name, kind_of(name)) for name in EAGER)
    def test_value_is_that_of_eager(self, name, kind):
        assert_equals_reference(self.variant, name, kind)


@pytest.mark.slow
class MoreVariantsTest(chex.TestCase):
    """Jit is what all others are compared with; pmap is that of parts of a batch."""

    @chex.variants(without_jit=True)
    @parameterized.parameters(
        (name, kind_of(name)) for name in losses.LOSSES if name not in EAGER
    )
    def test_value_is_that_of_eager(self, name, kind):
        assert_equals_reference(self.variant, name, kind)

    @chex.variants(with_jit=True, with_pmap=True)
    @parameterized.parameters((name, kind_of(name)) for name in losses.LOSSES)
    def test_value_is_that_of_every_variant(self, name, kind):
        assert_equals_reference(self.variant, name, kind)

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.parameters(*OTHER_LATENTS)
    def test_value_of_other_latents_is_that_of_every_variant(self, name, kind):
        assert_equals_reference(self.variant, name, kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, norm_kind_of(name)) for name in losses.LOSSES),
        *others_slow(
            [*((name, kind_of(name)) for name in losses.LOSSES), *OTHER_LATENTS],
            ("elbo", "conditional"),
        ),
    ],
)
def test_value_and_gradient_are_the_same_on_eight_devices_with_padding(name, kind):
    """Rows that do not count change nothing, whatever they hold and wherever.

    With BatchNorm neither do they enter the statistics, of the encoder nor the decoder.
    """
    _, params, state, batch = example(kind)
    places = [0, 0, 5, 5, 5, 9, B, B]  # 24 rows, three on every device
    mask = np.insert(np.ones(B, bool), places, False)
    padded = {k: np.insert(v, places, 0, axis=0) for k, v in batch.items()}
    garbage = np.resize([np.nan, np.inf, 7.0], len(places)).reshape(-1, 1, 1, 1)
    padded["image"][~mask] = garbage
    padded["mask"] = mask
    each = EACH[np.insert(np.arange(B), places, 3)]
    each, padded = jax.device_put((each, padded), mesh.rows(mesh.build()))
    found = value_and_grad(name, kind)(params, state, each, padded, {})
    for part, wanted in zip(found, reference(name, kind), strict=True):
        assert_trees_close(part, wanted, rtol=1e-6 if "batch_norm" in kind else 1e-5)


def ragged(kind):
    """[B] keys and the batch, in 24 rows: 3, 0, 3, 1, 3, 3, 0 and 3 for 8 devices.

    What does not count is nan.
    """
    mask = (np.arange(3) < np.array([[3, 0, 3, 1, 3, 3, 0, 3]]).T).reshape(-1)
    places = np.cumsum(mask) - 1
    batch = {k: v[places] for k, v in example(kind)[3].items()}
    batch["image"][~mask] = np.nan
    return EACH[places], {**batch, "mask": mask}


def share(axes, batch):
    """Returns the part of all examples that this device has."""
    size = losses.num_examples(batch)
    return size / jax.lax.psum(size, axes)


def weighted_shards(loss, params, state, each, batch):
    """The gradient of what every device has is summed by shard_map itself."""
    everywhere, split = PartitionSpec(), PartitionSpec(mesh.AXES)

    def shard(params, state, each, batch):
        part = share(mesh.AXES, batch)

        def local(params):
            value, aux = loss(params, state, each, batch, {})
            return part * value, aux.metrics

        (value, metrics), gradient = jax.value_and_grad(local, has_aux=True)(params)
        metrics = jax.tree.map(lambda a: part * a, metrics)
        return jax.lax.psum((value, metrics), mesh.AXES), gradient

    specs = {"in_specs": (everywhere, everywhere, split, split)}
    mapped = jax.shard_map(shard, mesh=mesh.build(), **specs, out_specs=everywhere)
    return jax.jit(mapped)(params, state, each, batch)


def weighted_pmaps(loss, params, state, each, batch):
    function = jax.value_and_grad(loss, has_aux=True)

    def shard(each, batch):
        part = share("devices", batch)
        (value, aux), gradient = function(params, state, each, batch, {})
        found = jax.tree.map(lambda a: part * a, ((value, aux.metrics), gradient))
        return jax.lax.psum(found, "devices")

    found = jax.pmap(shard, axis_name="devices")(*shards((each, batch)))
    return jax.tree.map(lambda a: a[0], found)


def accumulated(loss, params, state, each, batch):
    """Part i of 8 has rows i, i + 8 and i + 16, in part 3 no example."""
    parts = jax.jit(train_step.gradient_fn(loss, 8))
    (value, aux), gradient = parts(params, state, each, batch, {})
    return (value, aux.metrics), gradient


@pytest.mark.parametrize(
    ("name", "mapped"),
    others_slow(
        [
            (name, mapped)
            for name in UNCOUPLED
            for mapped in (weighted_shards, weighted_pmaps, accumulated)
        ],
        ("elbo", weighted_shards),
        ("elbo", accumulated),
    ),
)
def test_parts_weighted_by_their_examples_are_the_ragged_batch(name, mapped):
    kind = kind_of(name)
    _, params, state, _ = example(kind)
    found = mapped(build(name, kind), params, state, *ragged(kind))
    (value, aux), gradient = reference(name, kind)
    assert_trees_close(found, ((value, aux.metrics), gradient))


@pytest.mark.parametrize("name", others_slow(list(losses.LOSSES), "elbo"))
def test_batch_norm_makes_value_and_state_those_of_the_global_batch(name):
    """In the default tier once: the test of padding says it of every objective."""
    kind = norm_kind_of(name)
    _, params, state, batch = example(kind)
    loss = jax.jit(build(name, kind))
    wanted = loss(params, state, EACH, batch, {})
    each, batch = jax.device_put((EACH, batch), mesh.rows(mesh.build()))
    found = loss(params, state, each, batch, {})
    assert_trees_close(jax.device_get(found), jax.device_get(wanted))
    chex.assert_trees_all_equal_shapes_and_dtypes(found[1].state, state)


def test_batch_norm_makes_the_gradient_that_of_the_global_batch():
    _, params, state, batch = example("batch_norm")
    each, batch = jax.device_put((EACH, batch), mesh.rows(mesh.build()))
    _, gradient = value_and_grad("elbo", "batch_norm")(params, state, each, batch, {})
    assert_trees_close(gradient, reference("elbo", "batch_norm")[1])


@every_loss
def test_loss_and_metrics_are_finite_scalars_and_every_gradient_is_finite(name):
    _, params, state, _ = example(kind_of(name))
    (loss, aux), gradient = reference(name, kind_of(name))
    assert loss.shape == () and loss.dtype == np.float32
    assert all(m.shape == () and np.isfinite(m) for m in aux.metrics.values())
    assert aux.metrics["loss"] == loss
    chex.assert_trees_all_equal_shapes_and_dtypes(aux.state, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def shards(tree):
    """Arrays [B, ...] as [devices, B / devices, ...]."""
    return jax.tree.map(lambda a: a.reshape(DEVICES, -1, *a.shape[1:]), tree)


def pmapped(loss, params, state, each, batch):
    mapped = jax.pmap(loss, in_axes=(None, None, 0, 0, None))
    return mapped(params, state, *shards((each, batch)), {})[0]


def vmapped(loss, params, state, each, batch):
    one_by_one = jax.tree.map(lambda a: a[:, None], (each, batch))
    mapped = jax.vmap(loss, in_axes=(None, None, 0, 0, None))
    return jax.jit(mapped)(params, state, *one_by_one, {})[0]


def shard_mapped(loss, params, state, each, batch):
    everywhere, split = PartitionSpec(), PartitionSpec(mesh.AXES)
    mapped = jax.shard_map(
        lambda *arguments: loss(*arguments, {})[0][None],
        mesh=mesh.build(),
        in_specs=(everywhere, everywhere, split, split),
        out_specs=split,
    )
    return jax.jit(mapped)(params, state, each, batch)


@pytest.mark.parametrize(
    ("name", "kind", "mapped"),
    [
        *((name, kind_of(name), pmapped) for name in UNCOUPLED),
        *((name, kind_of(name), vmapped) for name in UNCOUPLED),
        ("elbo", "conditional", shard_mapped),
        *others_slow(
            [
                *((name, kind, pmapped) for name, kind in OTHER_LATENTS),
                *(("elbo", kind, vmapped) for kind in ("discrete", "sphere")),
                ("elbo", "discrete", shard_mapped),
            ],
            ("elbo", "discrete", pmapped),
            ("elbo", "sphere", pmapped),
        ),
    ],
)
def test_the_mean_over_parts_of_a_batch_is_the_value_of_the_batch(name, kind, mapped):
    """Different rows on every device, the draws of each example held equal."""
    _, params, state, batch = example(kind)
    parts = mapped(build(name, kind), params, state, EACH, batch)
    assert np.ptp(parts) > 1e-2
    wanted = reference(name, kind)[0][0]
    np.testing.assert_allclose(parts.mean(), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    others_slow(
        [*((name, kind_of(name)) for name in COUPLED), ("elbo", "batch_norm")],
        *((name, kind_of(name)) for name in ("decomposed_elbo", "infomax")),
    ),
)
def test_under_pmap_a_coupled_value_is_that_of_each_devices_own_rows(name, kind):
    _, params, state, batch = example(kind)
    loss = build(name, kind)
    parts = pmapped(loss, params, state, EACH, batch)
    each, rows = jax.tree.map(lambda a: a[3], shards((EACH, batch)))
    alone = jax.jit(loss)(params, state, each, rows, {})[0]
    np.testing.assert_allclose(parts[3], alone, rtol=1e-5)
    assert abs(parts.mean() - reference(name, kind)[0][0]) > 1e-2


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        # Not of 'infomax', whose false pairs would be others.
        ("decomposed_elbo", kind_of("decomposed_elbo")),
        ("cluster_elbo", kind_of("cluster_elbo")),
        ("elbo", "batch_norm"),
    ],
)
def test_repeating_every_row_with_its_draw_changes_nothing(name, kind):
    _, params, state, batch = example(kind)
    twice = jax.tree.map(lambda a: np.concatenate([a, a]), batch)
    each = jnp.concatenate([EACH, EACH])
    loss, _ = jax.jit(build(name, kind))(params, state, each, twice, {})
    np.testing.assert_allclose(loss, reference(name, kind)[0][0], rtol=1e-5)
