"""NVAE: what depth costs, and training against the same cells in plain PyTorch.

1. Seconds to compile a training step at 5, 10 and 30 groups per scale, in turns, and
   of all that comes before.
2. XLA's account of the step's temporary memory, with and without rematerialisation.
3. Training images/s of the MNIST structure (32x32 with padding, 16 channels, 2 and 4
   groups of 20 latents, batch 64, Adamax, spectral penalty, balanced KL), everything of
   the trainer's step on, against PyTorch: eager, channels_last and compiled, the best
   of which counts. All start from the same parameters, at which two numbers are
   compared, the features that the top-down pass makes of the prior's means and the KL
   of the first group, and train in turns.

    pip install -e '.[bench]'
    python -m benchmarks.nvae [--rounds 5] [--steps 3] [--compilations 3] [--no-compile]
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
from torch.nn import functional as F  # noqa: N812

from benchmarks import machine, turns
from benchmarks.peers import nvae as peer
from jvae.runtime import mesh
from jvae.training import assembly
from jvae.training import config as configs

BATCH, SIDE = 64, 28
LIMITS = {
    "compile_30_to_5": ("at most", 1.3),
    "training": ("at least", 0.5),
}
STRUCTURE = {
    "channels": 16,
    "groups": (2, 4),
    "latent_channels": 20,
    "group_cells": 2,
    "blocks": 2,
    "block_cells": 3,
}


def config(**model):
    """A run of the trainer on the bundled digits' pipeline (only its step is run)."""
    return {
        "num_steps": 1000,
        "data": {
            "name": "digits",
            "batch_size": BATCH,
            "transform": "binarize",
            "padding": (SIDE - 8) // 2,
        },
        "model": {
            "name": "nvae",
            "image_shape": (SIDE, SIDE, 1),
            "padding": 2,
            **STRUCTURE,
            **model,
        },
        "loss": {"name": "hierarchical_elbo", "smoothness": 0.01},
        "schedules": {"beta": {"name": "linear", "steps": 300, "floor": 1e-4}},
        "optimizer": {
            "name": "adamax",
            "learning_rate": 1e-3,
            "eps": 1e-3,
            "weight_decay": 3e-4,
            "decayed": "all",
        },
    }


def raw_batch():
    """Random digits, as the data set stores them."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (BATCH, 8, 8, 1)).astype(np.uint8)
    return {"image": image, "label": np.zeros(BATCH, np.int32)}


def lowered_step(**model):
    """Returns the training step of this model, lowered."""
    components = assembly.assemble(configs.parse_experiment(config(**model)))
    state = components.create_state()
    batch = mesh.put_batch(raw_batch(), components.devices)
    return components.compile_step(state).lower(state, batch)


def growth(rounds):
    """Returns {groups: {'to_lower', 'to_compile': s}}, and how 30 compare with 5.

    Lowering is all that comes before: building, the first state, tracing. Programs are
    compiled in turns.
    """
    lowered, found = {}, {}
    for groups in (5, 10, 30):
        began = time.perf_counter()
        lowered[groups] = lowered_step(groups=(groups, groups), channels=4)
        found[groups] = {"to_lower": time.perf_counter() - began}

    def compiled(groups):
        jax.clear_caches()
        began = time.perf_counter()
        lowered[groups].compile({})  # options, even none, mean another program
        return time.perf_counter() - began

    work = {groups: functools.partial(compiled, groups) for groups in lowered}
    seconds = turns.in_turns(work, rounds)
    for groups, spent in seconds.items():
        found[groups]["to_compile"] = statistics.median(spent)
        print(f"{groups} groups: {found[groups]}", flush=True)
    pairs = zip(seconds[30], seconds[5], strict=True)
    return found, statistics.median(deep / shallow for deep, shallow in pairs)


def temporary_bytes():
    """Returns temporary bytes of the step by what is kept."""
    found = {}
    for remat in ("none", "cells"):
        for features in ("keep", "recompute"):
            step = lowered_step(remat=remat, features=features).compile()
            size = step.memory_analysis().temp_size_in_bytes
            found[f"remat={remat}, features={features}"] = size
            print(f"remat {remat}, features {features}: {size / 2**20:.0f} MiB")
    return found


class Jvae:
    """The trainer's compiled step."""

    name = "jvae"

    def __init__(self):
        self.components = assembly.assemble(configs.parse_experiment(config()))
        state = self.components.create_state()
        self.state = state.replace(params=moved(state.params))
        self.batch = mesh.put_batch(raw_batch(), self.components.devices)
        self.step = self.components.compile_step(self.state)

    def outputs(self, x):
        """Returns (logits of the prior's means, mean KL of the first group)."""
        model = self.components.model
        variables = {"params": self.state.params, **self.state.state}

        def both(model, x, key):
            prior = model.likelihood(model.sample_prior(key, len(x), 0.0), {})
            return prior.logits, model.infer({"image": x}, key).kl[:, 0].mean()

        args = (jnp.asarray(x), jax.random.key(0))
        logits, kl = model.apply(variables, *args, method=both)
        return np.asarray(logits), float(kl)

    def train(self, num_steps):
        """Returns seconds of so many steps."""
        began = time.perf_counter()
        for _ in range(num_steps):
            self.state, _ = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - began


