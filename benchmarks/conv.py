"""The convolutional VAE against plain PyTorch: training, likelihood, sampling.

The network of configs/fashion_cluster.py as a plain VAE (366 thousand parameters less
the clusters', batch 100, Adam, dynamically binarised Fashion-MNIST). jvae trains with
the trainer's compiled step and its Grain pipeline; PyTorch eager, channels_last,
compiled, and compiled with channels_last, with fused Adam and the data in memory, the
fastest of which counts.

1. Training, the same batches in the same order from the same parameters. The losses are
   compared there, and again after the same number of steps.
2. The importance-weighted bound of K = 500 draws.
3. 10,000 samples.

    pip install -e '.[bench]'
    python -m benchmarks.conv [--rounds 7] [--steps 40] [--no-compile] [--path FOLDER]
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import machine, turns
from benchmarks.peers import conv as peer
from jvae import data
from jvae.pretrained import samples
from jvae.pretrained.likelihood import evaluate_log_likelihood
from jvae.training import assembly, batches
from jvae.training import config as configs
from jvae.training.config_files import experiment_config
from jvae.training.loop import trained_model_of

BATCH, SAMPLES, CHUNK = 100, 10_000, 128
DRAWS, DRAWS_AT_ONCE, SCORED = 500, 5, 20
SAME_LOSS, COMPARED = 0.01, 1000
HOWS = {
    "eager": (False, torch.contiguous_format),
    "channels_last": (False, torch.channels_last),
    "compiled": (True, torch.contiguous_format),
    "compiled channels_last": (True, torch.channels_last),
}


def config(path):
    """The run: configs/fashion_cluster.py without clusters, with a true likelihood."""
    config = experiment_config("configs/fashion_cluster.py", {"data.path": path})
    config["data"]["transform"] = "binarize"
    del config["model"]["clusters"]
    config["model"]["likelihood"] = "bernoulli"
    config["loss"] = {"name": "elbo"}
    config["optimizer"] = {"name": "adam", "learning_rate": 1e-3}
    return config


class Jvae:
    """The trainer's step and feed, and its evaluation."""

    name = turns.OURS

    def __init__(self, path):
        self.components = assembly.assemble(configs.parse_experiment(config(path)))
        self.state = self.components.create_state()
        self.step = self.components.compile_step(self.state)
        self.feed = batches.training_batches(self.components, 0)

    def loss(self, x):
        """Returns -ELBO at z = mean, of binary images [B, H, W, 1]."""

        def of(model, x):
            q = model.encode(x)
            kl = 0.5 * (q.mean**2 + jnp.exp(q.log_var) - 1.0 - q.log_var).sum(-1)
            log_p = model.likelihood(q.mean, {"image": x}).log_prob(x)
            return (kl - log_p).mean()

        model = self.components.model
        return float(model.apply({"params": self.state.params}, x, method=of))

    def train(self, num_steps):
        """Returns seconds of so many steps, the feed's time included."""
        began = time.perf_counter()
        for _ in range(num_steps):
            self.state, _ = self.step(self.state, next(self.feed))
        jax.block_until_ready(self.state)
        return time.perf_counter() - began

    def nll(self):
        """Returns the seconds of the first images' bounds; keeps their mean."""
        trained = self.trained
        began = time.perf_counter()
        bound = evaluate_log_likelihood(
            trained,
            self.scored,
            num_samples=DRAWS,
            batch_size=SCORED,
            chunk_size=DRAWS_AT_ONCE,
            key=jax.random.key(0),
            num_examples=SCORED,
        )
        self.bound = bound.mean
        return time.perf_counter() - began

    def sample(self):
        """Returns the seconds of all samples."""
        began = time.perf_counter()
        x = samples.prior_samples(
            self.trained, jax.random.key(0), SAMPLES, chunk_size=CHUNK
        )
        assert x.shape == (SAMPLES, 28, 28, 1)
        return time.perf_counter() - began

    def evaluate(self, x):
        """Takes the parameters of now, and binary images [B, H, W, 1]."""
        self.trained = trained_model_of(self.components, self.state)
        self.scored = data.ArraySource({"image": (255 * x).astype(np.uint8)})


