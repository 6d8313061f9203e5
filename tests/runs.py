"""train.py and eval.py as commands: started, watched, sent signals, compared."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from jvae.training import assembly, run_checkpoints
from jvae.training import config as configs
from jvae.workdir import metrics as writers
from jvae.workdir.checkpoints import Checkpoints

ROOT = Path(__file__).parent.parent
TIMEOUT = 240


def write_config(folder, config):
    """Returns the path of a config file that says `config`."""
    file = Path(folder) / "config.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({config!r})\n"
    )
    return file


class Command:
    """A running script or module; its output lies in `file`."""

    def __init__(self, script, *arguments, devices=1, cwd=ROOT, **environment):
        folder = arguments[-1].partition("=")[2] or arguments[-1]
        self.file = Path(f"{folder}.{time.time_ns()}.log")
        flags = f"--xla_force_host_platform_device_count={devices}"
        inherited = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        env = {**inherited, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        is_file = str(script).endswith(".py")
        program = [str(ROOT / script)] if is_file else ["-m", script]
        with self.file.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-u", *program, *arguments],
                env={**env, **environment},
                cwd=cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self):
        """What it has printed so far."""
        return self.file.read_text()

    def wait_until(self, condition):
        """Returns whether `condition()` came true before the command ended."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            if self.process.poll() is not None:
                return condition()
            if time.monotonic() > end:
                raise TimeoutError(self.text)
            time.sleep(0.02)
        return True

    def wait_for(self, words):
        """Returns whether it printed `words` before it ended."""
        return self.wait_until(lambda: words in self.text)

    def send(self, number):
        """Sends a signal."""
        self.process.send_signal(number)

    def wait(self):
        """Returns its exit status; negative for one that a signal ended."""
        return self.process.wait(timeout=TIMEOUT)


def train(config, workdir, *flags, **options):
    """Starts train.py on a config file."""
    arguments = (f"--config={config}", *flags, f"--workdir={workdir}")
    return Command("train.py", *arguments, **options)


def free_port():
    """A port of this machine that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def train_together(config, workdir, *flags, processes=2, devices=4, **options):
    """Starts train.py as many processes of one run."""
    together = (
        f"--coordinator=127.0.0.1:{free_port()}",
        f"--num_processes={processes}",
    )
    return [
        train(
            config,
            workdir,
            *flags,
            *together,
            f"--process_id={i}",
            devices=devices,
            **options,
        )
        for i in range(processes)
    ]


def metrics(workdir):
    """The metrics without the times, which alone may differ between equal runs."""
    return [
        {k: v for k, v in row.items() if k not in writers.TIMES}
        for row in writers.read_metrics(workdir)
    ]


def steps(workdir, folder="checkpoints"):
    """The steps of the finished checkpoints."""
    if not (Path(workdir) / folder).is_dir():
        return []
    return Checkpoints(Path(workdir) / folder, read_only=True).steps()


def arrays(workdir, step=None):
    """Every array of a checkpoint by path, from the files alone."""
    manager = Checkpoints(Path(workdir) / "checkpoints", read_only=True)
    step = step or manager.latest()
    experiment = configs.parse_experiment(manager.read_meta(step)["config"])
    like = run_checkpoints.items_of(assembly.assemble(experiment).abstract_state())
    tree = manager.restore(step, like)
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def cut_off(whole, folder, step):
    """Copies a finished run as it was when it had just saved `step`; returns where."""
    shutil.copytree(whole, folder)
    for saved in (*folder.glob("checkpoints/*"), *folder.glob("best/*")):
        if saved.name.isdigit() and int(saved.name) > step:
            shutil.rmtree(saved)
    return folder


def assert_same_run(a, b):
    """Checks that two workdirs hold the same metrics and the same last state."""
    assert metrics(a) == metrics(b)
    first, second = arrays(a), arrays(b)
    assert first.keys() == second.keys()
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)