class Torch:
    """The same in PyTorch."""

    def __init__(self, params, stats, how):
        self.name = f"torch {how}"
        s = STRUCTURE
        self.model = peer.NVAE(
            SIDE + 4,
            s["channels"],
            s["groups"],
            s["latent_channels"],
            s["group_cells"],
            s["blocks"],
            s["block_cells"],
        )
        load(self.model, params)
        self.format = torch.contiguous_format
        if how == "channels_last":
            self.format = torch.channels_last
            self.model = self.model.to(memory_format=self.format)
        self.run = torch.compile(self.model) if how == "compiled" else self.model
        self.smoothness = peer.Smoothness(self.model)
        self.optimizer = torch.optim.Adamax(
            self.model.parameters(), 1e-3, eps=1e-3, weight_decay=3e-4, foreach=True
        )
        pixels = raw_batch()["image"].astype(np.float32) / 255.0
        edge = (SIDE - 8) // 2
        pixels = np.pad(pixels, ((0, 0), (edge,) * 2, (edge,) * 2, (0, 0)))
        self.intensity = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def outputs(self, x):
        """Returns (logits of the prior's means, mean KL of the first group)."""
        x = F.pad(torch.from_numpy(np.array(x)).permute(0, 3, 1, 2), (2, 2, 2, 2))
        self.model.eval()
        with torch.inference_mode():
            logits, _ = self.model(x, use_prior=True)
            _, kl = self.model(x)
        self.model.train()
        inside = logits[:, :, 2:-2, 2:-2].permute(0, 2, 3, 1)
        return inside.numpy(), float(kl[:, 0].mean())

    def train(self, num_steps):
        """Returns seconds of so many steps."""
        weights = torch.tensor([1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
        began = time.perf_counter()
        for _ in range(num_steps):
            self.optimizer.zero_grad(set_to_none=True)
            x = torch.bernoulli(self.intensity)
            padded = F.pad(x, (2, 2, 2, 2)).contiguous(memory_format=self.format)
            logits, kl = self.run(padded)
            inside = logits[:, :, 2:-2, 2:-2]
            loss = F.binary_cross_entropy_with_logits(inside, x, reduction="sum")
            share = (kl.detach().abs().mean(0) + 0.01) / weights
            balanced = (kl * (share / share.mean())).sum()
            loss = (loss + 0.1 * balanced) / BATCH + 0.01 * self.smoothness()
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - began


def moved(params):
    """Returns parameters that are not those of the start."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    pairs = zip(leaves, keys, strict=True)
    return jax.tree.unflatten(
        tree, [a + 0.02 * jax.random.normal(k, a.shape) for a, k in pairs]
    )


def load(model, params):
    """Copies parameters of jvae into PyTorch."""
    take = {name: params[name] for name in ("stem", "top", "head")}
    for name, source in take.items():
        fill(getattr(model, name), source)
    for name in ("before", "halvings", "doublings", "after"):
        for i, cell in enumerate(getattr(model, name)):
            fill(cell, params[f"{name}_{i}"])
    model.start.data = tensor(params["start"].transpose(2, 0, 1))
    for n, (up, groups) in enumerate(zip(model.up, model.groups, strict=True)):
        source = params[f"scales_{n}"]
        for i, group in enumerate(up):
            for j, cell in enumerate(group):
                fill(cell, at(source["up"][f"cells_{j}"], i))
        for i, group in enumerate(groups):
            is_first = n == 0 and i == 0
            of_group = (
                source["first"] if is_first else at(source["groups"], i - (n == 0))
            )
            for name in ("prior_head", "combine", "posterior_head", "merge"):
                if name in of_group:
                    fill(getattr(group, name), of_group[name])
            for j in range(0 if is_first else STRUCTURE["group_cells"]):
                fill(group.cells[j], of_group[f"cells_{j}"])


def at(tree, i):
    """Returns the i-th of stacked layers."""
    return jax.tree.map(lambda a: a[i], tree)


def tensor(array):
    return torch.from_numpy(np.array(array, np.float32))


def fill(module, source):
    """Copies one layer or cell."""
    if isinstance(module, peer.Conv):
        name = next(n for n in source if n.endswith("kernel"))
        module.kernel.data = tensor(np.transpose(source[name], (3, 2, 0, 1)))
        for name in ("log_gain", "bias"):
            if name in source:
                getattr(module, name).data = tensor(source[name])
    elif isinstance(module, torch.nn.Linear):
        module.weight.data = tensor(np.asarray(source["kernel"]).T)
        module.bias.data = tensor(source["bias"])
    elif isinstance(module, torch.nn.BatchNorm2d):
        inner = source["BatchNorm_0"]
        module.weight.data, module.bias.data = (
            tensor(inner["scale"]),
            tensor(inner["bias"]),
        )
    else:
        for name, child in source.items():
            fill(getattr(module, name), child)


def training(flags):
    """Returns images/s of all, the best of PyTorch and the ratio to it."""
    jvae = Jvae()
    hows = ("eager", "channels_last") + (() if flags.no_compile else ("compiled",))
    peers = [Torch(jvae.state.params, jvae.state.state, how) for how in hows]
    x = np.random.default_rng(1).integers(0, 2, (8, SIDE, SIDE, 1)).astype(np.float32)
    logits, kl = jvae.outputs(x)
    for one in peers:
        others, other_kl = one.outputs(x)
        np.testing.assert_allclose(others, logits, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(other_kl, kl, rtol=1e-3)
    everyone = [jvae, *peers]
    return turns.training(everyone, flags.steps, flags.rounds, BATCH)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--compilations", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--only-training", action="store_true")
    flags = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)

    trained = training(flags)
    if flags.only_training:
        return 0
    (seconds, ratio), temporary = growth(flags.compilations), temporary_bytes()
    found = {"training": trained["ratio"], "compile_30_to_5": ratio}
    kept = True
    for name, value in found.items():
        word, limit = LIMITS[name]
        holds = value <= limit if word == "at most" else value >= limit
        kept &= holds
        print(f"{name:16} {value:.2f} ({word} {limit}{'' if holds else ': MISSED'})")
    details = {"seconds": seconds, "temporary_bytes": temporary, "training": trained}
    machine.write("nvae", {**found, "limits": LIMITS, "details": details})
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
