"""What a release has stored is read by every later one."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jvae
from jvae.commands import compare
from jvae.training import experiment
from jvae.workdir.metrics import read_metrics
from tests.released.make import CONFIG

RELEASED = Path(__file__).parent / "released"
RELEASES = sorted(config.parent for config in RELEASED.glob("*/config.json"))


@pytest.mark.parametrize("release", RELEASES, ids=lambda p: p.name)
@pytest.mark.parametrize("params", ["ema", "raw"])
def test_a_checkpoint_of_every_release_decodes_as_its_arrays_say(
    release, params, tmp_path
):
    shutil.copytree(release, tmp_path / "copy")
    model = jvae.restore(tmp_path / "copy", params=params)
    decoder = jax.tree.map(np.asarray, model.params["decoder"])
    z = np.array([[0.5, -1.0], [2.0, 0.0]], np.float32)
    first, last = decoder["layers"]["Dense_0"], decoder["output"]
    hidden = np.maximum(z @ first["kernel"] + first["bias"], 0.0)
    logits = hidden @ last["kernel"] + last["bias"]
    expected = 1.0 / (1.0 + np.exp(-logits)).reshape(2, 8, 8, 1)
    np.testing.assert_allclose(model.decode(z), expected, rtol=1e-4)
    assert model.sample(jax.random.key(0), 3, label=7).shape == (3, 8, 8, 1)
    stored = json.loads((release / "config.json").read_text())
    assert model.config == stored and model.step == stored["num_steps"]


def test_averaged_and_raw_arrays_are_both_there():
    averaged, raw = (
        jvae.restore(RELEASES[-1], params=p).params["decoder"] for p in ("ema", "raw")
    )
    assert not np.array_equal(averaged["output"]["bias"], raw["output"]["bias"])


@pytest.mark.parametrize("release", RELEASES, ids=lambda p: p.name)
def test_a_run_of_every_release_is_resumed(release, tmp_path):
    """In the default tier, as nothing else reads an optimizer's state of a release."""
    workdir = tmp_path / "run"
    shutil.copytree(release, workdir)
    # What 0.1.0 was told and is no part of the experiment may differ.
    experiment.run(CONFIG | {"num_steps": 5}, workdir)
    rows = read_metrics(workdir)
    assert [row["step"] for row in rows][-2:] == [4, 5]
    assert {p.name for p in (workdir / "checkpoints").iterdir()} >= {"3", "5"}


@pytest.mark.parametrize("release", RELEASES[1:], ids=lambda p: p.name)
def test_results_of_every_release_are_compared(release, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(release, tmp_path / name)
    page = tmp_path / "page.html"
    compare.command([str(tmp_path / "one"), str(tmp_path / "two"), f"--out={page}"])
    text = page.read_text()
    (results,) = release.glob("evaluation/*/results.json")
    for metric in json.loads(results.read_text())["metrics"].values():
        assert metric["label"] in text
