"""Configs of earlier releases: what they called otherwise is read for ever."""

import pytest

from jvae.training import config as configs
from jvae.training import config_files
from jvae.training.identity import differences, identity
from jvae.workdir import renamed

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


def test_old_flags_reach_the_new_field():
    given = config({**GLOW})
    config_files.override(given, "model.memory", "recompute")
    assert configs.parse_experiment(given).model["remat"] == "steps"


@pytest.mark.parametrize("value", ["kept", 3, ["keep"]])
def test_what_no_release_has_known_is_refused_where_it_is_checked(value):
    given = config({**GLOW, "memory": value})
    assert renamed.current(given)["model"]["remat"] == value


def test_a_field_of_that_name_elsewhere_stays():
    given = config({"name": "mine:Model", "memory": "keep"})
    assert renamed.current(given) == given
