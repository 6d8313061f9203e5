"""Two processes of one run on this machine, and runs that change their number."""

import re
import resource
import signal
import time

import numpy as np
import pytest

from tests.runs import (
    ROOT,
    arrays,
    free_port,
    metrics,
    steps,
    train,
    train_together,
    write_config,
)

pytestmark = pytest.mark.proc


def wait_all(processes):
    """Returns their exit statuses."""
    return [process.wait() for process in processes]


def texts(processes):
    return "\n".join(p.text for p in processes)


@pytest.fixture
def short(tiny):
    """20 steps, everything on."""
    return tiny | {"num_steps": 20, "eval_every_steps": 10}


def test_two_processes_train_like_one(tiny, tmp_path):
    """2 processes x 4 devices, 1 x 8: the parameters of step 20, the loss of 200."""
    tiny |= {"num_steps": 200, "log_every_steps": 20, "eval_every_steps": 100}
    tiny |= {"checkpoint_every_steps": 20, "keep_checkpoints": 10}
    config = write_config(tmp_path, tiny)
    two = train_together(config, tmp_path / "two")
    assert wait_all(two) == [0, 0], texts(two)
    assert train(config, tmp_path / "one", devices=8).wait() == 0
    one, both = arrays(tmp_path / "one", 20), arrays(tmp_path / "two", 20)
    assert one.keys() == both.keys()
    for path, value in one.items():
        if "params" in path or "ema" in path:
            np.testing.assert_allclose(value, both[path], atol=1e-6, err_msg=path)
    first, second = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert first[-1]["step"] == second[-1]["step"] == 200
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a["elbo"], b["elbo"], rtol=1e-3)
    assert "step 20/200" in two[0].text and "step 20/200" not in two[1].text
    assert list((tmp_path / "two" / "pictures").glob("samples_*.png"))


def test_a_run_goes_on_with_other_processes_and_devices(short, tmp_path):
    """2 x 4, then 1 x 2, then 2 x 1: arrays as saved, batches as if undisturbed."""
    config = write_config(tmp_path, short)
    assert train(config, tmp_path / "whole").wait() == 0
    workdir = tmp_path / "run"
    sharded = "--config.mesh.params=8"
    two = train_together(config, workdir, sharded, "--config.num_steps=8")
    assert wait_all(two) == [0, 0], texts(two)
    before = arrays(workdir, 8)
    one = train(config, workdir, "--config.num_steps=12", devices=2)
    assert one.wait() == 0, one.text
    assert "resumed from step 8" in one.text
    for path, value in arrays(workdir, 8).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)
    resident = "--config.data.placement=device"
    again = train_together(config, workdir, resident, devices=1)
    assert wait_all(again) == [0, 0], texts(again)
    rows, expected = (
        [r for r in metrics(run) if r["split"] == "train"]
        for run in (workdir, tmp_path / "whole")
    )
    assert [r["step"] for r in rows] == [r["step"] for r in expected]
    for a, b in zip(rows, expected, strict=True):
        np.testing.assert_allclose(a["elbo"], b["elbo"], rtol=1e-5)


def test_two_processes_go_back_from_a_damaged_checkpoint(short, tmp_path):
    """Damaged in the part that one of them wrote."""
    short["model"]["hidden"] = [2048]
    config, workdir = write_config(tmp_path, short), tmp_path / "run"
    sharded = "--config.mesh.params=2"
    two = train_together(config, workdir, sharded, "--config.num_steps=12", devices=1)
    assert wait_all(two) == [0, 0], texts(two)
    folder = workdir / "checkpoints" / "12" / "training" / "ocdbt.process_1" / "d"
    biggest = max(folder.iterdir(), key=lambda p: p.stat().st_size)
    biggest.write_bytes(biggest.read_bytes()[:1000])
    again = train_together(config, workdir, sharded, devices=1)
    assert wait_all(again) == [0, 0], texts(again)
    assert "jvae: checkpoint 12 is damaged" in again[0].text
    assert "resumed from step 8" in again[0].text
    assert (workdir / "checkpoints" / "12.damaged").is_dir()
    assert steps(workdir)[-1] == 20 and 12 in steps(workdir)


def test_a_notice_to_one_process_stops_both_at_one_step(config, tmp_path):
    two = train_together(config, tmp_path / "run", devices=1)
    assert two[0].wait_for("step 50/"), texts(two)
    two[1].send(signal.SIGTERM)
    assert wait_all(two) == [143, 143], texts(two)
    stops = [re.findall(r"at step (\d+), checkpoint saved", p.text) for p in two]
    assert stops[0] == stops[1] and len(stops[0]) == 1
    assert steps(tmp_path / "run")[-1] == int(stops[0][0])
    more = f"--config.num_steps={int(stops[0][0]) + 10}"
    again = train_together(config, tmp_path / "run", more, devices=1)
    assert wait_all(again) == [0, 0], texts(again)
    assert f"resumed from step {stops[0][0]}" in again[0].text


