"""Folders and buckets: whole writes, locks that end, lines that stay."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import fsspec
import jax.numpy as jnp
import pytest
from etils import epath

from jvae.errors import WorkdirError
from jvae.runtime import mesh
from jvae.training import experiment
from jvae.workdir import files, locks
from jvae.workdir import metrics as writers
from jvae.workdir.checkpoints import Checkpoints
from tests.buckets import FakeBucket
from tests.runs import ROOT, TIMEOUT, metrics

HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from etils import epath
from jvae.workdir import locks
lock = locks.FolderLock(epath.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["file:///tmp/run", "memory://run", "odd://a/b"])
def test_a_file_system_that_is_not_known_is_one_line(name):
    with pytest.raises(WorkdirError, match="there is no file system [a-z]+://"):
        files.absolute(name)


@pytest.fixture
def bucket(monkeypatch):
    """A fresh fake bucket at gs://."""
    from etils.epath import backend

    for name in ("gs", "gcs"):
        fsspec.register_implementation(name, FakeBucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    monkeypatch.setattr(FakeBucket, "objects", {})
    monkeypatch.setattr(FakeBucket, "calls", [])
    yield FakeBucket
    backend.fsspec_backend._get_filesystem.cache_clear()


@pytest.fixture
def root(bucket):
    """A workdir in it."""
    return epath.Path("gs://fake/run")


@pytest.fixture
def quick(monkeypatch):
    """Heartbeats in milliseconds."""
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.05)


# In a folder


def test_a_folder_is_locked_against_other_processes_until_its_holder_is_killed(
    tmp_path,
):
    source = str(ROOT)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), source],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkdirError) as caught:
            locks.lock(epath.Path(tmp_path))
        words = f"workdir in use by pid {holder.pid} on host {os.uname().nodename} "
        assert str(caught.value).startswith(words) and str(tmp_path) in str(
            caught.value
        )
        assert caught.value.exit_code == 4
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    locks.lock(epath.Path(tmp_path)).release()


def test_a_folder_is_free_again_after_its_release(tmp_path):
    first = locks.lock(epath.Path(tmp_path))
    with pytest.raises(WorkdirError, match=f"in use by pid {os.getpid()} on host"):
        locks.lock(epath.Path(tmp_path))
    first.release()
    locks.lock(epath.Path(tmp_path)).release()


def test_a_lock_file_of_garbage_is_no_obstacle(tmp_path):
    (tmp_path / locks.LOCK_FILE).write_text("\0\0{")
    locks.lock(epath.Path(tmp_path)).release()
    held = locks.lock(epath.Path(tmp_path))
    (tmp_path / locks.LOCK_FILE).write_bytes(b"\xff{")
    with pytest.raises(WorkdirError, match="in use by another run"):
        locks.lock(epath.Path(tmp_path))
    held.release()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    locks.lock(epath.Path(tmp_path)).release()
    (record,) = caplog.records
    assert "cannot be locked" in record.message


@pytest.mark.parametrize("moment", ["os.fsync", "os.replace"])
def test_a_crash_while_writing_leaves_the_old_text(tmp_path, monkeypatch, moment):
    file = epath.Path(tmp_path / "a.json")
    files.write_whole(file, "old")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, crash)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(file, "new" * 100)
    assert file.read_text() == "old"
    monkeypatch.undo()
    files.write_whole(file, "new")
    assert file.read_text() == "new" and os.listdir(tmp_path) == ["a.json"]


def test_lines_in_a_folder_begin_with_what_is_kept_and_are_readable_at_once(tmp_path):
    file = epath.Path(tmp_path / "lines")
    assert files.read_lines(file) == []
    file.write_text("a\nb\nhalf a li")
    lines = files.lines_of(file, ["a"])
    assert isinstance(lines, files.FolderLines)
    lines.append("c")
    assert files.read_lines(file) == ["a", "c"]
    lines.flush()
    lines.close()
    assert file.read_text() == "a\nc\n"


# In a bucket


def test_the_fake_bucket_refuses_what_buckets_cannot_do(root):
    (root / "a").write_text("1")
    for act in (
        lambda: (root / "a").open("a"),
        lambda: (root / "a").rename(root / "b"),
        lambda: (root / "a").replace(root / "b"),
    ):
        with pytest.raises(NotImplementedError):
            act()
    (root / "empty").mkdir()
    assert not (root / "empty").exists() and root.is_dir()


def test_of_many_that_lock_a_bucket_one_has_it(root):
    held, refused = [], []

    def attempt():
        try:
            held.append(locks.lock(root))
        except WorkdirError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 7
    assert f"in use by pid {os.getpid()} on host {os.uname().nodename}" in refused[0]
    held[0].release()
    assert FakeBucket.objects == {}
    locks.lock(root).release()


def owner(age, token="other"):
    return json.dumps(
        {"pid": 7, "host": "elsewhere", "time": time.time() - age, "token": token}
    )


