"""Files that cannot be written: the run goes on, and says so once."""

import concurrent.futures.thread
import gc
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jvae
from jvae.errors import WorkdirError
from jvae.training import config as configs
from jvae.training import experiment
from jvae.training.identity import check_same_run
from jvae.workdir import files, run_folder
from jvae.workdir import metrics as writers
from jvae.workdir.checkpoints import Checkpoints
from tests.runs import arrays, assert_same_run, metrics, steps
from tests.tiers import others_slow

FULL = OSError(28, "No space left on device")


def assert_same_state(a, b):
    first, second = arrays(a), arrays(b)
    assert first.keys() == second.keys()
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)


def refuse(*_, **__):
    raise FULL


def at_step(monkeypatch, actions):
    """Does actions[step] before the row of that training step is written."""
    write = writers.MetricsWriter.write

    def acting(self, step, split, numbers):
        if split == "train" and step in actions:
            actions[step](self)
        write(self, step, split, numbers)

    monkeypatch.setattr(writers.MetricsWriter, "write", acting)


# Rows


def test_rows_are_read_as_they_were_written(tmp_path):
    writer = writers.MetricsWriter(tmp_path, 0)
    writer.write(1, "train", {"elbo": -2.5, "kl": None, "loss": float("nan")})
    writer.write(2, "train", {"elbo": float("inf")})
    writer.flush()
    writer.close()
    assert writers.read_metrics(tmp_path) == [
        {"step": 1, "split": "train", "elbo": -2.5, "kl": None, "loss": None},
        {"step": 2, "split": "train", "elbo": None},
    ]


@pytest.mark.parametrize(
    "last", ['{"step": 3, "spl', "[]", '{"split": "train"}', '{"step": "3"}', "\0\x80"]
)
def test_rows_end_before_the_first_that_is_none(tmp_path, last):
    rows = [json.dumps({"step": i, "split": "train"}) for i in (1, 2)]
    (tmp_path / writers.METRICS_FILE).write_text(
        "\n".join([*rows, last]), encoding="latin-1"
    )
    assert [row["step"] for row in writers.read_metrics(tmp_path)] == [1, 2]
    writers.MetricsWriter(tmp_path, 1).close()
    assert [row["step"] for row in writers.read_metrics(tmp_path)] == [1]


# A disk that is full, without one


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        "[1, 2]",
        '{"split": "train"}',
        '{"step": "x"}',
        '{"step": 9}',
        '{"step": 9, "split": [1]}',
        "[" * 9999,
    ],
    ids=lambda bad: bad[:20],
)
def test_a_line_that_is_no_row_loses_no_other(tmp_path, caplog, bad):
    rows = [{"step": step, "split": "train", "loss": 0.5} for step in (1, 2, 3)]
    lines = [json.dumps(row) for row in rows]
    text = "\n".join([lines[0], bad, *lines[1:], '{"step": 4, "spl'])
    (tmp_path / writers.METRICS_FILE).write_text(text)
    assert writers.read_metrics(tmp_path) == rows
    writer = writers.MetricsWriter(tmp_path, 3)
    writer.write(4, "train", {"loss": 0.25})
    writer.close()
    assert [row["step"] for row in writers.read_metrics(tmp_path)] == [1, 2, 3, 4]
    kept = (tmp_path / "metrics.jsonl.damaged").read_text()
    assert kept.splitlines() == text.splitlines()
    assert "left out what is no row, of line 2;" in caplog.text


def test_a_last_line_that_was_cut_short_is_no_damage(tmp_path, caplog):
    row = {"step": 1, "split": "train"}
    (tmp_path / writers.METRICS_FILE).write_text(json.dumps(row) + '\n{"step": 2, "sp')
    writers.MetricsWriter(tmp_path, 1).close()
    assert writers.read_metrics(tmp_path) == [row]
    assert not caplog.records and not (tmp_path / "metrics.jsonl.damaged").exists()


