"""Whether a stored config is that of the same run, whatever release stored it."""

import json

import pytest

from jvae.errors import WorkdirError
from jvae.training import config as configs
from jvae.training.identity import check_same_run
from jvae.workdir.run_folder import read_config


@pytest.fixture
def given(tiny):
    return configs.parse_experiment(tiny).to_dict()


@pytest.mark.parametrize("section", ["data", "model", "loss", "optimizer", None])
def test_a_field_that_came_later_has_its_default(given, tiny, section, tmp_path):
    """The stored config has only what the file of a run says, of one section."""
    if section is None:
        stored = {k: v for k, v in given.items() if k in tiny or k == "mesh"}
    else:
        stored = {**given, section: tiny[section]}
    assert stored != given
    check_same_run(stored, given, tmp_path)
    other = {**given, "ema_decay": 0.5, "model": {**given["model"], "latent_dim": 5}}
    with pytest.raises(WorkdirError, match="ema_decay: .*; model.latent_dim: 3"):
        check_same_run(stored, other, tmp_path)


def test_a_later_field_of_another_value_is_another_run(given, tiny, tmp_path):
    other = {**given, "model": {**given["model"], "activation": "tanh"}}
    with pytest.raises(WorkdirError, match="model.activation: 'relu' there, 'tanh'"):
        check_same_run({**given, "model": tiny["model"]}, other, tmp_path)


@pytest.mark.parametrize("section", ["loss", "optimizer", "schedules"])
def test_what_is_no_section_is_another_run(given, section, tmp_path):
    with pytest.raises(WorkdirError, match=f"{section}: 3 there"):
        check_same_run({**given, section: 3}, given, tmp_path)


@pytest.mark.parametrize("section", ["data", "model"])
def test_a_file_without_its_sections_is_damaged(given, section, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**given, section: 3}))
    with pytest.raises(WorkdirError, match="is damaged: it lacks the sections"):
        read_config(tmp_path)
