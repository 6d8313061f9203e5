"""train.py with everything on, beside the bare step, plain PyTorch and pythae.

All train the model of configs/fashion_mlp.py (784-512-16, batch 128, Adam) on the same
images from the same parameters, in one process and in turns of one epoch:

- train.py: pipeline, metrics.jsonl, TensorBoard, progress, guard, averaged parameters,
  one asynchronous checkpoint on the way beside the last;
- bare: the same step as one function of JAX in this file, with averaged parameters and
  no guard; its data lies in memory as one array and is read in order;
- PyTorch with fused Adam, eager and compiled, with averaged parameters;
- pythae's own trainer, without them.

The images are 420 batches of Fashion-MNIST that were binarised once, as pythae does not
do it in every step. After the last turn every model is scored on all of them, and the
-ELBOs must be within 1%. The share of the wall time that devices wait for input is
counted in train.py's turns: waits for a batch at whose end the last step is done,
but for the first of a turn, where devices have waited for the turns of the others.

    pip install -e '.[bench]'
    python -m benchmarks.mlp [--turns 10] [--no-compile] [--path FOLDER]
"""

import argparse
import itertools
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from benchmarks import machine, turns
from benchmarks.peers import mlp as peer
from jvae import data
from jvae.runtime.preemption import StopSignal
from jvae.training import assembly, batches, loop
from jvae.training import config as configs
from jvae.training.config_files import experiment_config

BATCH, STEPS = 128, 420
EMA_DECAY = 0.999
SAME_LOSS = 0.01


def bare_loss(params, x, key):
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = params
    mean, log_var = jnp.split(jax.nn.relu(x @ w1 + b1) @ w2 + b2, 2, axis=-1)
    z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
    logits = jax.nn.relu(z @ w3 + b3) @ w4 + b4
    kl = 0.5 * (jnp.exp(log_var) + mean**2 - 1.0 - log_var).sum(-1)
    cross_entropy = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
    return (cross_entropy + kl).mean()


def bare_step(optimizer):
    run_key = jax.random.key(0)

    def step(state, pixels):
        count, params, opt_state, ema = state
        data_key, draw_key = jax.random.split(jax.random.fold_in(run_key, count))
        p = pixels.reshape(-1, 784).astype(jnp.float32) / 255.0
        x = (jax.random.uniform(data_key, p.shape) < p).astype(jnp.float32)
        loss, grads = jax.value_and_grad(bare_loss)(params, x, draw_key)
        updates, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(params, updates)
        ema = optax.incremental_update(params, ema, 1.0 - EMA_DECAY)
        return (count + 1, params, opt_state, ema), loss

    return jax.jit(step, donate_argnums=0)


class Bare:
    """The bare step and its data."""

    name = "bare"

    def __init__(self, images, layers):
        self.images, optimizer = images, optax.adam(1e-3)
        self.step = bare_step(optimizer)
        params = jax.tree.map(jnp.array, layers)
        ema = jax.tree.map(jnp.copy, params)
        self.state = jnp.int32(0), params, optimizer.init(params), ema

    def train(self, num_steps):
        """Returns the seconds of so many steps."""
        began = time.perf_counter()
        for i in range(num_steps):
            self.state, _ = self.step(
                self.state, self.images[i * BATCH : (i + 1) * BATCH]
            )
        jax.block_until_ready(self.state)
        return time.perf_counter() - began

    def score(self):
        """Returns the mean -ELBO of all images."""
        return score(self.state[1], self.images)


@jax.jit
def score(layers, images):
    """Returns the mean -ELBO of images [N, H, W, 1] at these layers."""
    x = images.reshape(-1, 784) / 255.0
    return bare_loss(layers, x, jax.random.key(1))


def layers_of(params):
    """Returns (kernel, bias) of the layers of jvae's model, in order."""
    encoder, decoder = params["encoder"], params["decoder"]
    up = decoder["layers"]["Dense_0"], decoder["output"]
    names = encoder["Dense_0"], params["posterior_head"], *up
    return [(np.asarray(p["kernel"]), np.asarray(p["bias"])) for p in names]