class Torch:
    """The same in PyTorch."""

    def __init__(self, how, jvae):
        self.name = f"torch {how}"
        compiled, self.format = HOWS[how]
        self.model = peer.ConvVAE().to(memory_format=self.format)
        load(self.model, jvae.state.params)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, fused=True)
        self.forward = self.model
        if compiled:
            self.forward = torch.compile(self.model)
            self.model.decode = torch.compile(self.model.decode)
        train = jvae.components.splits.train
        self.images = turned(train.read(np.arange(len(train)))["image"])
        self.order = lambda step: data.batch_indices(train, 0, BATCH, step)
        self.done = 0

    def loss(self, x):
        """Returns -ELBO at z = mean, of binary images [B, H, W, 1]."""
        x = turned(np.asarray(x))
        with torch.inference_mode():
            return float(sum(self.model(x, torch.zeros(()))).mean())

    def train(self, num_steps):
        """Returns seconds of so many steps, the making of batches included."""
        began = time.perf_counter()
        for step in range(self.done, self.done + num_steps):
            chosen = torch.from_numpy(np.array(self.order(step)))
            x = torch.bernoulli(self.images[chosen].float().div_(255.0))
            x = x.contiguous(memory_format=self.format)
            loss = sum(self.forward(x, torch.randn(BATCH, 20))).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        seconds = time.perf_counter() - began
        self.done += num_steps
        return seconds

    def evaluate(self, params, x):
        """Takes parameters of jvae, and binary images [B, H, W, 1]."""
        load(self.model, params)
        self.scored = turned(x).contiguous(memory_format=self.format)

    def nll(self):
        """Returns the seconds of the first images' bounds; keeps their mean."""
        began = time.perf_counter()
        bounds = self.model.log_likelihood(self.scored, DRAWS, DRAWS_AT_ONCE)
        self.bound = float(bounds.mean())
        return time.perf_counter() - began

    def sample(self):
        """Returns the seconds of all samples."""
        began = time.perf_counter()
        assert len(self.model.sample(SAMPLES, CHUNK).numpy()) == SAMPLES
        return time.perf_counter() - began


def turned(images):
    """Returns images [B, H, W, C] turned by 180 degrees as [B, C, H, W]."""
    return torch.from_numpy(images[:, ::-1, ::-1].transpose(0, 3, 1, 2).copy())


def load(model, params):
    """Copies parameters of jvae into PyTorch, see benchmarks/peers/conv.py."""

    def put(target, array):
        array = torch.from_numpy(np.array(array, np.float32))
        target.data.copy_(array)

    def put_conv(layer, source, transposed=False):
        kernel = np.asarray(source["kernel"])  # [h, w, in, out]
        if transposed:  # torch's is the gradient of a convolution, turned as it is
            put(layer.weight, kernel.transpose(2, 3, 0, 1))
        else:
            put(layer.weight, kernel[::-1, ::-1].transpose(3, 2, 0, 1))
        put(layer.bias, source["bias"])

    encoder, decoder = params["encoder"], params["decoder"]
    for i, layer in enumerate(model.encoder):
        put_conv(layer, encoder[f"Conv_{i}"])
    for i, layer in enumerate(model.decoder):
        kind = "ConvTranspose" if i % 2 else "Conv"
        put_conv(layer, decoder[f"{kind}_{i // 2}"], transposed=bool(i % 2))
    put_conv(model.output, decoder["output"])
    c, h, w = model.map
    head, start = params["posterior_head"], decoder["Dense_0"]
    kernel = np.asarray(head["kernel"]).reshape(h, w, c, -1)[::-1, ::-1]
    put(model.head.weight, kernel.transpose(3, 2, 0, 1).reshape(-1, c * h * w))
    put(model.head.bias, head["bias"])
    kernel = np.asarray(start["kernel"]).reshape(-1, h, w, c)[:, ::-1, ::-1]
    put(model.start.weight, kernel.transpose(3, 1, 2, 0).reshape(c * h * w, -1))
    bias = np.asarray(start["bias"]).reshape(h, w, c)[::-1, ::-1]
    put(model.start.bias, bias.transpose(2, 0, 1).ravel())


def training(everyone, x, flags):
    """Returns images/s of all; checks that all of them learn the same."""
    found = turns.training(everyone, flags.steps, flags.rounds, BATCH)
    last = {one.name: one.loss(x) for one in everyone}
    turns.check_equal("loss after the same steps", last, SAME_LOSS)
    return {**found, "losses": last, "steps": (flags.rounds + 1) * flags.steps}


def evaluation(everyone, x, flags):
    """Returns images/s of likelihoods and of samples, at the same parameters."""
    jvae, *peers = everyone
    jvae.evaluate(x)
    for one in peers:
        one.evaluate(jvae.state.params, x)
    found = {}
    for what, amount in (("nll", SCORED), ("sample", SAMPLES)):
        work = {one.name: getattr(one, what) for one in everyone}
        turns.in_turns(work, 1)
        seconds = turns.in_turns(work, flags.rounds)
        found[what] = turns.compared(what, seconds, amount, "images")
        if what == "nll":
            bounds = {one.name: -one.bound for one in everyone}
            turns.check_equal("bound on -log p(x)", bounds, SAME_LOSS)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--path", default="/usr/share/datasets/fashion-mnist")
    flags = parser.parse_args()
    jvae = Jvae(flags.path)
    hows = [how for how, (slow, _) in HOWS.items() if not (slow and flags.no_compile)]
    everyone = [jvae, *(Torch(how, jvae) for how in hows)]
    pixels = jvae.components.splits.train.read(np.arange(COMPARED))["image"] / 255.0
    x = (np.random.default_rng(0).random(pixels.shape) < pixels).astype(np.float32)
    first = {one.name: one.loss(x) for one in everyone}
    turns.check_equal("loss at the same parameters", first, 1e-4)
    result = {
        "training": training(everyone, x, flags),
        **evaluation(everyone, x[:SCORED], flags),
    }
    machine.write("conv", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