@pytest.mark.parametrize("method", others_slow(["append", "flush", "close"], "append"))
def test_metrics_that_cannot_be_written_are_one_warning(
    trained, tiny, tmp_path, monkeypatch, caplog, method
):
    def fill(_):
        monkeypatch.setattr(files.FolderLines, method, refuse)

    at_step(monkeypatch, {6: fill})
    experiment.run(tiny, tmp_path)
    (record,) = caplog.records
    assert str(tmp_path / "metrics.jsonl") in record.message
    assert "No space left on device" in record.message
    assert_same_state(trained, tmp_path)
    kept = metrics(trained) if method == "close" else []
    assert metrics(tmp_path)[:2] == metrics(trained)[:2]
    assert not kept or metrics(tmp_path) == kept


@pytest.mark.parametrize("moment", ["at once", "later"])
def test_tensorboard_that_cannot_be_written_is_one_warning(
    tmp_path, monkeypatch, caplog, moment
):
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    if moment == "at once":
        monkeypatch.setattr(EventFileWriter, "__init__", refuse)
    writer = writers.MetricsWriter(tmp_path, 0)
    monkeypatch.setattr(EventFileWriter, "add_event", refuse)
    for step in range(3):
        writer.write(step, "train", {"elbo": -1.0})
    writer.close()
    (record,) = caplog.records
    assert "TensorBoard files are no longer written" in record.message
    assert len(writers.read_metrics(tmp_path)) == 3


def item():
    return {"model": {"params": {"w": jnp.ones(4)}, "ema": None, "state": {}}}


@pytest.mark.parametrize("where", ["save", "wait_until_finished", "check_for_errors"])
def test_the_failure_of_the_last_save_is_an_error_and_of_others_a_warning(
    tmp_path, monkeypatch, caplog, where
):
    """Orbax tells of it once, here or there."""
    manager = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(f"orbax.checkpoint.CheckpointManager.{where}", refuse)
        manager.save(1, item(), {"config": {}})
        for _ in range(2):
            with pytest.raises(WorkdirError) as caught:
                manager.wait()
    assert caught.value.exit_code == 4 and str(tmp_path) in str(caught.value)
    assert "checkpoint 1 (16 bytes) was not written: no space" in str(caught.value)
    assert len(caplog.records) == 1
    manager.save(2, item(), {"config": {}})
    manager.wait()
    assert manager.latest() == 2
    manager.close()


# A disk that is full


