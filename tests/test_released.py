"""What a release has stored is read by every later one."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest

import jvae
from jvae.commands import compare
from jvae.data import datasets
from jvae.data.digest import data_digest
from jvae.errors import WorkdirError
from jvae.training import experiment
from jvae.training.config import parse_experiment
from jvae.training.identity import check_same_run
from jvae.workdir import metadata
from jvae.workdir.metrics import read_metrics
from tests.released.make import CONFIG

RELEASED = Path(__file__).parent / "released"
RELEASES = sorted(config.parent for config in RELEASED.glob("*/config.json"))
IMAGES = RELEASED / "images"
"""A folder of pictures, and a run on it of 3 steps that has no rule of reading it."""


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


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """The config of the run in IMAGES, in whose copy the test is."""
    shutil.copytree(IMAGES, tmp_path / "images")
    monkeypatch.chdir(tmp_path / "images")  # as data.path is relative
    return json.loads(Path("run/config.json").read_text())


def newest_meta(workdir):
    files = Path(workdir).glob("checkpoints/*/meta/metadata")
    file = max(files, key=lambda path: int(path.parts[-3]))
    return file, json.loads(file.read_text())


def test_a_run_without_a_rule_is_evaluated_with_the_pictures_it_began_with(pictures):
    """Against the digest that it stored, and for what the digest does not see, labels
    by names and Pillow's pixels."""
    _, meta = newest_meta("run")
    assert "rule" not in pictures["data"] and "rule" not in meta["config"]["data"]
    section = jvae.restore("run", step="last").config["data"]
    assert section == pictures["data"] | {"rule": 1}

    splits = datasets.load_splits(section)
    assert data_digest(splits) == meta["data_digest"]
    assert splits.num_classes == 4
    files = splits.train.source.source.files
    classes = sorted(path.name for path in Path("pictures").iterdir())
    assert classes[0] == "__MACOSX"
    examples = splits.train.source.read(np.arange(len(files)))
    assert [classes[i] for i in examples["label"]] == [f.path.parts[1] for f in files]
    stored = [np.asarray(PIL.Image.open(file.path).convert("L")) for file in files]
    np.testing.assert_array_equal(examples["image"][..., 0], stored)
    assert any("turned" in file.path.name for file in files)


def test_a_run_without_a_rule_goes_on_by_the_first_and_a_new_one_by_the_newest(
    pictures,
):
    """In the default tier, as nothing else resumes a run on pictures."""
    longer = pictures | {"num_steps": 4}
    newest = longer | {"data": pictures["data"] | {"rule": 2}}
    with pytest.raises(WorkdirError, match="data.rule: 1 there, 2 here"):
        experiment.run(newest, "run")
    experiment.run(longer, "run")
    digest = newest_meta("run")[1]["data_digest"]
    for config in (newest_meta("run")[1]["config"], read_json("run/config.json")):
        assert config == longer | {"data": pictures["data"] | {"rule": 1}}

    experiment.run(longer, "new")
    _, meta = newest_meta("new")
    assert meta["config"]["data"]["rule"] == 2 and meta["data_digest"] != digest
    assert jvae.restore("new", step="last").config["data"]["rule"] == 2
    unsettled = parse_experiment(longer).to_dict()  # as a sweep has it
    assert unsettled["data"]["rule"] is None
    for run in ("run", "new"):
        check_same_run(read_json(f"{run}/config.json"), unsettled, Path(run))


def read_json(file):
    return json.loads(Path(file).read_text())


@pytest.mark.slow
def test_a_run_without_a_rule_goes_on_bit_for_bit(pictures):
    """Of a run by rule 1, all that says so is removed from what it stored."""
    first = pictures | {"data": pictures["data"] | {"rule": 1}, "num_steps": 6}
    experiment.run(first, "undisturbed")
    experiment.run(first | {"num_steps": 2}, "stopped")
    file, meta = newest_meta("stopped")
    for target, stored in ((file, meta), (Path("stopped/config.json"), None)):
        config = stored["config"] if stored else read_json(target)
        del config["data"]["rule"]
        if stored:
            stored["digest"] = metadata.digest(stored)
        target.write_text(json.dumps(stored or config))
    experiment.run(pictures | {"num_steps": 6}, "stopped")

    one, two = (newest_meta(run)[1] for run in ("undisturbed", "stopped"))
    assert one["checksums"] == two["checksums"] and one["step"] == two["step"] == 6
    rows = [
        [{k: v for k, v in row.items() if "second" not in k} for row in read_metrics(r)]
        for r in ("undisturbed", "stopped")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 6
