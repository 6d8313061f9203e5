"""What a compiled training step sends between devices, read from its HLO."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jvae.pretrained.likelihood import elbo_per_example
from jvae.pretrained.trained_model import TrainedModel
from jvae.runtime import mesh
from jvae.training import assembly, batches
from jvae.training import config as configs
from jvae.training.config_files import experiment_config

OPERATIONS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
SIZES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "f64": 8, "s8": 1, "u8": 1}

ROOT = Path(__file__).parents[2]
ROWS = np.arange(64)


def collectives(text):
    """Returns [(operation, bytes of its results)] of an HLO module."""
    found = []
    for line in text.splitlines():
        names = "|".join(OPERATIONS)
        match = re.search(rf"= (.*?) ({names})(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            size = sum(
                SIZES[kind] * np.prod([int(n) for n in dims.split(",") if n], dtype=int)
                for kind, dims in shapes
            )
            found.append((match[2], int(size)))
    return found


def compiled(tiny, **changes):
    """Returns (the compiled step, its state, a batch) of an experiment."""
    components = assembly.assemble(configs.parse_experiment(tiny | changes))
    state = components.create_state()
    batch = next(batches.training_batches(components, 0))
    step = components.compile_step(state)
    return step.lower(state, batch).compile(), state, batch


def parameter_bytes(state):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params))


@pytest.fixture
def wide(tiny):
    """A model whose parameters outweigh a batch and every scalar."""
    tiny["model"]["hidden"] = [512]
    return tiny


def test_the_reader_of_hlo_counts_what_is_there():
    text = """
  %a = (f32[3,4]{1,0}, f32[]) all-reduce(f32[3,4] %x, f32[] %y), channel_id=1
  ROOT %b = bf16[16]{0} all-gather-start(bf16[2] %z), dimensions={0}
  %c = f32[9] add(f32[9] %all-reduce, f32[9] %y)"""
    assert collectives(text) == [("all-reduce", 52), ("all-gather", 32)]


@pytest.mark.slow
def test_data_parallel_steps_send_the_gradients_once_and_little_else(wide):
    program, state, _ = compiled(wide)
    found = collectives(program.as_text())
    assert {operation for operation, _ in found} == {"all-reduce"}
    sent, size = sum(n for _, n in found), parameter_bytes(state)
    assert size <= sent <= 1.01 * size + 256


@pytest.mark.slow
def test_a_dispatch_of_many_steps_sends_no_more_in_each(wide):
    changes = {"steps_per_dispatch": 2, "log_every_steps": 2, "num_steps": 12}
    changes |= {"eval_every_steps": 6, "checkpoint_every_steps": 4}
    program, state, _ = compiled(wide, **changes)
    found = collectives(program.as_text())  # those of the loop's body, once
    assert {operation for operation, _ in found} == {"all-reduce"}
    assert sum(n for _, n in found) <= 1.01 * parameter_bytes(state) + 256


@pytest.mark.slow
def test_sharded_parameters_are_gathered_and_their_gradients_reduced(wide, monkeypatch):
    """Axis 'params' of 8: no more than a gather and two sums of the parameters."""
    monkeypatch.setattr(mesh, "MIN_SHARDED_SIZE", 1024)
    program, state, batch = compiled(wide, mesh={"data": 1, "params": 8})
    found = collectives(program.as_text())
    sent, size = sum(n for _, n in found), parameter_bytes(state)
    assert any(operation == "all-gather" for operation, _ in found)
    pixels = batch["image"].nbytes * 4
    assert sent <= 4 * size + pixels


@pytest.mark.slow
def test_a_device_holds_its_share_of_parameters_and_moments(wide, monkeypatch):
    monkeypatch.setattr(mesh, "MIN_SHARDED_SIZE", 1024)

    def held(tree):
        return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))

    _, whole, _ = compiled(wide)
    _, shared, _ = compiled(wide, mesh={"data": 1, "params": 8})
    for name in ("params", "opt_state", "ema"):
        one, part = held(getattr(whole, name)), held(getattr(shared, name))
        assert one / 8 <= part < one / 6, name


@pytest.fixture
def hierarchy(monkeypatch):
    """Parts of a small NVAE, its groups in a loop, all its parameters split by 8."""
    monkeypatch.setattr(mesh, "MIN_SHARDED_SIZE", 64)
    changes = {"mesh.data": "1", "mesh.params": "8", "model.blocks": "0"}
    config = experiment_config(str(ROOT / "configs/nvae_digits.py"), changes)
    config["model"]["groups"] = (2,)
    return assembly.assemble(configs.parse_experiment(config))


@pytest.mark.slow
def test_layers_in_a_loop_are_not_split_with_their_parameters(hierarchy):
    """A gather of the parameters, a sum of gradients, statistics of channels."""
    state = hierarchy.abstract_state()
    batch = mesh.put_batch(hierarchy.splits.train.read(ROWS), hierarchy.devices)
    program = hierarchy.compile_step(state).lower(state, batch).compile()
    sent = sum(n for _, n in collectives(program.as_text()))
    assert sent <= 2.2 * parameter_bytes(state)


@pytest.mark.slow
def test_evaluation_does_not_split_layers_with_their_parameters(hierarchy):
    """A gather of the parameters, and what the bound is summed of: pixels, latents."""
    state = hierarchy.abstract_state()
    batch = mesh.put_batch(hierarchy.splits.train.read(ROWS), hierarchy.devices)

    def run(params, collections, image):
        devices, transform = hierarchy.devices, hierarchy.transform
        trained = TrainedModel(hierarchy.model, params, collections, transform, devices)
        each = jax.random.split(jax.random.key(0), ROWS.size)
        x = {"image": trained.prepare(image, each)}
        return trained.run(elbo_per_example, each, x)

    lowered = jax.jit(run).lower(state.params, state.state, batch["image"])
    sent = sum(n for _, n in collectives(lowered.compile().as_text()))
    assert sent <= 1.5 * parameter_bytes(state)