@pytest.fixture
def disk(tmp_path):
    """A disk of 4 MB, as a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if not shutil.which("mount") or os.name != "posix":
        pytest.skip("there is no mount")
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("mounting is not permitted")
    yield folder
    gc.collect(1)  # writes that failed unseen are logged here, not amid another test
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk):
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def filled(disk, root):
    def act(_):
        while not steps(root) or steps(root)[-1] % 4:
            pass
        fill(disk)

    return act


def test_rows_and_events_on_a_full_disk_are_one_warning_each(disk, caplog, capfd):
    writer = writers.MetricsWriter(disk, 0)
    fill(disk)
    for step in range(300):
        writer.write(step, "train", {"elbo": -1.0, "kl": 1.0})
    writer.flush()
    writer.close()
    lines = sorted(r.getMessage() for r in caplog.records)
    assert len(lines) == 2 and all("No space left on device" in m for m in lines)
    assert "metrics.jsonl is no longer written" in lines[0]
    assert "TensorBoard files are no longer written" in lines[1]
    assert capfd.readouterr().err == ""
    there = writers.read_metrics(disk)
    assert [row["step"] for row in there] == list(range(len(there)))


def test_a_full_disk_leaves_older_checkpoints_whole_and_is_exit_4(
    disk, trained, tiny, monkeypatch, caplog, capfd
):
    root = disk / "run"
    with monkeypatch.context() as patch:
        at_step(patch, {6: filled(disk, root)})
        with pytest.raises(WorkdirError) as caught:
            experiment.run(tiny, root)
    assert caught.value.exit_code == 4
    assert "checkpoint 12 " in str(caught.value) and str(root) in str(caught.value)
    lines = [r.getMessage() for r in caplog.records]
    for step in (8, 12):
        (line,) = [m for m in lines if f"{step} (" in m and m.endswith("/checkpoints)")]
        assert "bytes) was not written: no space left on device" in line
    assert "Traceback" not in capfd.readouterr().err
    assert sorted(p.name for p in (root / "checkpoints").iterdir()) == ["4"]
    (disk / "ballast").unlink()
    experiment.run(tiny, root)
    assert_same_run(trained, root)


@pytest.mark.slow
def test_what_a_failed_save_still_writes_in_other_threads_is_removed(
    disk, monkeypatch, capfd
):
    """Work that event loops have handed on is done late, as on a busy machine."""
    work = concurrent.futures.thread._WorkItem
    run = work.run

    def late(item):
        if threading.current_thread().name.startswith("asyncio"):
            time.sleep(0.2)
        run(item)

    manager = Checkpoints(disk / "checkpoints")
    manager.save(4, item(), {"config": {}})
    manager.wait()
    fill(disk)
    monkeypatch.setattr(work, "run", late)
    manager.save(12, item(), {"config": {}})
    with pytest.raises(WorkdirError, match="no space left on device"):
        manager.wait()
    time.sleep(0.4)  # twice as long as the work that is late
    assert [p.name for p in (disk / "checkpoints").iterdir()] == ["4"]
    manager.close()
    gc.collect(1)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_disk_that_was_full_for_a_while_is_no_error(
    disk, trained, tiny, monkeypatch, caplog
):
    root = disk / "run"
    free = {10: lambda _: (disk / "ballast").unlink()}
    at_step(monkeypatch, {6: filled(disk, root), **free})
    experiment.run(tiny, root)
    assert steps(root) == [4, 12]
    assert_same_state(trained, root)
    assert "checkpoint 8 (" in caplog.text and "checkpoint 12 (" not in caplog.text


# Workdirs


@pytest.fixture
def for_all():
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="jvae-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_workdir_that_may_not_be_written_is_exit_4(for_all, tmp_path, tiny):
    described = configs.parse_experiment(tiny).to_dict()
    with run_folder.opened(tmp_path / "one that may", described, check_same_run):
        pass
    (for_all / "run").mkdir()
    folders = [for_all / "run", for_all / "new", for_all / "run" / "deeper"]
    (for_all / "run").chmod(0o555)
    (for_all).chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:  # whom no mode stops
            os.seteuid(65534)
        for folder in folders:
            with pytest.raises(WorkdirError, match="Permission denied") as caught:
                with run_folder.opened(folder, described, check_same_run):
                    pass
            assert caught.value.exit_code == 4 and str(folder) in str(caught.value)
    finally:
        os.seteuid(user)
        for_all.chmod(0o755)
        (for_all / "run").chmod(0o755)


@pytest.mark.slow
def test_a_workdir_may_be_named_in_any_way(trained, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a place").mkdir()
    (tmp_path / "link").symlink_to("a place")
    names = ("~/link/läuft 1 & «2»", "link/../link/läuft 1 & «2»")
    short = tiny | {"eval_every_steps": 0}
    experiment.run(short | {"num_steps": 8}, names[0])
    experiment.run(short, names[1])
    assert steps(tmp_path / "a place" / "läuft 1 & «2»") == [4, 8, 12]
    for name in names:
        assert jvae.restore(name, step="last").step == 12
        assert [r["step"] for r in writers.read_metrics(name)][-1] == 12
        assert run_folder.read_config(name)["num_steps"] == 12
    assert_same_state(trained, tmp_path / "link" / "läuft 1 & «2»")


@pytest.mark.parametrize("kind", ["file", "file above", "dangling link"])
def test_a_workdir_that_cannot_be_a_folder_is_exit_4(tiny, tmp_path, kind):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere/at all")
    name = {"file": "file", "file above": "file/run", "dangling link": "link"}[kind]
    with pytest.raises(WorkdirError, match="workdir cannot be made") as caught:
        experiment.run(tiny, tmp_path / name)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)


def test_a_name_that_is_no_text_is_refused_by_all_who_open_a_folder():
    """As the name of a folder with ö is in the locale C."""
    name = "l" + chr(0xDCC3) + chr(0xDCB6) + "c"
    with pytest.raises(WorkdirError, match="LC_ALL=C.UTF-8") as caught:
        files.absolute(name)
    assert str(caught.value).isascii()
