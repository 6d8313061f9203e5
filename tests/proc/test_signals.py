"""Real signals to real processes; each run ends as if nothing had happened."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests import runs
from tests.runs import ROOT, assert_same_run, steps, train, write_config

pytestmark = pytest.mark.proc


def finish(config, workdir):
    """Runs the same command again to the end."""
    command = train(config, workdir)
    assert command.wait() == 0, command.text
    return command.text


def begun(config, workdir, after="step 200/"):
    """Returns a command that has done some steps."""
    command = train(config, workdir)
    assert command.wait_for(after), command.text
    return command


def test_a_killed_run_ends_as_if_it_had_not_been(config, whole, tmp_path):
    moments = random.Random(time.time_ns())
    kills = 0
    while kills < 5:
        command = train(config, tmp_path / "run")
        command.wait_for(" in ")
        time.sleep(moments.uniform(0.0, 1.0))
        command.send(signal.SIGKILL)
        kills += 1
        if command.wait() == 0:
            break
    finish(config, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")
    left = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(left) == [str(s) for s in steps(tmp_path / "run")]


@pytest.mark.parametrize(
    "number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_saves_and_the_same_command_goes_on(
    config, whole, tmp_path, number, status
):
    command = begun(config, tmp_path / "run")
    command.send(number)
    assert command.wait() == status, command.text
    last = command.text.strip().splitlines()[-1]
    found = re.fullmatch(
        rf"jvae: stopped by {number.name} at step (\d+), checkpoint saved; "
        r"run the same command to go on\.",
        last,
    )
    assert found, command.text
    assert steps(tmp_path / "run")[-1] == int(found[1])
    assert f"resumed from step {found[1]}" in finish(config, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


def test_a_second_ctrl_c_ends_at_once_and_older_checkpoints_are_whole(
    config, whole, tmp_path
):
    command = begun(config, tmp_path / "run")
    command.send(signal.SIGINT)
    command.send(signal.SIGINT)
    assert command.wait() == 130
    finish(config, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


def test_a_signal_to_the_whole_group_saves(config, whole, tmp_path):
    command = begun(config, tmp_path / "run")
    os.killpg(command.process.pid, signal.SIGTERM)
    assert command.wait() == 143, command.text
    assert "checkpoint saved" in command.text
    finish(config, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


SLOW = '''
import jax.numpy as jnp
from jvae.losses.elbo import negative_elbo
from jvae.losses.objective import with_coefficients

@with_coefficients(beta=1.0)
def slow(params, state, key, batch, coefficients, *, model, train=True):
    """An ELBO that takes long to compile."""
    loss, aux = negative_elbo(
        params, state, key, batch, coefficients, model=model, train=train
    )
    x = loss * 1e-3
    for i in range({ops}):
        x = jnp.sin(x) * 1.0001 + jnp.cos(x + i)
    return loss + 0.0 * x, aux
'''


def test_a_signal_during_compilation_is_acted_on_after_one_step(long, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW.format(ops=800))
    config = write_config(tmp_path, long | {"loss": {"name": "slow:slow"}})
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    command = train(config, tmp_path / "run", PYTHONPATH=f"{tmp_path}:{ROOT}", **cache)
    assert command.wait_for("new run in")
    time.sleep(0.5)
    command.send(signal.SIGTERM)
    sent = time.monotonic()
    assert command.wait() == 143, command.text
    assert time.monotonic() - sent > 1.0, "it was not compiling"
    assert "stopped by SIGTERM at step 1," in command.text
    assert steps(tmp_path / "run") == [1]


def test_every_start_that_is_stopped_while_compiling_gets_on(long, tmp_path):
    config = write_config(tmp_path, long)
    for i in range(1, 4):
        cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / f"cache{i}")}
        command = train(config, tmp_path / "run", **cache)
        assert command.wait_for(" in ")
        command.send(signal.SIGTERM)
        assert command.wait() == 143, command.text
        assert steps(tmp_path / "run")[-1] >= i


def test_a_signal_while_a_save_is_in_flight_saves_the_newer_step(long, tmp_path):
    long["model"]["hidden"] = [2048, 1024]  # 2 million parameters, 4 copies of them
    config = write_config(tmp_path, long | {"checkpoint_every_steps": 1})
    command = train(config, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"

    def is_saving():
        return folder.is_dir() and any(
            not (p / "commit_success.txt").exists() for p in folder.iterdir()
        )

    assert command.wait_until(is_saving), command.text
    command.send(signal.SIGTERM)
    assert command.wait() == 143, command.text
    (stopped,) = re.findall(r"at step (\d+), checkpoint saved", command.text)
    assert steps(tmp_path / "run")[-1] == int(stopped)
    runs.arrays(tmp_path / "run")


def test_a_reader_that_leaves_does_not_end_the_run(config, whole, tmp_path):
    line = f'"{sys.executable}" train.py --config={config} --workdir={tmp_path / "run"}'
    run = subprocess.run(
        ["bash", "-c", f"{line} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=runs.TIMEOUT,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert_same_run(whole, tmp_path / "run")


def test_two_runs_do_not_share_a_workdir(config, whole, tmp_path):
    first = begun(config, tmp_path / "run", "new run in")
    second = train(config, tmp_path / "run")
    assert second.wait() == 4
    error = second.text.strip().splitlines()
    assert len(error) == 1
    assert f"workdir in use by pid {first.process.pid} on host" in error[0]
    assert first.wait() == 0
    assert_same_run(whole, tmp_path / "run")


def test_evaluation_runs_beside_training(config, whole, tmp_path):
    training = begun(config, tmp_path / "run")
    assert training.wait_until(lambda: steps(tmp_path / "run"))
    flags = ("--step=last", "--num_samples=2", "--num_examples=64", "--num_images=16")
    evaluation = runs.Command(
        "eval.py", *flags, f"--out={tmp_path / 'out'}", f"--workdir={tmp_path / 'run'}"
    )
    status = evaluation.wait()
    # The checkpoint may be replaced while it is read; then one line says so.
    lines = evaluation.text.strip().splitlines()
    assert status == 0 or (status == 4 and len(lines) == 1), evaluation.text
    assert training.wait() == 0
    assert_same_run(whole, tmp_path / "run")


def test_a_platform_without_plugin_is_one_line(config, tmp_path):
    command = train(config, tmp_path / "run", JAX_PLATFORMS="cuda")
    assert command.wait() == 6
    (line,) = command.text.strip().splitlines()
    assert line.startswith("jvae: error: no cuda devices") and "jax[cuda13]" in line
