"""A workdir for samples: statistics change, parameters do not."""

import dataclasses

import jax
import numpy as np
import pytest

import jvae
from jvae.commands.recalibrate import command, recalibrate
from jvae.errors import ConfigError, WorkdirError
from jvae.reports.run import evaluate_run
from jvae.training import assembly, experiment
from jvae.training import config as configs
from jvae.workdir import checkpoints, checksums

CONV = {
    "name": "conv",
    "image_shape": [8, 8, 1],
    "channels": [4, 6],
    "latent_dim": 3,
    "batch_norm": True,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a run whose model has BatchNorm."""
    from tests.conftest import TINY

    workdir = tmp_path_factory.mktemp("refresh") / "run"
    short = {"num_steps": 4, "eval_every_steps": 0}
    experiment.run({**TINY, "model": CONV, **short}, workdir)
    return workdir


@pytest.mark.slow
def test_only_statistics_of_layers_that_samples_pass_change(run, tmp_path):
    before = jvae.restore(run)
    after = recalibrate(run, tmp_path / "out", num_passes=3, batch_size=8)
    assert after.step == before.step
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    old, new = before.state["batch_stats"], after.state["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, old["encoder"], new["encoder"])
    for a, b in zip(
        *map(jax.tree.leaves, (old["decoder"], new["decoder"])), strict=True
    ):
        assert not np.array_equal(a, b)
    key = jax.random.key(0)
    assert not np.array_equal(before.sample(key, 2), after.sample(key, 2))


@pytest.mark.slow
def test_statistics_are_those_at_the_temperature(run, tmp_path):
    hot, again, cold = (
        recalibrate(run, tmp_path / name, temperature=t, num_passes=3, batch_size=8)
        for name, t in (("hot", 1.0), ("again", 1.0), ("cold", 0.1))
    )
    jax.tree.map(np.testing.assert_array_equal, hot.state, again.state)
    a, b = (m.state["batch_stats"]["decoder"] for m in (hot, cold))
    assert not np.array_equal(*(jax.tree.leaves(x)[0] for x in (a, b)))


def test_the_command_writes_a_workdir_that_restores(run, tmp_path, capsys):
    out = tmp_path / "out"
    command([f"--workdir={run}", f"--out={out}", "--num_passes=1", "--batch_size=8"])
    assert "with statistics of its samples" in capsys.readouterr().out
    assert jvae.restore(out).sample(jax.random.key(0), 2).shape == (2, 8, 8, 1)
    with pytest.raises(WorkdirError, match="there are checkpoints"):
        recalibrate(run, out)


def test_what_cannot_be_refreshed_is_said(run, tmp_path, tiny):
    with pytest.raises(ConfigError, match="temperature must be positive, got 0"):
        recalibrate(run, tmp_path / "out", temperature=0)
    with pytest.raises(ConfigError, match="--out is missing"):
        command([f"--workdir={run}"])
    experiment.run({**tiny, "num_steps": 2, "eval_every_steps": 0}, tmp_path / "mlp")
    with pytest.raises(ConfigError, match="VAE has no BatchNorm"):
        recalibrate(tmp_path / "mlp", tmp_path / "out")
    with pytest.raises(ConfigError, match="Did you mean '--temperature'"):
        command(["--temprature=1"])


NVAE = {
    "name": "nvae",
    "image_shape": [8, 8, 1],
    "channels": 4,
    "groups": [1, 2],
    "latent_channels": 2,
    "group_cells": 1,
    "blocks": 0,
    "block_cells": 1,
}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A workdir with a hierarchy at step 0, without the time to compile a step."""
    from tests.conftest import TINY

    workdir = tmp_path_factory.mktemp("nvae")
    loss = {"name": "hierarchical_elbo"}
    experiment_ = configs.parse_experiment({**TINY, "model": NVAE, "loss": loss})
    state = assembly.assemble(experiment_).create_state()
    folder = checkpoints.Checkpoints(workdir / checkpoints.CHECKPOINTS, keep=1)
    item = {"params": state.params, "ema": None, "state": state.state}
    folder.save(0, {"model": item}, {"config": dataclasses.asdict(experiment_)})
    folder.wait()
    folder.close()
    return workdir


@pytest.mark.slow
def test_of_a_hierarchy_the_way_up_keeps_its_own(untrained, tmp_path):
    """And no likelihood is bounded by what the top-down pass then has."""
    before = jvae.restore(untrained, params="raw")
    out = tmp_path / "out"
    options = {"num_passes": 1, "batch_size": 4, "temperature": 0.7}
    after = recalibrate(untrained, out, **options)
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(before.state["batch_stats"]),
        jax.tree.leaves(after.state["batch_stats"]),
        strict=True,
    )
    moved = {
        checksums.path_name(path) for (path, a), b in pairs if not np.array_equal(a, b)
    }
    assert {name.split("/")[0] for name in moved} == {"doublings_0", "scales_1"}
    assert all("/groups/" in name for name in moved if name.startswith("scales_1"))
    x = np.zeros((1, 8, 8, 1), "float32")
    for bound in (after.elbo, lambda x, key: after.log_likelihood(x, key, 2)):
        with pytest.raises(ConfigError, match="at temperature 0.7, so it bounds no"):
            bound(x, jax.random.key(0))
    with pytest.raises(ConfigError, match="at temperature 0.7, so it bounds no"):
        evaluate_run(out)
