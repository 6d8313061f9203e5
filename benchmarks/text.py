"""Sentence VAEs: training and sampling against the same model in plain PyTorch.

BN-VAE of configs/novels_bn.py (LSTMs of width 128, 4,000 words, batch 64, dropout
0.5, Adam, gradients clipped) on random sentences as long as those of novels, in batches
by length, which both are given as arrays in memory. Both start from the same
parameters, at which their losses are compared. They train in turns in one process;
PyTorch with its fused LSTM and Adam, eager and compiled, the better of which counts.
Padding is not counted.

    pip install -e '.[bench]'
    python -m benchmarks.text [--rounds 12] [--steps 24] [--no-compile]
"""

import argparse
import functools
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import machine, turns
from benchmarks.peers import text as peer
from jvae import data
from jvae.data.vocabulary import SentenceSource, sources
from jvae.runtime import mesh
from jvae.training import assembly
from jvae.training import config as configs
from jvae.training.config_files import experiment_config

WORDS, BATCH, SAMPLES, LENGTH = 4000, 64, 512, 61
REQUIRED, AIM, SAME_LOSS = 0.7, 1.0, 0.01


def novel_like(num: int) -> SentenceSource:
    """Returns sentences of random words, as frequent and as long as those of novels."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.round(rng.lognormal(2.7, 0.55, num)), 5, 41).astype(np.int32)
    tokens = np.minimum(rng.zipf(1.3, (num, 41)), WORDS - 1).astype(np.int32)
    tokens[np.arange(41) >= lengths[:, None] - 1] = 0
    return sources([(tokens, lengths)], num_buckets=4)[0]


def prepared_batches(num: int) -> list[dict[str, np.ndarray]]:
    """Returns the first `num` batches of a run, in memory."""
    source = novel_like(64 * 200)
    feed = data.train_batches(source, seed=0, batch_size=BATCH, start_step=0)
    return [dict(next(feed)) for _ in range(num)]


class Jvae:
    """The trainer's compiled step."""

    name = "jvae"

    def __init__(self, batches):
        config = experiment_config("configs/novels_bn.py", {"data.path": "unused"})
        config["data"] = {
            "name": "grammar",
            "batch_size": BATCH,
            "transform": "tokens",
        }
        # A constant rate, as in PyTorch here.
        config["optimizer"] = {"name": "adam", "learning_rate": 2e-3, "clip_norm": 5.0}
        self.components = assembly.assemble(configs.parse_experiment(config))
        self.state = self.components.create_state()
        self.step = self.components.compile_step(self.state)
        self.batches, self.done = batches, 0
        model = self.components.model

        @jax.jit
        def sample(variables, key):
            return model.apply(variables, key, SAMPLES, method="generate")

        self.sample_fn = sample

    def variables(self):
        """Returns parameters and statistics."""
        return {"params": self.state.params, **self.state.state}

    def loss_at_means(self, batch):
        """Returns -ELBO with z at its mean, without dropout, statistics as at first."""
        model, variables = self.components.model, self.variables()
        batch = jax.tree.map(jnp.asarray, batch)
        q = model.apply(variables, batch, method="posterior")
        p = model.apply(variables, q.mean, batch, method="likelihood")
        kl = 0.5 * (q.mean**2 + jnp.exp(q.log_var) - 1.0 - q.log_var).sum(-1)
        return float((kl - p.log_prob(batch["tokens"])).mean())

    def train(self, num_steps):
        """Returns (seconds of so many steps, their losses)."""
        losses, began = [], time.perf_counter()
        for i in range(self.done, self.done + num_steps):
            batch = mesh.put_batch(
                self.batches[i % len(self.batches)], self.components.devices
            )
            self.state, metrics = self.step(self.state, batch)
            losses.append(metrics["loss"])
        jax.block_until_ready(self.state)
        seconds = time.perf_counter() - began
        self.done += num_steps
        return seconds, [float(x) for x in losses]

    def sample(self, seed):
        """Returns (seconds, tokens that were written up to the ends)."""
        began = time.perf_counter()
        tokens = np.asarray(self.sample_fn(self.variables(), jax.random.key(seed)))
        return time.perf_counter() - began, num_tokens(tokens)


