"""A model with clusters goes the way of every other: trained, resumed, evaluated."""

import chex
import jax
import numpy as np
import pytest

import jvae
from jvae.errors import ConfigError
from jvae.reports.run import evaluate_run
from jvae.training import assembly, config, experiment
from tests.runs import metrics

KEY = jax.random.key(0)
KINDS = {
    "classifier": {"num_clusters": 4, "classifier_hidden": [8]},
    "responsibilities": {
        "num_clusters": 4,
        "assignment": "responsibilities",
        "mean_std": 1.0,
        "learned_variances": True,
        "learned_weights": True,
    },
}


@pytest.fixture(params=KINDS)
def clustered(request, tiny):
    tiny["model"]["clusters"] = KINDS[request.param]
    tiny["loss"] = {"name": "cluster_elbo", "balance": 2.0}
    return tiny


@pytest.mark.slow
def test_what_it_reports_and_what_it_can_be_asked(clustered, tmp_path):
    whole = tmp_path / "whole"
    experiment.run(clustered, whole)
    rows = [r for r in metrics(whole) if r["split"] == "train"]
    for row in rows:
        wanted = 2.0 * row["imbalance"] - row["elbo"]
        np.testing.assert_allclose(row["loss"], wanted, rtol=1e-5)
    results = evaluate_run(
        whole, num_samples=2, num_examples=64, num_images=4, batch_size=64
    )
    found = {name: row["value"] for name, row in results["metrics"].items()}
    assert found["majority_accuracy"] >= found["matched_accuracy"] > 0.0
    assert sum(results["cluster_sizes"]) == 64
    model = jvae.restore(whole)
    x = (np.random.default_rng(0).random((5, 8, 8, 1)) > 0.5).astype("float32")
    clusters = np.asarray(model.cluster(x))
    assert clusters.shape == (5,) and set(clusters) <= set(range(4))
    assert model.sample(KEY, 3, label=2).shape == (3, 8, 8, 1)
    cold = model.sample(KEY, 2, temperature=0.0, label=[1, 1])
    np.testing.assert_allclose(cold[0], cold[1], rtol=1e-5)
    assert np.isfinite(model.log_likelihood(x, KEY, 4)).all()
    with pytest.raises(ConfigError, match=r"label must hold integers in 0\.\.3"):
        model.sample(KEY, 1, label=4)
    with pytest.raises(ConfigError, match="label must be None for a model without"):
        model.elbo(x, KEY, label=np.zeros(5, int))


@pytest.mark.slow
def test_it_starts_from_a_plain_vae_of_the_same_layers(
    trained, clustered, tmp_path, capsys
):
    clustered |= {"init_from": str(trained), "num_steps": 0}
    experiment.run(clustered, tmp_path)
    loaded, new = capsys.readouterr().err.split("loaded from")[1].split("; new: ")
    names = ("encoder/Dense_0/kernel", "posterior_head/bias", "decoder/output/kernel")
    assert all(name in loaded for name in names)
    assert "cluster_means" in new and "encoder" not in new and "decoder" not in new


@pytest.mark.slow
def test_components_are_fitted_to_the_codes_of_the_runs_first_examples(clustered):
    """The same at one seed and others at another; averages start there too."""
    clustered["model"]["clusters"] |= {"components": "codes"}

    def begin(seed):
        run = clustered | {"seed": seed, "ema_decay": 0.5}
        components = assembly.assemble(config.parse_experiment(run))
        before = components.create_state()
        state = components.data_dependent_init(before)
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(before.params),
            jax.tree.leaves(state.params),
            strict=True,
        ):
            assert np.array_equal(a, b) != ("cluster" in str(path)), path
        chex.assert_trees_all_equal(state.params, state.ema)
        return state.params["cluster_means"]

    first, again, other = begin(0), begin(0), begin(1)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.slow
def test_a_run_begins_where_its_model_starts(clustered, tmp_path):
    clustered["model"]["clusters"] |= {"components": "codes"}
    clustered |= {"num_steps": 1, "eval_every_steps": 0}
    clustered["optimizer"] = {"name": "sgd", "learning_rate": 1e-9}
    components = assembly.assemble(config.parse_experiment(clustered))
    state = components.data_dependent_init(components.create_state())
    wanted = state.params["cluster_means"]
    experiment.run(clustered, tmp_path)
    found = jvae.restore(tmp_path, step="last", params="raw").params["cluster_means"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_model_without_clusters_has_none_to_give(trained):
    model = jvae.restore(trained)
    with pytest.raises(ConfigError, match="VAE has no clusters"):
        model.cluster(np.zeros((1, 8, 8, 1)))


@pytest.mark.slow
def test_fewer_clusters_than_there_are_classes_are_no_mistake(tiny, tmp_path):
    tiny["model"]["clusters"] = {"num_clusters": 3}
    tiny |= {"num_steps": 2, "eval_every_steps": 0}
    experiment.run(tiny, tmp_path)
    results = evaluate_run(tmp_path, num_samples=2, num_images=4)
    assert len(results["cluster_sizes"]) == 3
    assert results["metrics"]["clusters_used"]["unit"] == "of 3"