def test_a_heartbeat_keeps_a_lock_fresh(root, quick):
    lock = locks.lock(root)
    file = root / locks.LOCK_FILE
    first = json.loads(file.read_text())
    end = time.monotonic() + TIMEOUT
    while json.loads(file.read_text())["time"] == first["time"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert json.loads(file.read_text())["token"] == first["token"]
    lock.release()


def test_a_heartbeat_that_fails_is_made_good_by_the_next(root, quick, monkeypatch):
    lock = locks.lock(root)
    monkeypatch.setattr(
        FakeBucket, "_open", lambda *a, **o: (_ for _ in ()).throw(OSError("offline"))
    )
    time.sleep(0.1)
    monkeypatch.undo()
    assert lock._thread.is_alive()
    lock.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"time": "x"}', "silent for long"])
def test_the_lock_of_a_dead_run_is_taken_over(root, quick, text):
    said = owner(121) if text == "silent for long" else text
    (root / locks.LOCK_FILE).write_text(said)
    lock = locks.lock(root)
    with pytest.raises(WorkdirError, match=f"in use by pid {os.getpid()}"):
        locks.lock(root)
    lock.release()


def test_the_lock_of_a_living_run_is_not_taken_over(root):
    (root / locks.LOCK_FILE).write_text(owner(100))
    with pytest.raises(WorkdirError, match="in use by pid 7 on host elsewhere"):
        locks.lock(root)


def test_of_two_that_take_over_at_once_one_is_refused(root, monkeypatch):
    (root / locks.LOCK_FILE).write_text(owner(500))
    monkeypatch.setattr(
        locks.time, "sleep", lambda _: (root / locks.LOCK_FILE).write_text(owner(0))
    )
    with pytest.raises(WorkdirError, match="in use by pid 7 on host elsewhere"):
        locks.lock(root)


def test_a_lock_that_is_released_while_it_is_looked_at_is_taken(root, monkeypatch):
    (root / locks.LOCK_FILE).write_text(owner(0))
    read = files.read_text

    def read_too_late(path):
        if "other" in (read(path) or ""):
            path.unlink()
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(locks, "read_text", read_too_late)
        lock = locks.lock(root)
    assert f'"pid": {os.getpid()}' in (root / locks.LOCK_FILE).read_text()
    lock.release()


def test_a_run_that_has_lost_its_lock_stops_and_leaves_it_alone(
    root, quick, monkeypatch, caplog
):
    """It slept for more than two minutes, and another has taken its place."""
    signals = []
    monkeypatch.setattr(locks.os, "kill", lambda *a: signals.append(a))
    lock = locks.lock(root)
    (root / locks.LOCK_FILE).write_text(owner(0))
    lock._thread.join(timeout=TIMEOUT)
    assert signals == [(os.getpid(), signal.SIGTERM)]
    assert "in use by pid 7 on host elsewhere" in caplog.text
    lock.release()
    assert "elsewhere" in (root / locks.LOCK_FILE).read_text()


def test_whole_writes_in_a_bucket_are_one_object(root):
    files.write_whole(root / "a.json", "text")
    assert FakeBucket.objects == {"fake/run/a.json": b"text"}


def parts_of(root):
    return [n.rpartition("/")[2] for n in sorted(FakeBucket.objects)]


def test_lines_in_a_bucket_are_in_parts_and_read_as_one(root, monkeypatch):
    monkeypatch.setattr(files.BucketLines, "LINES", 3)
    file = root / "metrics.jsonl"
    assert files.read_lines(file) == []
    lines = files.lines_of(file, ["a", "b"])
    for text in "cdefgh":
        lines.append(text)
    assert files.read_lines(file) == ["a", "b", "c", "d", "e", "f"]
    lines.flush()
    assert files.read_lines(file) == list("abcdefgh")
    assert parts_of(root) == ["00000000", "00000001", "00000002"]
    # A run that goes on from 'd' replaces what is there.
    again = files.lines_of(file, list("abcd"))
    assert files.read_lines(file) == list("abcd") and parts_of(root) == ["00000003"]
    again.append("x")
    again.close()
    assert files.read_lines(file) == list("abcdx")


