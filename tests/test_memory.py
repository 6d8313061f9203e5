"""A process on CPU uses its temporary memory again, with the same numbers."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jvae import cli, memory

keep_freed = memory.keep_freed  # tests/conftest.py takes its place in commands

ROOT = Path(memory.__file__).parent.parent
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# A program whose temporary memory, 96 MiB, is more than a heap of a thread may hold.
PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from jvae import memory

told = sys.argv[1] == "keep" and memory.keep_freed()
x = jax.random.normal(jax.random.key(0), (24, 2**20))
step = jax.jit(lambda x: jnp.tanh(x) @ jnp.cos(x).T).lower(x).compile()
assert step.memory_analysis().temp_size_in_bytes >= 96 * 2**20
for _ in range(10):  # until its heap has the largest piece
    jax.block_until_ready(step(x))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    y = jax.block_until_ready(step(x))
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(int(told), faults, *y.ravel().tolist())
"""

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library keeps what it wants"
)


def run(how):
    """Returns (was it told, page faults of three steps, what they compute)."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    told, faults, *values = done.stdout.split()
    return bool(int(told)), int(faults), values


@glibc
@pytest.mark.skipif(
    HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(),
    reason="with pages of 2 MiB there is little to count",
)
def test_temporary_memory_is_used_again():
    told, kept, values = run("keep")
    untold, default, same = run("default")
    assert told and not untold
    assert default > 3 * 96 * 2**20 / 65536  # pages are 64 KiB at most
    assert kept < default / 10
    assert values == same


@pytest.mark.parametrize(
    "asked, plugins, told",
    [
        (None, (), True),
        ("cpu", ("jax_plugins",), True),
        ("cpu,cuda", ("jax_plugins",), True),
        ("cuda,cpu", (), False),
        (None, ("jax_plugins",), False),
        (None, ("libtpu",), False),
    ],
)
def test_only_a_process_that_computes_on_cpu_is_told(monkeypatch, asked, plugins, told):
    settings = []

    def mallopt(*setting):
        settings.append(setting)
        return 1

    config = SimpleNamespace(jax_platforms=asked)
    monkeypatch.setattr(memory, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in plugins)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert keep_freed() is told
    assert len(settings) == (3 if told else 0)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: 1 / 0)
    assert keep_freed() is False


def test_commands_keep_memory(monkeypatch):
    order = []
    monkeypatch.setattr(memory, "keep_freed", lambda: order.append("kept"))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert cli.main(lambda arguments: order.append("run")) == 0
    assert order == ["kept", "run"]