class Trainer:
    """The run of train.py, which lets others have their turns between its own."""

    name = turns.OURS

    def __init__(self, config, folder, num_turns):
        steps = (num_turns + 1) * STEPS
        config = config | {"num_steps": steps, "eval_every_steps": 0}
        # Once on the way, in the middle of a turn.
        config["checkpoint_every_steps"] = (num_turns // 2) * STEPS + STEPS // 2
        self.components = assembly.assemble(configs.parse_experiment(config))
        self.folder, self.seconds, self.waits = epath.Path(folder), [], []

    def layers(self):
        """Returns the layers at the start."""
        return layers_of(self.components.create_state().params)

    def train(self, others):
        """Trains; calls `others` after every epoch; the first does not count."""
        original, clock = batches.training_batches, {}

        def end_turn():
            jax.block_until_ready(run.state)
            self.seconds.append(time.perf_counter() - clock["began"])
            self.waits.append(clock["waited"])
            others()

        def timed(*arguments):
            dispatches = STEPS // run.experiment.steps_per_dispatch
            feed = original(*arguments)
            for number in itertools.count():
                if number % dispatches == 0:
                    if number:
                        end_turn()
                    clock.update(began=time.perf_counter(), waited=0.0)
                asked = time.perf_counter()
                batch = next(feed)
                is_first = number % dispatches == 0
                if not is_first and run.state.step.is_ready():  # nothing left to do
                    clock["waited"] += time.perf_counter() - asked
                yield batch

        batches.training_batches = timed
        with loop.TrainingRun(self.components, self.folder, StopSignal()) as run:
            try:
                run.train()
            finally:
                batches.training_batches = original
            end_turn()  # once the last checkpoint is on disk
            self.params, self.saved = run.state.params, run.checkpoints.states.steps()
        del self.seconds[0], self.waits[0]

    def score(self, images):
        """Returns the mean -ELBO of all images."""
        return score(layers_of(self.params), images)


def binarized(path):
    """Returns STEPS batches of images whose pixels are 0 or 255."""
    train = data.build("idx", path=path).train
    images = train.read(np.arange(BATCH * STEPS))["image"]
    draws = np.random.default_rng(0).random(images.shape)
    return np.where(draws < images / 255.0, 255, 0).astype(np.uint8)


def write_idx(folder, images):
    """Writes images as idx files; the last of them are the test split too."""
    for name, of_split in (("train", images), ("t10k", images[-BATCH:])):
        header = struct.pack(">BBBBIII", 0, 0, 8, 3, *of_split.shape[:3])
        file = Path(folder) / f"{name}-images-idx3-ubyte"
        file.write_bytes(header + of_split.tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--path", default="/usr/share/datasets/fashion-mnist")
    flags = parser.parse_args()
    images = binarized(flags.path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_idx(folder, images)
        config = experiment_config("configs/fashion_mlp.py", {"data.path": scratch})
        config["data"]["num_validation"] = 0
        trainer = Trainer(config, folder / "run", flags.turns)
        layers = trainer.layers()
        others = [Bare(images, layers)]
        for compiled in (False, True)[: 1 if flags.no_compile else 2]:
            others.append(peer.Torch(images, layers, BATCH, EMA_DECAY, compiled))
        others.append(peer.Pythae(images, layers, BATCH, folder / "pythae"))
        seconds = {one.name: [] for one in others}

        def take_turns():
            for one in others:
                seconds[one.name].append(one.train(STEPS))

        trainer.train(take_turns)
    scores = {one.name: float(one.score()) for one in others}
    scores[trainer.name] = float(trainer.score(images))
    turns.check_equal("-ELBO after the last turn", scores, SAME_LOSS)
    seconds = {name: spent[1:] for name, spent in seconds.items()}
    return report(trainer, seconds, scores)


def report(trainer, seconds, scores) -> int:
    """Prints and writes what was found."""
    everyone = {trainer.name: trainer.seconds, **seconds}
    torch = {n: s for n, s in everyone.items() if n in (trainer.name,) or "torch" in n}
    print(f"checkpoints at {trainer.saved}")
    found = turns.compared("all", everyone, BATCH * STEPS, "images")
    stall = sum(trainer.waits) / sum(trainer.seconds)
    print(f"devices waited for input {100 * stall:.2f}% of the time")
    best = min(torch.keys() - {trainer.name}, key=lambda n: statistics.median(torch[n]))
    result = {
        "images_per_second": found["images_per_second"],
        "steps": (len(trainer.seconds) + 1) * STEPS,
        "checkpoints": trainer.saved,
        "scores": scores,
        "ratios": {
            "bare": turns.ratio(everyone, "bare"),
            "torch": turns.ratio(everyone, best),
            "pythae": turns.ratio(everyone, "pythae"),
        },
        "best_torch": best,
        "input_stall_share": stall,
    }
    print({name: round(x, 3) for name, x in result["ratios"].items()})
    machine.write("mlp", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