def test_a_notice_is_heard_where_a_dispatch_does_several_steps(long, tmp_path):
    config = write_config(tmp_path, long | {"steps_per_dispatch": 10})
    two = train_together(config, tmp_path / "run", devices=1)
    assert two[0].wait_for("step 50/"), texts(two)
    two[1].send(signal.SIGTERM)
    assert wait_all(two) == [143, 143], texts(two)
    assert steps(tmp_path / "run")[-1] < long["num_steps"]


SLOW = """
import dataclasses, pathlib, time
from jvae.data.datasets.digits import digits

class Slow:
    def __init__(self, source):
        self.source, self.shapes = source, source.shapes

    def __len__(self):
        return len(self.source)

    def read(self, indices):
        if len(indices) == 4:  # of more the digest of the data
            pathlib.Path({begun!r}).touch()
            time.sleep(1)
        return self.source.read(indices)

def slow():
    splits = digits()
    return dataclasses.replace(splits, validation=Slow(splits.test))
"""


def test_a_notice_in_a_validation_ends_it_in_both_processes(long, tmp_path):
    """It would take 20 s: 160 examples in batches of 8, of which each process reads 4.

    At the next start it is made up for.
    """
    begun, workdir = tmp_path / "begun", tmp_path / "run"
    (tmp_path / "slow.py").write_text(SLOW.format(begun=str(begun)))
    long["data"] = {"name": "slow:slow", "batch_size": 8, "transform": "binarize"}
    long |= {"num_steps": 20, "eval_every_steps": 10, "eval_examples": 160}
    config = write_config(tmp_path, long)
    path = f"{tmp_path}:{ROOT}"

    two = train_together(config, workdir, devices=1, PYTHONPATH=path)
    assert two[0].wait_until(begun.exists), texts(two)
    two[1].send(signal.SIGTERM)
    sent = time.monotonic()
    assert wait_all(two) == [143, 143], texts(two)
    assert time.monotonic() - sent < 10
    assert steps(workdir) == [10]
    assert not [row for row in metrics(workdir) if row["split"] == "validation"]

    few = "--config.eval_examples=16"
    again = train_together(config, workdir, few, devices=1, PYTHONPATH=path)
    assert wait_all(again) == [0, 0], texts(again)
    rows = [row for row in metrics(workdir) if row["split"] == "validation"]
    assert [row["step"] for row in rows] == [10, 20]


def test_ctrl_c_reaches_both_processes(config, tmp_path):
    two = train_together(config, tmp_path / "run", devices=1)
    assert two[0].wait_for("step 50/"), texts(two)
    two[0].send(signal.SIGINT)
    assert wait_all(two) == [130, 143], texts(two)


def test_a_process_that_is_killed_ends_the_other_in_one_line(config, tmp_path):
    two = train_together(config, tmp_path / "run", devices=1)
    assert two[0].wait_for("step 150/"), texts(two)
    two[1].send(signal.SIGKILL)
    assert two[1].wait() == -signal.SIGKILL
    killed = time.monotonic()
    assert two[0].wait() == 6, two[0].text
    assert time.monotonic() - killed < 60
    last = two[0].text.strip().splitlines()[-1]
    assert last.startswith("jvae: error: another process is gone"), two[0].text
    more = f"--config.num_steps={steps(tmp_path / 'run')[-1] + 10}"
    again = train(config, tmp_path / "run", more, devices=2)
    assert again.wait() == 0, again.text
    assert re.search(r"resumed from step \d*00", again.text)


ABORTED = "jvae: error: JAX has ended this process; most often another one is gone"
GONE = "jvae: error: another process is gone"


def last_line(process):
    return process.text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "victim"),
    [(signal.SIGKILL, 0), (signal.SIGSTOP, 0), (signal.SIGSTOP, 1)],
)
def test_a_process_that_is_gone_or_silent_ends_the_other_in_one_line(
    config, tmp_path, number, victim
):
    two = train_together(config, tmp_path / "run", "--silence_timeout=5", devices=1)
    assert two[0].wait_for("step 150/"), texts(two)
    two[victim].send(number)
    began = time.monotonic()
    try:
        other = two[1 - victim]
        assert other.wait() == 6, other.text
        assert time.monotonic() - began < 30
        assert last_line(other).startswith((ABORTED, GONE)), other.text
        assert "stack trace" not in other.text and "    @ " not in other.text
    finally:
        two[victim].send(signal.SIGKILL)
        two[victim].wait()


