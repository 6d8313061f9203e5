"""A training step on 1 to 256 devices: what they exchange, memory, compile time.

Devices are simulated on CPU, which partitions a program as on any other; it is compiled
and not run. Every device has the same rows of the batch (`RUNS`), so the global batch
grows with the devices. The parameters are held by all devices ('data') or split over up
to eight of them ('data x params'). Collectives and their bytes are read from the
compiled program, matrix operations from the jaxpr; docs/performance.md turns them into
times on hardware that is not here.

    python -m benchmarks.scaling [--devices 1 8 64 256] [--runs mlp conv nvae]

What was found of other runs and devices stays in benchmarks/results/scaling.json.
"""

import argparse
import collections
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine

ROOT = Path(__file__).parent.parent
DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SPLIT = 8
"""Devices that share the parameters, if there are so many."""
RUNS = {  # config, rows of a device
    "mlp": ("configs/fashion_mlp.py", 128),
    "conv": ("configs/fashion_conv.py", 64),
    "nvae": ("configs/nvae_cifar10.py", 32),
}


def lowered(name, rows, params):
    """Returns (the training step over all devices, lowered; its flops; its state)."""
    import jax
    import numpy as np

    from benchmarks import hlo
    from jvae.training import assembly
    from jvae.training import config as configs
    from jvae.training.config_files import experiment_config

    config = experiment_config(RUNS[name][0], {})
    shape, batch = tuple(config["model"]["image_shape"]), rows * jax.device_count()
    images = np.zeros((batch, *shape), np.uint8)
    folder = tempfile.mkdtemp()
    file = Path(folder) / "images.npz"
    np.savez(file, train_images=images, test_images=images[:1])
    data = {"name": "npz", "path": str(file), "batch_size": batch}
    data |= {
        k: config["data"][k] for k in ("transform", "mirror") if k in config["data"]
    }
    config |= {"data": data, "mesh": {"data": -1, "params": params}}
    config["steps_per_dispatch"] = 1
    components = assembly.assemble(configs.parse_experiment(config))
    shutil.rmtree(folder)
    state = components.abstract_state()
    raw = dict(components.splits.train.read(np.arange(batch)))
    traced = components.compile_step(state).trace(state, raw)
    return traced.lower(), hlo.matrix_flops(traced.jaxpr), state


def measure(name, params):
    """Prints what a run's step is on the devices of this process, as JSON."""
    import jax

    from benchmarks import hlo

    began = time.perf_counter()
    step, flops, state = lowered(name, RUNS[name][1], params)
    tracing = time.perf_counter() - began
    compiled = step.compile()
    compiling = time.perf_counter() - began - tracing
    n, memory = jax.device_count(), compiled.memory_analysis()
    found = hlo.collectives(compiled.as_text(), n)
    by_kind = collections.defaultdict(lambda: {"number": 0, "sent_bytes": 0.0})
    for one in found:
        by_kind[one.kind]["number"] += one.times
        by_kind[one.kind]["sent_bytes"] += one.sent
    by_group = collections.defaultdict(float)
    for one in found:
        by_group[one.devices] += one.sent
    parameters = sum(math.prod(a.shape) for a in jax.tree.leaves(state.params))
    result = {
        "run": name,
        "devices": n,
        "split": params,
        "rows_per_device": RUNS[name][1],
        "parameters": parameters,
        "matrix_flops_per_device": flops / n,
        "processor": machine.describe()["processor"],
        "seconds_to_trace": tracing,
        "seconds_to_compile": compiling,
        "state_bytes_per_device": memory.argument_size_in_bytes,
        "temporary_bytes_per_device": memory.temp_size_in_bytes,
        "collectives": by_kind,
        "sent_bytes_by_group_size": by_group,
    }
    print(json.dumps(result))


def in_process(name, devices, params):
    """Returns `measure` of so many simulated devices, in a process of their own."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.scaling", "--measure", name]
    done = subprocess.run(
        [*command, str(params)],
        env=os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="*", default=DEVICES)
    parser.add_argument("--runs", nargs="*", default=[*RUNS], choices=RUNS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        measure(flags.measure[0], int(flags.measure[1]))
        return 0
    file = machine.RESULTS / "scaling.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    rows = [
        row
        for row in rows
        if row["run"] not in flags.runs or row["devices"] not in flags.devices
    ]
    for name in flags.runs:
        for devices in flags.devices:
            for params in sorted({1, min(SPLIT, devices)}):
                row = in_process(name, devices, params)
                rows.append(row)
                sent = sum(k["sent_bytes"] for k in row["collectives"].values())
                print(
                    f"{name} {devices:4} devices, parameters split {params}: "
                    f"{row['seconds_to_compile']:.0f} s to compile, "
                    f"{row['state_bytes_per_device'] / 2**20:,.0f} + "
                    f"{row['temporary_bytes_per_device'] / 2**20:,.0f} MiB, "
                    f"{sent / 2**20:,.1f} MiB sent",
                    flush=True,
                )
    rows.sort(key=lambda row: (row["run"], row["devices"], row["split"]))
    machine.write("scaling", {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
