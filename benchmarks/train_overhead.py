"""What the trainer costs: train.py's loop against the same step written bare.

Both train the model of configs/fashion_mlp.py (784-512-16, batch 128, dynamic
binarisation, Adam, moving average of the parameters) on the same data, in one process
and in turns of a second or so, because other work on the machine comes and goes. The
bare step is one function in this file: no pipeline, no metrics files, no
mesh, no library; its data lies in memory as one array and is read in order. The trainer
has everything on: Grain pipeline, metrics.jsonl, TensorBoard, progress, averaging and
one asynchronous checkpoint in 3,000 steps beside the last. Prints the median ratio of
the turns last, and exits with 0 only if it is at least 0.95.

    python -m benchmarks.train_overhead [--steps 3000] [--slice 150] [--path FOLDER]
"""

import argparse
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from benchmarks import machine
from jvae import config as configs
from jvae import data, loop, parts
from jvae.config_files import experiment_config
from jvae.stopping import Stop

BATCH = 128
REQUIRED = 0.95


def bare_params(key, sizes=((784, 512), (512, 32), (16, 512), (512, 784))):
    glorot = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(sizes))
    return [
        (glorot(k, size, jnp.float32), jnp.zeros(size[1]))
        for k, size in zip(keys, sizes, strict=True)
    ]


def bare_loss(params, x, key):
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = params
    mean, log_var = jnp.split(jax.nn.relu(x @ w1 + b1) @ w2 + b2, 2, axis=-1)
    z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
    logits = jax.nn.relu(z @ w3 + b3) @ w4 + b4
    kl = 0.5 * (jnp.exp(log_var) + mean**2 - 1.0 - log_var).sum(-1)
    cross_entropy = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
    return (cross_entropy + kl).mean()


def bare_trainer(ema_decay):
    optimizer = optax.adam(1e-3)
    run_key = jax.random.key(0)

    @jax.jit
    def init(key):
        params = bare_params(key)
        return jnp.int32(0), params, optimizer.init(params), params

    def step(state, pixels):
        count, params, opt_state, ema = state
        data_key, draw_key = jax.random.split(jax.random.fold_in(run_key, count))
        p = pixels.reshape(-1, 784).astype(jnp.float32) / 255.0
        x = (jax.random.uniform(data_key, p.shape) < p).astype(jnp.float32)
        loss, grads = jax.value_and_grad(bare_loss)(params, x, draw_key)
        updates, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(params, updates)
        ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
        return (count + 1, params, opt_state, ema), loss

    return init, jax.jit(step, donate_argnums=0)


class Bare:
    """The bare step and its data; every call does some more steps."""

    def __init__(self, images, ema_decay=0.999):
        init, self.step = bare_trainer(ema_decay)
        order = np.random.default_rng(0).permutation(len(images))
        self.images, self.done = images[order], 0
        self.state = init(jax.random.key(1))
        self.run(20)

    def run(self, num_steps):
        """Returns the seconds that `num_steps` more steps take."""
        per_epoch = len(self.images) // BATCH
        began = time.perf_counter()
        for i in range(self.done, self.done + num_steps):
            start = (i % per_epoch) * BATCH
            pixels = self.images[start : start + BATCH]
            self.state, self.loss = self.step(self.state, pixels)
        jax.block_until_ready(self.state)
        self.done += num_steps
        return time.perf_counter() - began


def run_in_turns(config, folder, bare, slice_steps):
    """Trains with the whole trainer; every `slice_steps` the bare step has its turn.

    Returns:
      Seconds of each slice: (trainer, bare). The first slice, which compiles, is left
      out; the last one ends when the checkpoint is on disk.
    """
    built = parts.assemble(configs.read(config))
    slices, original = [], parts.batches
    clock = {"began": 0.0}

    def take_turns():
        jax.block_until_ready(run.state)
        trainer = time.perf_counter() - clock["began"]
        slices.append((trainer, bare.run(slice_steps)))
        clock["began"] = time.perf_counter()

    def batches(*arguments):
        steps = run.experiment.steps_per_dispatch
        for number, batch in enumerate(original(*arguments)):
            if number and (number * steps) % slice_steps == 0:
                take_turns()
            yield batch

    parts.batches = batches
    with loop.Run(built, epath.Path(folder), Stop()) as run:
        try:
            run.train()
        finally:
            parts.batches = original
        take_turns()
    return slices[1:], run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--slice", type=int, default=150)
    parser.add_argument("--path", default="/usr/share/datasets/fashion-mnist")
    flags = parser.parse_args()
    config = experiment_config("configs/fashion_mlp.py", {"data.path": flags.path})
    config |= {"num_steps": flags.steps, "eval_every_steps": 0}
    config["checkpoint_every_steps"] = flags.steps // 2
    config["checkpoint_every_steps"] += flags.slice // 2  # once, and within a slice
    train = data.build("idx", path=flags.path).train
    bare = Bare(train.read(np.arange(len(train)))["image"])
    with tempfile.TemporaryDirectory() as folder:
        slices, run = run_in_turns(config, folder, bare, flags.slice)
        saved = run.archive.states.steps()
    images = flags.slice * BATCH
    for trainer, plain in slices:
        print(
            f"train.py {images / trainer:8,.0f} images/s   bare {images / plain:8,.0f} "
            f"images/s   ratio {plain / trainer:.3f}"
        )
    total = sum(plain for _, plain in slices) / sum(trainer for trainer, _ in slices)
    ratio = statistics.median(plain / trainer for trainer, plain in slices)
    result = {
        "steps": flags.steps,
        "slice_steps": flags.slice,
        "checkpoints": saved,
        "train_py_examples_per_second": statistics.median(
            images / t for t, _ in slices
        ),
        "bare_examples_per_second": statistics.median(images / b for _, b in slices),
        "ratio_of_sums": total,
        "median_ratio": ratio,
        "required": REQUIRED,
    }
    machine.write("train_overhead", result)
    print(f"checkpoints at {saved}; ratio of the sums {total:.3f}")
    print(f"median ratio {ratio:.3f}")
    return 0 if ratio >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
