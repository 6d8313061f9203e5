"""Flows: what depth costs, and training against the same Glow in plain PyTorch.

1. Compiling the gradient of a level (16 channels at 8x8, hidden 64) at depth 32 against
   depth 4.
2. That gradient with the steps scanned against the same steps written out one by one.
3. Temporary memory of the gradient that goes back through the inverses, less one copy
   of the gradients, at depth 32 against depth 8, by XLA's account.
4. Training images/s of a Glow of 32x32x1 (3 levels of 8 steps, hidden 64, affine,
   batch 64, Adam, gradients clipped), everything of the trainer's step on, against
   PyTorch with fused Adam: eager, channels_last and compiled, the best of which counts.
   Both start from the same parameters, at which their losses are compared, and train in
   turns in one process.

    pip install -e '.[bench]'
    python -m benchmarks.flows [--rounds 15] [--steps 6] [--no-compile]
"""

import argparse
import functools
import math
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import machine, turns
from benchmarks.peers import glow as peer
from jvae import models
from jvae.flows import Chain, GlowSteps
from jvae.models.flow import scaled
from jvae.runtime import mesh
from jvae.training import assembly
from jvae.training import config as configs

BATCH, SIZE, LEVELS, DEPTH, HIDDEN = 64, 32, 3, 8, 64
LIMITS = {
    "compile_ratio": ("at most", 1.5),
    "scanned_speed": ("at least", 0.5),
    "memory_growth": ("at most", 1.10),
    "training": ("at least", 0.7),
}


def level(depth, remat="couplings"):
    """(steps, parameters, maps) of one level."""
    steps = GlowSteps(16, depth, hidden=HIDDEN, remat=remat)
    x = jax.random.normal(jax.random.key(0), (BATCH, 8, 8, 16))
    return steps, steps.init(jax.random.key(0), x), x


def objective(forward, variables, x):
    """Returns the mean of -log p of maps."""
    z, log_det = forward(variables, x)
    return (0.5 * jnp.square(z).reshape(len(z), -1).sum(-1) - log_det).mean()


def gradient_of(steps):
    """Returns a jitted (variables, x) -> gradient."""
    return jax.jit(jax.grad(functools.partial(objective, steps.apply)))


def written_out(steps):
    """Returns the gradient of the same steps, each a part of the program of its own."""

    def forward(variables, x):
        chain = Chain([steps.step(jnp.asarray(order)) for order in steps.orders])
        stack = variables["params"]["steps"]
        each = {
            f"parts_{k}": jax.tree.map(lambda a, k=k: a[k], stack)
            for k in range(steps.depth)
        }
        return chain.apply({"params": each}, x)

    return jax.jit(jax.grad(functools.partial(objective, forward)))


def compile_seconds(depth):
    """Returns the median of five compilations, nothing cached."""
    steps, variables, x = level(depth)
    seconds = []
    for _ in range(5):
        jax.clear_caches()
        lowered = gradient_of(steps).lower(variables, x)
        began = time.perf_counter()
        lowered.compile()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def temporary_bytes(depth):
    """Returns temporary bytes of the inverting gradient beyond one copy of it."""
    steps, variables, x = level(depth, "invert")
    compiled = gradient_of(steps).lower(variables, x).compile()
    copy = sum(a.nbytes for a in jax.tree.leaves(variables))
    return compiled.memory_analysis().temp_size_in_bytes - copy


def scanned_speed(rounds, depth=16):
    """Returns seconds of (scanned, written out), medians in turns, and their ratio."""
    steps, variables, x = level(depth)
    both = gradient_of(steps), written_out(steps)
    results = [jax.block_until_ready(f(variables, x)) for f in both]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    seconds = ([], [])
    for _ in range(rounds):
        for function, spent in zip(both, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(function(variables, x))
            spent.append(time.perf_counter() - began)
    ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
    return statistics.median(seconds[0]), statistics.median(seconds[1]), ratio


def config():
    """The Glow that trains, on the bundled digits' pipeline (only its step is run)."""
    return {
        "num_steps": 10,
        "data": {
            "name": "digits",
            "batch_size": BATCH,
            "transform": "levels",
            "padding": (SIZE - 8) // 2,
        },
        "model": {
            "name": "glow",
            "image_shape": (SIZE, SIZE, 1),
            "levels": LEVELS,
            "depth": DEPTH,
            "hidden": HIDDEN,
        },
        "loss": {"name": "elbo"},
        "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip_norm": 100.0},
    }


class Jvae:
    """The trainer's compiled step."""

    name = "jvae"

    def __init__(self, levels):
        self.components = assembly.assemble(configs.parse_experiment(config()))
        self.state = self.components.create_state()
        self.step = self.components.compile_step(self.state)
        inner = levels[:, 12:20, 12:20].astype(np.uint8)
        batch = {"image": inner, "label": np.zeros(BATCH, np.int32)}
        batch["mask"] = np.ones(BATCH, bool)
        self.batch = mesh.put_batch(batch, self.components.devices)

    def loss(self, levels):
        """Returns the mean -log p of the middles of the levels."""
        model = models.build(**config()["model"])

        def log_p(model, x):
            z, log_det = model.flow.forward(scaled(x, 0.5, 8))
            log_det -= SIZE**2 * math.log(128.0)
            return log_det - 0.5 * (jnp.square(z) + math.log(2 * math.pi)).sum(-1)

        params = {"params": self.state.params}
        return float(-model.apply(params, jnp.asarray(levels), method=log_p).mean())

    def train(self, num_steps):
        """Returns seconds of so many steps."""
        began = time.perf_counter()
        for _ in range(num_steps):
            self.state, _ = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - began


