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


def test_a_lock_of_a_save_that_was_killed_is_among_what_it_leaves(folder, caplog):
    """So the step is one that was never written, not somebody's, nor damaged."""
    unfinished(folder, "meta", "model/manifest.ocdbt")
    (folder / "8" / "model" / "manifest.ocdbt.__lock").write_text("")
    with caplog.at_level(logging.WARNING, "jvae"):
        manager = recovered(folder)
    assert manager.steps() == [4] and manager.set_asides() == []
    assert messages(caplog) == []


def test_a_complete_step_that_was_changed_is_set_aside_with_the_reason(folder, caplog):
    (folder / "8" / COMMIT_FILE).unlink()
    file = folder / "8" / "meta" / "metadata"
    file.write_text(file.read_text().replace('"step": 8', '"step": 9'))
    with caplog.at_level(logging.WARNING, "jvae"):
        manager = recovered(folder)
    assert manager.steps() == [4] and manager.set_asides() == ["8.damaged"]
    (line,) = messages(caplog)
    assert "8 is damaged: the digest of its JSON differs; set aside as" in line


def unfinished(folder, *lost):
    """Step 8 as a save that was killed may leave it."""
    for file in (folder / "8").glob(f"**/{COMMIT_FILE}"):
        file.unlink()
    for name in lost:
        path = folder / "8" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    "lost",
    [
        ["meta", "model/manifest.ocdbt"],
        ["model"],
        ["model/manifest.ocdbt"],
        ["model", "meta", "_CHECKPOINT_METADATA"],
    ],
    ids=" ".join,
)
def test_a_step_whose_arrays_were_never_written_is_removed(folder, lost, caplog):
    unfinished(folder, *lost)
    assert recovered(folder).steps() == [4]
    assert sorted(p.name for p in folder.iterdir()) == ["4"]
    assert messages(caplog) == []


def test_arrays_without_their_description_are_kept(folder, caplog):
    unfinished(folder, "meta")
    with caplog.at_level(logging.WARNING, "jvae"):
        assert recovered(folder).steps() == [4]
    assert (folder / "8.unfinished" / "model" / "manifest.ocdbt").exists()
    (line,) = messages(caplog)
    assert "has no commit file and is not whole; renamed to" in line


def test_arrays_that_are_damaged_too_are_kept(folder):
    unfinished(folder)
    largest = max((folder / "8").rglob("d/*"), key=lambda p: p.stat().st_size)
    largest.write_bytes(b"x" * 100)
    assert recovered(folder).steps() == [4]
    assert sorted(p.name for p in folder.iterdir()) == ["4", "8.unfinished"]


def test_what_a_file_manager_has_added_does_not_hide_a_step(folder):
    unfinished(folder)
    (folder / "8" / ".DS_Store").write_text("x")
    (folder / "8" / "model" / ".DS_Store").write_text("x")
    assert recovered(folder).steps() == [4, 8]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_start_that_is_killed_while_it_verifies_changes_nothing(folder, is_whole):
    unfinished(folder, *([] if is_whole else ["model/manifest.ocdbt"]))

    def killed(step):
        raise Killed

    with pytest.raises(Killed):
        Checkpoints(folder).recover(killed)
    manager = recovered(folder)
    assert manager.steps() == ([4, 8] if is_whole else [4])
    assert manager.set_asides() == []
    names = sorted(p.name for p in folder.iterdir())
    assert names == (["4", "8"] if is_whole else ["4"])


def test_a_link_to_a_folder_is_no_step(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "12").symlink_to(tmp_path / "elsewhere")
    assert recovered(folder).steps() == [4, 8]
    assert (tmp_path / "elsewhere").is_dir() and (folder / "12").is_symlink()


def test_a_folder_of_somebody_with_the_name_of_an_item_stays(folder):
    (folder / "2024" / "model").mkdir(parents=True)
    (folder / "2024" / "model" / "my_notes.txt").write_text("x")
    assert recovered(folder).steps() == [4, 8]
    assert (folder / "2024" / "model" / "my_notes.txt").exists()


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
