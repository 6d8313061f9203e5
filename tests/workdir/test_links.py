"""Links and pipes in a run's folder: nothing is written to, or read from, elsewhere."""

import os

import pytest
from etils import epath

from jvae.commands import compare
from jvae.errors import WorkdirError
from jvae.evaluation.settings import Settings
from jvae.pretrained.image_grid import Picture
from jvae.reports import comparison, report
from jvae.training import experiment
from jvae.workdir import files, locks
from jvae.workdir.checkpoints import Checkpoints
from jvae.workdir.run_folder import FOLDERS, read_config


@pytest.fixture
def precious(tmp_path):
    """A file that is none of the run's."""
    file = tmp_path / "elsewhere" / "precious"
    file.parent.mkdir()
    file.write_text("precious")
    yield file
    assert file.read_text() == "precious"


@pytest.fixture
def run(tmp_path):
    folder = epath.Path(tmp_path / "run")
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["config.json", "config.json.new"])
def test_a_file_replaces_a_link_and_does_not_follow_it(run, precious, name):
    os.symlink(precious, run / name)
    for text in ("one", "two"):
        files.write_whole(run / "config.json", text)
        assert (run / "config.json").read_text() == text
        assert not os.path.islink(run / "config.json")
    assert sorted(os.listdir(run)) == ["config.json"]


def test_a_lock_that_is_a_link_is_refused(run, precious):
    os.symlink(precious, run / locks.LOCK_FILE)
    with pytest.raises(WorkdirError, match=r"cannot be locked: .*\.lock"):
        locks.lock(run)


def test_a_lock_that_is_another_file_too_is_refused(run, precious):
    os.link(precious, run / locks.LOCK_FILE)
    with pytest.raises(WorkdirError, match="a hard link"):
        locks.lock(run)


def test_a_report_is_written_over_links_and_not_through_them(
    run, precious, monkeypatch
):
    monkeypatch.setattr(report, "render_report", lambda *_: "page")
    names = ("report.html", "results.json", "samples.png")
    for name in names:
        os.symlink(precious, run / name)
    report.write_report(run, {}, [Picture("samples.png", "", "", b"png")])
    assert [(run / name).read_bytes() for name in names] == [b"page", b"{}\n", b"png"]


def test_a_folder_that_is_a_link_leads_out_of_a_run(run, precious):
    files.check_within(run / "evaluation" / "test_1", run)
    os.symlink(precious.parent, run / "evaluation")
    with pytest.raises(WorkdirError, match=r"this is a link.*evaluation"):
        files.check_within(run / "evaluation" / "test_1", run)
    itself = run.parent / "other_name"
    os.symlink(run, itself)  # a run may be reached by one
    files.check_within(itself / "checkpoints", itself)


@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
def test_what_is_no_file_is_named_and_not_read(run, precious, kind):
    """A pipe would be waited for, /dev/zero read until the memory is full."""
    file = run / "300" / "model" / "manifest.ocdbt"
    file.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(file)
    else:
        os.symlink(precious if kind == "link" else "/dev/zero", file)
    for read in (files.read_own, files.read_text, lambda _: files.check_files(run)):
        with pytest.raises(WorkdirError, match="no file but a link.*manifest.ocdbt"):
            read(file)
    with pytest.raises(WorkdirError, match="no file but a link.*manifest.ocdbt"):
        Checkpoints(run, read_only=True)
    os.rename(file, run / "config.json")
    with pytest.raises(WorkdirError, match="no file but a link.*config.json"):
        read_config(run)
    os.rename(run / "config.json", run / "page.html")
    with pytest.raises(WorkdirError, match="no file but a link.*page.html"):
        compare.write_page("text", run / "page.html")


@pytest.mark.parametrize("name", FOLDERS)
def test_training_writes_into_no_folder_that_is_a_link(tiny, run, precious, name):
    os.symlink(precious.parent, run / name)
    with pytest.raises(WorkdirError, match=f"this is a link.*{name}"):
        experiment.run(tiny, run)
    assert os.listdir(precious.parent) == ["precious"]


def test_a_comparison_embeds_no_link_and_waits_for_no_pipe(run, precious):
    os.symlink(precious, run / "link.png")
    (run / "folder.png").mkdir()
    (run / "own.png").write_bytes(b"png")
    os.mkfifo(run / "pipe.png")
    names = ("link.png", "folder.png", "pipe.png", "own.png", "none.png")
    assert [files.is_own(run / name) for name in names] == [False] * 3 + [True, False]
    results = {"pictures": dict.fromkeys(names, ""), "settings": vars(Settings())}
    runs = [comparison.EvaluatedRun(n, results, run, []) for n in ("a", "b")]
    assert [file for file, _ in comparison._pictures(runs)] == ["own.png"]
