"""What a run costs around its steps: the start, memory, checkpoints.

1. Seconds from starting `python train.py --config=configs/digits.py` to the end of its
   first step, with no compiled programs kept and with those of an earlier run.
2. Peak memory of 210 steps of train.py, and of the same training in plain PyTorch.
3. Bytes and seconds of saving and restoring a checkpoint, checked against its sums, and
   of torch.save and torch.load of the same arrays; until the bytes are on the disk.

    pip install -e '.[bench]'
    python -m benchmarks.processes [--rounds 5] [--path FOLDER]
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from etils import epath

from benchmarks import machine, turns
from jvae.training import assembly
from jvae.training import config as configs
from jvae.training.config_files import experiment_config
from jvae.training.run_checkpoints import RunCheckpoints

ROOT = Path(__file__).parent.parent
PEAK_STEPS = 210
FIRST_STEP = """
import os, sys, time
from jvae.commands import main, train
from jvae.training.components import Components
import jax
original = Components.compile_step
def compile_step(*arguments):
    step = original(*arguments)
    def run(*arguments):
        jax.block_until_ready(step(*arguments))
        print("\\nfirst step done at", time.time(), flush=True)
        os._exit(0)
    return run
Components.compile_step = compile_step
main.run_command(train.command, sys.argv[1:])
"""
TORCH_ALONE = """
import gzip, sys
import numpy as np
from benchmarks.peers import mlp as peer
path, steps, compiled = sys.argv[1], int(sys.argv[2]), len(sys.argv) > 3
with gzip.open(path + "/train-images-idx3-ubyte.gz") as file:
    images = np.frombuffer(file.read(), np.uint8, offset=16)
rng = np.random.default_rng(0)
sizes = ((784, 512), (512, 32), (16, 512), (512, 784))
layers = [(0.03 * rng.normal(size=s), np.zeros(s[1])) for s in sizes]
peer.Torch(images, layers, 128, 0.999, compiled).train(steps)
"""


def first_step(cache):
    """Returns seconds from the start of the process to the end of its first step."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--config=configs/digits.py", f"--workdir={folder}/run"]
        began = time.time()
        done = subprocess.run(
            [sys.executable, "-c", FIRST_STEP, *flags],
            env=environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    return float(re.findall(r"first step done at (\S+)", done.stdout)[0]) - began


def starts(rounds):
    """Returns the median seconds of {'cold', 'warm'}, and of imports alone."""
    seconds = {"cold": [], "warm": [], "imports": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            seconds["cold"].append(first_step(cache))
            seconds["warm"].append(first_step(cache))
        began = time.time()
        imports = [
            sys.executable,
            "-c",
            "import jvae.commands.flags, jvae.training.experiment",
        ]
        subprocess.run(imports, cwd=ROOT, check=True)
        seconds["imports"].append(time.time() - began)
    found = {name: statistics.median(spent) for name, spent in seconds.items()}
    for name, spent in found.items():
        print(f"start, {name}: {spent:.2f} s")
    return found


def peak_bytes(*command):
    """Returns the largest resident memory of a command."""
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}")
    return usage.ru_maxrss * 1024


def memory(path):
    """Returns peak bytes of training, by config and framework."""
    found = {}
    for model, config in (("mlp", "fashion_mlp"), ("conv", "fashion_conv")):
        with tempfile.TemporaryDirectory() as folder:
            train = peak_bytes(
                sys.executable,
                "train.py",
                f"--config=configs/{config}.py",
                f"--workdir={folder}/run",
                f"--config.num_steps={PEAK_STEPS}",
                "--config.eval_every_steps=0",
                f"--config.data.path={path}",
            )
        found[model] = {turns.OURS: train}
        print(f"peak memory, {config}: {train / 2**20:.0f} MiB", flush=True)
    for compiled in (False, True):
        program = [sys.executable, "-c", TORCH_ALONE, path, str(PEAK_STEPS)]
        size = peak_bytes(*program, *(["compiled"] if compiled else []))
        name = "torch compiled" if compiled else "torch eager"
        found["mlp"][name] = size
        print(f"peak memory, {name}: {size / 2**20:.0f} MiB", flush=True)
    return found


def checkpoints(rounds, path):
    """Returns bytes and median seconds of saving and restoring, by size of model."""
    found = {}
    for hidden in ((512,), (2048, 2048)):
        name = "784-" + "-".join(map(str, hidden)) + "-16"
        components, state = new_run(path, hidden)
        arrays = jax.tree.leaves(jax.device_get((state.params, state.opt_state)))
        arrays += jax.tree.leaves(jax.device_get(state.ema))
        rows = [
            checkpoint(components, state) | torch_checkpoint(arrays)
            for _ in range(rounds)
        ]
        found[name] = {
            key: statistics.median(row[key] for row in rows) for key in rows[0]
        }
        found[name]["bytes_of_arrays"] = sum(a.nbytes for a in arrays)
        print(f"checkpoint of {name}: {found[name]}", flush=True)
    return found


def new_run(path, hidden):
    """Returns (the parts of configs/fashion_mlp.py at another width, a state).

    Its numbers are random, as zeros would be written in no space.
    """
    config = experiment_config("configs/fashion_mlp.py", {"data.path": path})
    config["model"]["hidden"] = hidden
    components = assembly.assemble(configs.parse_experiment(config))
    rng = np.random.default_rng(0)

    def random(a):
        is_real = jnp.issubdtype(a.dtype, jnp.floating)
        return rng.normal(size=a.shape).astype(a.dtype) if is_real else a

    state = components.create_state()
    return components, jax.device_put(
        jax.tree.map(random, state), jax.tree.map(lambda a: a.sharding, state)
    )


def checkpoint(components, state):
    """Returns seconds and bytes of one checkpoint of a run."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = epath.Path(folder)
        labels = components.experiment.to_dict(), len(components.splits.train)
        saved = RunCheckpoints(root, *labels, keep=1)
        began = time.perf_counter()
        saved.save(1, state)
        found["seconds_training_waits"] = time.perf_counter() - began
        saved.wait()
        os.sync()
        found["seconds_to_save"] = time.perf_counter() - began
        found["bytes"] = size_of(folder)
        like = components.abstract_state()
        began = time.perf_counter()
        jax.block_until_ready(saved.restored(like))
        found["seconds_to_restore"] = time.perf_counter() - began
        saved.close()
    return found


def torch_checkpoint(arrays):
    """Returns the same of one file of torch.save, without sums."""
    tensors, found = [torch.from_numpy(np.array(a)) for a in arrays], {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.pt"
        began = time.perf_counter()
        torch.save(tensors, file)
        os.sync()
        found["torch_seconds_to_save"] = time.perf_counter() - began
        found["torch_bytes"] = size_of(folder)
        began = time.perf_counter()
        torch.load(file)
        found["torch_seconds_to_restore"] = time.perf_counter() - began
    return found


def size_of(folder):
    """Returns the bytes of all files in a folder."""
    return sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--path", default="/usr/share/datasets/fashion-mnist")
    flags = parser.parse_args()
    result = {"start_seconds": starts(flags.rounds), "peak_bytes": memory(flags.path)}
    result["checkpoints"] = checkpoints(flags.rounds, flags.path)
    machine.write("processes", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
