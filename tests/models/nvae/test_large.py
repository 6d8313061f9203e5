"""NVAE at the published size: a minute, and not in the default run."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest

from jvae.training import assembly, config_files
from jvae.training import config as configs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FILE = Path(__file__).parents[3] / "configs" / "nvae_cifar10.py"


def of_cifar_shape(folder, batch_size, devices):
    """The CIFAR-10 config, on random images of that shape."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 32, 32, 3)).astype(np.uint8)
    np.savez(folder / "images.npz", train_images=images, test_images=images[:8])
    config = config_files.experiment_config(str(FILE), {})
    data = {k: config["data"][k] for k in ("transform", "mirror")}
    data |= {"name": "npz", "path": str(folder / "images.npz")}
    data |= {"batch_size": batch_size}
    return {**config, "data": data, "mesh": devices}


def test_it_compiles_for_eight_devices_that_share_the_parameters(tmp_path):
    config = of_cifar_shape(tmp_path, 8, {"data": 1, "params": 8})
    components = assembly.assemble(configs.parse_experiment(config))
    state = components.abstract_state()
    raw = {**components.splits.train.read(np.arange(8))}
    compiled = components.compile_step(state).lower(state, raw).compile()
    whole = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(state.params))
    each = sum(
        math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize
        for a in jax.tree.leaves(state.params)
    )
    assert each < 1.05 * whole / 8
    # Parameters and two moments in, the same out, all of one device's share.
    assert compiled.memory_analysis().argument_size_in_bytes < 3.3 * whole / 8