class Torch:
    """The same in PyTorch."""

    def __init__(self, batches, params, compiled):
        self.name = "torch compiled" if compiled else "torch eager"
        self.model = peer.TextVAE(WORDS, 32, 128, 0.5, 0.6)
        load(self.model, params)
        self.loss = torch.compile(self.model) if compiled else self.model
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.trained = trained
        self.optimizer = torch.optim.Adam(trained, lr=2e-3, fused=True)
        self.batches = [
            {name: torch.from_numpy(a.astype(np.int64)) for name, a in batch.items()}
            for batch in batches
        ]
        self.done = 0

    def loss_at_means(self, batch):
        """Returns -ELBO with z at its mean, without dropout, statistics as at first."""
        tokens = torch.from_numpy(batch["tokens"].astype(np.int64))
        length = torch.from_numpy(batch["length"].astype(np.int64))
        self.model.eval()
        with torch.inference_mode():
            loss = float(self.model(tokens, length, torch.zeros(len(tokens), 32)))
        self.model.train()
        return loss

    def train(self, num_steps):
        """Returns (seconds of so many steps, their losses)."""
        losses, began = [], time.perf_counter()
        for i in range(self.done, self.done + num_steps):
            batch = self.batches[i % len(self.batches)]
            noise = torch.randn(BATCH, 32)
            loss = self.loss(batch["tokens"], batch["length"], noise)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, 5.0)
            self.optimizer.step()
            losses.append(loss.detach())
        seconds = time.perf_counter() - began
        self.done += num_steps
        return seconds, [float(x) for x in losses]

    def sample(self, seed):
        """Returns (seconds, tokens that were written up to the ends)."""
        torch.manual_seed(seed)
        self.model.eval()
        began = time.perf_counter()
        tokens = self.model.generate(SAMPLES, LENGTH)
        seconds = time.perf_counter() - began
        self.model.train()
        return seconds, num_tokens(tokens.numpy())


def num_tokens(tokens: np.ndarray) -> int:
    """Returns how many tokens stand in sentences, ends counted."""
    return int((tokens != 0).sum() + (tokens == 0).any(1).sum())


def load(model: peer.TextVAE, params: dict) -> None:
    """Copies parameters of jvae into PyTorch; its second bias stays zero."""

    def put(target, array):
        # A copy: arrays of JAX may lie in memory that it frees or uses again.
        target.data = torch.from_numpy(np.array(array, np.float32))

    decoder, lstm = params["decoder"], params["decoder"]["lstm"]
    encoder = params["encoder"]
    put(model.encoder_embedding.weight, params["embedding"]["embedding"])
    put(model.embedding.weight, decoder["embedding"]["embedding"])
    put(model.posterior_head.weight, params["posterior_head"]["kernel"].T)
    put(model.first_cell.weight, decoder["first_cell"]["kernel"].T)
    put(model.output.weight, decoder["output"]["kernel"].T)
    inputs = np.concatenate([lstm["input"]["kernel"], lstm["constant"]["kernel"]])
    for module, kernel, source in (
        (model.encoder, encoder["input"]["kernel"], encoder),
        (model.decoder, inputs, lstm),
    ):
        put(module.weight_ih_l0, np.asarray(kernel).T)
        put(module.weight_hh_l0, source["recurrent"].T)
        put(module.bias_ih_l0, source["input"]["bias"])
        module.bias_hh_l0.data.zero_()
        module.bias_hh_l0.requires_grad_(False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--no-compile", action="store_true")
    flags = parser.parse_args()
    batches = prepared_batches(flags.steps)
    tokens = sum(int(batch["length"].sum()) for batch in batches)
    jvae = Jvae(batches)
    variants = (False,) if flags.no_compile else (False, True)
    peers = [Torch(batches, jvae.state.params, compiled) for compiled in variants]
    everyone = [jvae, *peers]

    first = {one.name: one.loss_at_means(batches[0]) for one in everyone}
    turns.check_equal("loss at the same parameters", first, 1e-4)
    losses = {}

    def train(one):
        seconds, found = one.train(flags.steps)
        losses[one.name] = statistics.mean(found)
        return seconds

    def sample(one):
        seconds, count = one.sample(seed=0)
        return seconds / count

    work = {"training": (train, tokens), "sampling": (sample, 1)}
    result = {"tokens_per_round": tokens, "rounds": flags.rounds, "losses": losses}
    for what, (function, amount) in work.items():
        each = {one.name: functools.partial(function, one) for one in everyone}
        turns.in_turns(each, 1)  # compiles
        seconds = turns.in_turns(each, flags.rounds)
        result[what] = turns.compared(what, seconds, amount, "tokens")
    turns.check_equal("mean loss of the last round", losses, SAME_LOSS)
    machine.write("text", {**result, "aim": AIM, "required": REQUIRED})
    return 0 if min(result[w]["ratio"] for w in work) >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