def test_a_crash_while_lines_begin_anew_loses_none_and_doubles_none(root, monkeypatch):
    file = root / "metrics.jsonl"
    first = files.lines_of(file, list("abcd"))
    first.close()
    with monkeypatch.context() as patch:
        patch.setattr(FakeBucket, "rm_file", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            files.lines_of(file, list("abc"))
    assert files.read_lines(file) == list("abcd")
    files.lines_of(file, list("abc"))
    assert files.read_lines(file) == list("abc")


def test_lines_in_a_bucket_appear_after_some_seconds(root, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    lines = files.lines_of(root / "a", [])
    for second in (1, 5, 11):
        now[0] = second
        lines.append(str(second))
        seen = files.read_lines(root / "a")
        assert seen == (["1", "5", "11"] if second == 11 else [])


def test_a_write_that_fails_leaves_the_old_file_and_no_half_of_the_new(
    tmp_path, monkeypatch
):
    path = epath.Path(tmp_path) / "results.json"
    files.write_whole(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: .*results.json'"):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


# Checkpoints where nothing can be renamed: TensorStore itself needs a real folder.


def item(value):
    return {"params": {"w": jnp.full((4,), value)}, "ema": None, "state": {}}


def value_of(manager, step):
    model, _ = manager.restore_model(step, mesh.build())
    return float(model["params"]["w"][0])


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """Checkpoints 4, 8 and 12 in what passes for a bucket, 12 marked as damaged."""
    monkeypatch.setattr(files, "is_bucket", lambda path: True)
    monkeypatch.setattr(
        type(epath.Path(tmp_path)), "rename", lambda *_: pytest.fail("renamed")
    )
    manager = Checkpoints(tmp_path / "c", keep=3)
    for step in (4, 8, 12):
        manager.save(step, {"model": item(float(step))}, {"config": {}})
    manager.wait()
    manager.set_aside(12, None)
    assert (manager.folder / "12.damaged").is_file()
    return manager


def test_a_marker_takes_a_damaged_step_out_of_the_list(marked):
    assert marked.steps() == [4, 8] and marked.latest() == 8
    assert Checkpoints(marked.folder, read_only=True).steps() == [4, 8]
    assert Checkpoints(marked.folder).steps() == [4, 8]
    assert (marked.folder / "12").is_dir()


@pytest.mark.parametrize("step", [10, 12, 13])
def test_saves_after_a_marker_really_happen(marked, step):
    marked.save(step, {"model": item(-1.0)}, {"config": {}})
    marked.wait()
    assert step in marked.steps() and value_of(marked, step) == -1.0
    marked.save(20, {"model": item(-2.0)}, {"config": {}})
    marked.wait()
    assert marked.latest() == 20


def test_a_marker_that_outlived_its_step_hides_no_new_one(marked):
    """As after a crash between the two removals."""
    (marked.folder / "12").rmtree()
    marked = Checkpoints(marked.folder)
    marked.save(12, {"model": item(-1.0)}, {"config": {}})
    marked.wait()
    assert marked.latest() == 12 and value_of(marked, 12) == -1.0


# A whole run in a bucket, its checkpoints alone in a folder


@pytest.fixture
def redirected(bucket, tmp_path, monkeypatch):
    """Checkpoints of gs://fake/run are in a folder here, for TensorStore's sake."""
    create = Checkpoints.__init__

    def init(self, folder, **options):
        local = os.fspath(folder).replace("gs://fake", str(tmp_path / "local"))
        create(self, local, **options)

    monkeypatch.setattr(Checkpoints, "__init__", init)
    return tmp_path / "local"


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_a_run_in_a_bucket_is_interrupted_goes_on_and_ends_the_same(
    redirected, root, trained, tiny, monkeypatch, quick
):
    write = writers.MetricsWriter.write

    def crashing(self, step, split, numbers):
        write(self, step, split, numbers)
        if step > 7:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(writers.MetricsWriter, "write", crashing)
        with pytest.raises(Interrupted):
            experiment.run(tiny, root)
    # As if it had been killed: its lock is still there, and old.
    (root / locks.LOCK_FILE).write_text(owner(500))
    experiment.run(tiny, root)
    assert metrics(root) == metrics(trained)
    there = Checkpoints("gs://fake/run/checkpoints", read_only=True)
    usual = Checkpoints(trained / "checkpoints", read_only=True)
    assert there.steps() == usual.steps()
    for step in usual.steps():
        assert there.read_meta(step)["checksums"] == usual.read_meta(step)["checksums"]
    assert json.loads((root / "config.json").read_text())["num_steps"] == 12
    assert [n for n in FakeBucket.objects if "pictures/samples_" in n]
    names = {n.removeprefix("fake/run/").partition("/")[0] for n in FakeBucket.objects}
    assert names == {"config.json", "metrics.jsonl.parts", "pictures"}
    assert {what for what, _ in FakeBucket.calls} <= {
        "open rb",
        "open wb",
        "pipe create",
    }


def test_a_second_run_in_a_bucket_is_refused(redirected, root, tiny):
    (root / locks.LOCK_FILE).write_text(owner(3))
    with pytest.raises(WorkdirError, match="in use by pid 7 on host elsewhere"):
        experiment.run(tiny, root)
    assert list(FakeBucket.objects) == ["fake/run/.lock"]


def test_a_bucket_whose_package_is_missing_is_one_line(tiny, monkeypatch):
    def mkdir(*_, **__):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(type(epath.Path("gs://fake")), "mkdir", mkdir)
    with pytest.raises(WorkdirError, match="needs one more package: .*gcsfs"):
        experiment.run(tiny, "gs://fake/run")
