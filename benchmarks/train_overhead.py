"""What the trainer costs: train.py's loop against the same step written bare.

Both train the model of configs/fashion_mlp.py (784-512-16, batch 128, dynamic
binarisation, Adam, moving average of the parameters) on the same data, in turns in one
process. The bare step is one function in this file: no pipeline, no metrics files, no
mesh, no library; its data lies in memory as one array and is read in order. The trainer
has everything on: Grain pipeline, metrics.jsonl, TensorBoard, progress, averaging and
one asynchronous checkpoint in 3,000 steps. Prints the ratio of the medians last, and
exits with 0 only if it is at least 0.95.

    python -m benchmarks.train_overhead [--steps 3000] [--rounds 5] [--path FOLDER]
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import machine
from jvae import data, experiment
from jvae.cli import experiment_config

BATCH = 128


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


def run_bare(images, num_steps, ema_decay=0.999):
    """Returns (images per second, last loss) of the bare step."""
    init, step = bare_trainer(ema_decay)
    state = init(jax.random.key(1))
    order = np.random.default_rng(0).permutation(len(images))
    shuffled = images[order]
    state, loss = step(state, shuffled[:BATCH])
    jax.block_until_ready(loss)
    began, per_epoch = time.perf_counter(), len(images) // BATCH
    for i in range(num_steps):
        start = (i % per_epoch) * BATCH
        state, loss = step(state, shuffled[start : start + BATCH])
    jax.block_until_ready(state)
    return num_steps * BATCH / (time.perf_counter() - began), float(loss)


def run_trainer(path, num_steps):
    """Returns (images per second, last loss) of the whole trainer, pauses included."""
    config = experiment_config("configs/fashion_mlp.py", {"data.path": path})
    config |= {"num_steps": num_steps, "eval_every_steps": 0}
    config["checkpoint_every_steps"] = num_steps
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stderr(io.StringIO()):
            timed = Timed(config, folder)
        rows = experiment.read_metrics(folder)
    return timed.images_per_second, rows[-1]["loss"]


class Timed:
    """Runs a config and times it from its first finished step to its very end."""

    def __init__(self, config, folder):
        marks = []
        original = experiment.parts.batches

        def marked(*arguments):
            for number, batch in enumerate(original(*arguments)):
                if number == 1:  # the first step is compiled and under way
                    marks.append(time.perf_counter())
                yield batch

        experiment.parts.batches = marked
        try:
            experiment.run(config, folder)
        finally:
            experiment.parts.batches = original
        seconds = time.perf_counter() - marks[0]
        self.images_per_second = (config["num_steps"] - 1) * BATCH / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--path", default="/usr/share/datasets/fashion-mnist")
    flags = parser.parse_args()
    train = data.build("idx", path=flags.path).train
    images = train.read(np.arange(len(train)))["image"]
    bare, trainer = [], []
    for i in range(flags.rounds):
        rate, bare_final = run_bare(images, flags.steps)
        bare.append(rate)
        rate, trainer_final = run_trainer(flags.path, flags.steps)
        trainer.append(rate)
        print(
            f"round {i + 1}: bare {bare[-1]:,.0f} images/s (loss {bare_final:.1f}), "
            f"train.py {trainer[-1]:,.0f} images/s (loss {trainer_final:.1f}), "
            f"ratio {trainer[-1] / bare[-1]:.3f}",
            flush=True,
        )
    ratio = statistics.median(t / b for t, b in zip(trainer, bare, strict=True))
    result = {
        "steps": flags.steps,
        "bare_images_per_second": bare,
        "train_py_images_per_second": trainer,
        "median_ratio": ratio,
        "required": 0.95,
    }
    machine.write("train_overhead", result)
    print(f"median ratio {ratio:.3f}")
    return 0 if ratio >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