class Torch:
    """The same in PyTorch."""

    def __init__(self, levels, params, orders, how):
        self.name = f"torch {how}"
        self.model = peer.Glow(1, orders, HIDDEN)
        load(self.model, params)
        images = torch.from_numpy(levels.astype(np.float32)).permute(0, 3, 1, 2)
        self.format = torch.contiguous_format
        if how == "channels_last":
            self.format = torch.channels_last
            self.model = self.model.to(memory_format=self.format)
        self.images = images.contiguous(memory_format=self.format)
        self.log_p = torch.compile(self.model) if how == "compiled" else self.model
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)

    def nll(self, u):
        """Returns the mean -log p of levels with u added, in nats of levels."""
        per_image = self.log_p((self.images + u) / 128.0 - 1.0)
        return per_image.mean() + SIZE**2 * math.log(128.0)

    def loss(self, levels):
        """Returns the mean -log p of the middles of the levels."""
        with torch.inference_mode():
            return float(self.nll(0.5))

    def train(self, num_steps):
        """Returns seconds of so many steps."""
        began = time.perf_counter()
        for _ in range(num_steps):
            self.optimizer.zero_grad(set_to_none=True)
            self.nll(torch.rand_like(self.images)).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 100.0)
            self.optimizer.step()
        return time.perf_counter() - began


def load(model, params):
    """Copies parameters of jvae into PyTorch."""

    def put(target, array):
        target.data = torch.from_numpy(np.array(array, np.float32))

    def put_conv(target, source):
        put(target.weight, np.transpose(source["kernel"], (3, 2, 0, 1)))
        put(target.bias, source["bias"])

    def put_norm(target, source):
        put(target.shift, source["shift"])
        put(target.log_scale, source["log_scale"])

    for number, of_level in enumerate(model.levels):
        stack = params[f"steps_{number}"]["steps"]
        for k, (norm, mix, couple) in enumerate(of_level):
            one = jax.tree.map(lambda a, k=k: np.asarray(a[k]), stack)
            put_norm(norm, one["parts_0"])
            for name in ("lower", "upper", "log_diagonal"):
                put(getattr(mix, name), one["parts_1"][name])
            net = one["parts_2"]["net"]
            put_conv(couple.first, net["Conv_0"])
            put(couple.middle.weight, net["Dense_0"]["kernel"].T[:, :, None, None])
            put(couple.middle.bias, net["Dense_0"]["bias"])
            put_conv(couple.last, net["Conv_1"])
    for number, split in enumerate(model.splits):
        put_conv(split.layer, params[f"splits_{number}"]["norm"]["Conv_0"])
    put_norm(model.last, params["last"])


def orders_of(components):
    """Returns the orders of channels of every level."""
    flow = components.model.flow
    channels = [shape[-1] for shape in flow._shapes()]
    return [GlowSteps(c, DEPTH, hidden=HIDDEN).orders for c in channels]


def training(flags):
    """Returns images/s of all, the best of PyTorch and the ratio to it."""
    rng = np.random.default_rng(0)
    levels = np.zeros((BATCH, SIZE, SIZE, 1), np.int32)
    levels[:, 12:20, 12:20] = rng.integers(0, 256, (BATCH, 8, 8, 1))
    jvae = Jvae(levels)
    jvae.state = jvae.state.replace(params=moved(jvae.state.params))
    flow, orders = jvae.state.params["flow"], orders_of(jvae.components)
    hows = ("eager", "channels_last") + (() if flags.no_compile else ("compiled",))
    peers = [Torch(levels, flow, orders, how) for how in hows]
    everyone = [jvae, *peers]
    first = {one.name: one.loss(levels) for one in everyone}
    turns.check_equal("loss at the same parameters", first, 1e-4)
    return turns.training(everyone, flags.steps, flags.rounds, BATCH)


def moved(params):
    """Returns parameters that are not those of the start, where couplings are zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    pairs = zip(leaves, keys, strict=True)
    return jax.tree.unflatten(
        tree, [a + 0.005 * jax.random.normal(k, a.shape) for a, k in pairs]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--no-compile", action="store_true")
    flags = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)

    shallow, deep = compile_seconds(4), compile_seconds(32)
    print(f"compiling a level: depth 4 {shallow:.2f} s, depth 32 {deep:.2f} s")
    scanned, out, speed = scanned_speed(flags.rounds)
    print(f"gradient at depth 16: scanned {scanned:.4f} s, written out {out:.4f} s")
    memory = {depth: temporary_bytes(depth) for depth in (8, 32)}
    print("temporary bytes of the inverting gradient", memory)
    trained = training(flags)
    found = {
        "compile_ratio": deep / shallow,
        "scanned_speed": speed,
        "memory_growth": memory[32] / memory[8],
        "training": trained["ratio"],
    }
    kept = True
    for name, value in found.items():
        word, limit = LIMITS[name]
        holds = value <= limit if word == "at most" else value >= limit
        kept &= holds
        print(f"{name:15} {value:.2f} ({word} {limit}{'' if holds else ': MISSED'})")
    details = {
        "compile_seconds": {"4": shallow, "32": deep},
        "gradient_seconds": {"scanned": scanned, "written_out": out},
        "temporary_bytes": memory,
        "training": trained,
    }
    machine.write("flows", {**found, "limits": LIMITS, "details": details})
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
