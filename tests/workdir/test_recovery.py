"""Steps without their commit file, and folders that no save has written.

In the fast tier as it is about losing what was saved; two small checkpoints in all.
"""

import logging
import shutil

import jax.numpy as jnp
import pytest

from jvae.errors import WorkdirError
from jvae.runtime import mesh
from jvae.workdir.checkpoints import Checkpoints
from jvae.workdir.recovery import COMMIT_FILE


def item(value):
    return {"params": {"w": jnp.full((4,), value)}, "ema": None, "state": {}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    manager = Checkpoints(tmp_path_factory.mktemp("whole") / "checkpoints")
    for step in (4, 8):
        manager.save(step, {"model": item(float(step))}, {"config": {}})
    manager.wait()
    return manager.folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "checkpoints")


def recovered(folder):
    manager = Checkpoints(folder)
    manager.recover(lambda step: manager.restore_model(step, mesh.build()))
    return manager


def value_of(manager, step):
    model, _ = manager.restore_model(step, mesh.build())
    return float(model["params"]["w"][0])


def messages(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "jvae"]


@pytest.mark.parametrize("pattern", [COMMIT_FILE, f"**/{COMMIT_FILE}"])
def test_a_step_that_lost_its_commit_files_is_whole_by_its_checksums(
    folder, pattern, caplog
):
    for step in ("4", "8"):
        for file in (folder / step).glob(pattern):
            file.unlink()
    with caplog.at_level(logging.WARNING, "jvae"):
        manager = recovered(folder)
    assert manager.steps() == [4, 8] and value_of(manager, 8) == 8.0
    first, second = messages(caplog)
    assert "checkpoint 4 lacked commit_success.txt" in first and "8 lacked" in second
    assert Checkpoints(folder, read_only=True).steps() == [4, 8]


def test_a_complete_step_that_was_changed_is_set_aside_with_the_reason(folder, caplog):
    (folder / "8" / COMMIT_FILE).unlink()
    file = folder / "8" / "meta" / "metadata"
    file.write_text(file.read_text().replace('"step": 8', '"step": 9'))
    with caplog.at_level(logging.WARNING, "jvae"):
        manager = recovered(folder)
    assert manager.steps() == [4] and manager.set_asides() == ["8.damaged"]
    (line,) = messages(caplog)
    assert "8 is damaged: the digest of its JSON differs; set aside as" in line


@pytest.mark.parametrize("lost", ["meta", "model"])
def test_a_step_that_was_never_finished_is_removed(folder, lost, caplog):
    (folder / "8" / COMMIT_FILE).unlink()
    shutil.rmtree(folder / "8" / lost)
    assert recovered(folder).steps() == [4]
    assert sorted(p.name for p in folder.iterdir()) == ["4"]
    assert messages(caplog) == []


def test_a_save_that_was_cut_off_inside_an_item_is_removed(folder):
    for file in (folder / "8" / COMMIT_FILE, folder / "8" / "model" / COMMIT_FILE):
        file.unlink()
    (folder / "8" / "model" / "manifest.ocdbt").unlink()
    assert recovered(folder).steps() == [4]
    assert sorted(p.name for p in folder.iterdir()) == ["4"]


@pytest.mark.parametrize("name", ["2024", "٣٠٠", "9" * 30, "12.old", "notes"])
def test_a_folder_that_no_save_has_written_stays(folder, name, caplog):
    (folder / name).mkdir()
    (folder / name / "thesis.tex").write_text("years of work")
    assert recovered(folder).steps() == [4, 8]
    assert (folder / name / "thesis.tex").read_text() == "years of work"


def test_a_folder_in_the_way_of_a_step_is_renamed_and_kept(folder, caplog):
    (folder / "12").mkdir()
    (folder / "12" / "thesis.tex").write_text("years of work")
    manager = recovered(folder)
    with caplog.at_level(logging.WARNING, "jvae"):
        manager.save(12, {"model": item(12.0)}, {"config": {}})
        manager.wait()
    assert manager.steps() == [4, 8, 12] and value_of(manager, 12) == 12.0
    kept = folder / "12.not_a_checkpoint" / "thesis.tex"
    assert kept.read_text() == "years of work"
    (line,) = messages(caplog)
    assert line.endswith("is no checkpoint; renamed to " + str(kept.parent))


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "best").write_text("x")
    with pytest.raises(WorkdirError, match="this is a file .*/best"):
        Checkpoints(tmp_path / "best")