def test_a_save_that_fails_in_one_process_ends_both(short, tmp_path):
    """As its disk is full, of parameters of which it writes a part.

    The other waits for it to write its part, and finds that it is gone.
    """
    short["model"]["hidden"] = [2048]
    config = write_config(tmp_path, short)
    flags = ("--config.mesh.params=2", "--silence_timeout=12")
    two = train_together(config, tmp_path / "run", *flags, devices=1)
    assert two[0].wait_for("new run in"), texts(two)
    limit = (4000, 4000)  # bytes of a file
    resource.prlimit(two[1].process.pid, resource.RLIMIT_FSIZE, limit)
    assert wait_all(two) == [6, 4], texts(two)
    assert "was not written" in last_line(two[1])
    assert steps(tmp_path / "run") == []


def test_a_process_that_waits_alone_ends_in_one_line(config, tmp_path):
    flags = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2")
    alone = train(
        config, tmp_path / "run", *flags, "--process_id=0", "--join_timeout=3"
    )
    assert alone.wait() == 6
    (line,) = alone.text.strip().splitlines()
    assert line.startswith(ABORTED)


def train_apart(config, workdirs, *flags):
    """Starts two processes of one run, each with its own workdir and flags."""
    together = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2")
    return [
        train(config, workdir, *together, f"--process_id={i}", *own)
        for i, (workdir, own) in enumerate(zip(workdirs, flags, strict=True))
    ]


def test_processes_with_other_configs_end_together_and_name_the_field(config, tmp_path):
    flags = [(f"--config.loss.beta={beta}",) for beta in (1.0, 2.0)]
    two = train_apart(config, [tmp_path / "run"] * 2, *flags)
    assert wait_all(two) == [2, 2], texts(two)
    assert all("loss.beta: 2.0 there, 1.0 here" in last_line(p) for p in two)
    assert not (tmp_path / "run").exists()


def test_processes_that_were_told_other_numbers_of_processes_end_together(
    config, tmp_path
):
    """JAX takes the number of process 0."""
    flags = [(), ("--num_processes=3",)]
    two = train_apart(config, [tmp_path / "run"] * 2, *flags)
    assert wait_all(two) == [2, 2], texts(two)
    assert all("different num_processes: [2, 3]" in last_line(p) for p in two)


def test_data_that_one_process_cannot_read_end_both(config, tmp_path):
    """Each process sees its own file at the path, as on two hosts."""
    data = "--config.data={'name': 'npz', 'path': 'data.npz'}"
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    images = np.zeros((200, 8, 8), np.uint8)
    np.savez(folders[0] / "data.npz", train_images=images, test_images=images)
    address = f"--coordinator=127.0.0.1:{free_port()}"
    two = [
        train(
            config,
            tmp_path / "run",
            data,
            address,
            "--num_processes=2",
            f"--process_id={i}",
            cwd=folder,
            PYTHONPATH=str(ROOT),
        )
        for i, folder in enumerate(folders)
    ]
    assert wait_all(two) == [3, 3], texts(two)
    assert "process 1: " in last_line(two[0]) and "data.npz" in last_line(two[0])
    assert "data.npz" in last_line(two[1])


def test_processes_that_do_not_share_the_workdir_say_so(config, tmp_path):
    two = train_apart(config, [tmp_path / "one", tmp_path / "other"], (), ())
    assert wait_all(two) == [4, 4], texts(two)
    assert all("does not see the folder" in last_line(p) for p in two)


def test_processes_find_out_together_that_a_workdir_is_in_use(config, tmp_path):
    first = train(config, tmp_path / "run")
    assert first.wait_for("new run in")
    two = train_together(config, tmp_path / "run", devices=1)
    assert wait_all(two) == [4, 4], texts(two)
    assert all("workdir in use by pid" in p.text for p in two)
    assert first.wait() == 0


def test_processes_find_each_other_by_what_slurm_tells_them(short, tmp_path):
    config = write_config(tmp_path, short)
    job = {"SLURM_JOB_ID": str(time.time_ns() % 4096), "SLURM_NTASKS": "2"}
    job |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": "2"}
    two = [
        train(
            config,
            tmp_path / "run",
            "--distributed",
            **job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
        )
        for i in range(2)
    ]
    assert wait_all(two) == [0, 0], texts(two)
    assert "on 2 x cpu" in two[0].text and steps(tmp_path / "run")[-1] == 20


def test_a_coordinator_that_is_not_there_is_named(config, tmp_path):
    flags = ("--coordinator=127.0.0.1:9", "--num_processes=2", "--process_id=1")
    command = train(config, tmp_path / "run", *flags, "--join_timeout=1")
    assert command.wait() == 6
    (line,) = command.text.strip().splitlines()
    assert "cannot reach coordinator 127.0.0.1:9" in line
