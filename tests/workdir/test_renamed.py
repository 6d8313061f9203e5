"""Configs of earlier releases: what they called otherwise is read for ever."""

import pytest

from jvae import models
from jvae.errors import ConfigError
from jvae.reports import comparison
from jvae.sweeps import grid
from jvae.training import config as configs
from jvae.training import config_files
from jvae.training.identity import differences, identity
from jvae.workdir import renamed
from tests.runs import write_config

GLOW = {"name": "glow", "image_shape": [8, 8, 1], "levels": 1, "depth": 2}
NVAE = {"name": "nvae", "image_shape": [8, 8, 1]}


def config(model):
    return {"data": {"name": "digits"}, "model": model, "loss": {"name": "elbo"}}


@pytest.mark.parametrize(
    "model, before, now",
    [
        (GLOW, {"memory": "keep"}, {"remat": "none"}),
        (GLOW, {"memory": "recompute"}, {"remat": "steps"}),
        ({**GLOW, "name": "fvae"}, {"memory": "invert"}, {"remat": "invert"}),
        (NVAE, {"memory": "keep"}, {"remat": "none"}),
        (NVAE, {"memory": "recompute"}, {"remat": "cells"}),
        (
            {"name": "mlp"},
            {"latent": "normalised_gaussian"},
            {"latent": "normalized_gaussian"},
        ),
        (
            {"name": "conv"},
            {"latent": {"name": "normalised_gaussian", "gamma": 0.7}},
            {"latent": {"name": "normalized_gaussian", "gamma": 0.7}},
        ),
    ],
)
def test_a_stored_config_is_the_same_run_as_one_of_this_release(model, before, now):
    stored, given = config({**model, **before}), config({**model, **now})
    assert renamed.current(stored) == given == renamed.current(given)
    for a, b in ((stored, given), (given, stored), (stored, stored)):
        assert differences(identity(a), identity(b)) == []


def test_another_value_is_another_run():
    stored, given = (
        config({**GLOW, "memory": "keep"}),
        config(GLOW | {"remat": "steps"}),
    )
    assert differences(identity(stored), identity(given)) == [
        "model.remat: 'none' there, 'steps' here"
    ]


@pytest.mark.parametrize(
    "in_file, flag, remat",
    [
        ({}, ("memory", "recompute"), "steps"),
        ({"remat": "invert"}, ("memory", "recompute"), "steps"),
        ({"memory": "invert"}, ("remat", "none"), "none"),
        ({"memory": "invert"}, ("memory", "keep"), "none"),
    ],
)
def test_flags_go_before_the_file_whatever_either_calls_the_field(
    tmp_path, in_file, flag, remat
):
    file = write_config(tmp_path, config({**GLOW, **in_file}))
    name, value = flag
    merged = config_files.experiment_config(file, {f"model.{name}": value})
    assert merged["model"] == {**GLOW, "remat": remat}
    assert configs.parse_experiment(merged).model["remat"] == remat


def test_a_sweep_over_a_field_by_its_old_name_is_one_over_the_new(tmp_path):
    file = write_config(tmp_path, config(GLOW))
    trials = grid.plan(file, {"model.memory": ["keep", "recompute"]}, {}, 1)
    values = [dict(trial.values) for trial in trials]
    assert values == [{"model.remat": "none"}, {"model.remat": "steps"}]
    assert [t.config["model"]["remat"] for t in trials] == ["none", "steps"]


def test_results_under_either_name_do_not_differ(tmp_path):
    runs = [
        comparison.EvaluatedRun(name, {"config": config({**GLOW, **field})}, tmp_path)
        for name, field in (("a", {"memory": "keep"}), ("b", {"remat": "none"}))
    ]
    assert comparison.config_differences(runs, "config") == {}
    assert runs[0].fields("config") == runs[1].fields("config")


@pytest.mark.parametrize("value", ["kept", 3, ["keep"]])
def test_what_no_release_has_known_is_refused_where_it_is_checked(value):
    given = config({**GLOW, "memory": value})
    assert renamed.current(given)["model"]["remat"] == value
    with pytest.raises(ConfigError, match="remat"):
        models.build(**configs.parse_experiment(given).model)


@pytest.mark.parametrize("name", [["glow"], None, {}])
def test_a_model_that_is_not_named_by_text_is_refused_in_one_line(name):
    with pytest.raises(ConfigError, match="model.name must be str"):
        configs.parse_experiment(config({**GLOW, "name": name}))


def test_a_field_of_that_name_elsewhere_stays():
    given = config({"name": "mine:Model", "memory": "keep"})
    assert renamed.current(given) == given
