"""Every test runs on 8 simulated devices, with strict shapes and loud warnings."""

import os
from importlib.metadata import version

# The tests are many small programs that run once: XLA's optimiser would take most of
# their time, its compiler of fusions half of what is left, and splitting a program of
# a few operations among threads a fifth of the rest. Newer versions of XLA cannot leave
# the fusions out, and end at a flag that they do not know.
flags = [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if version("jaxlib").startswith("0.10."):
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# NumPy's threads wait for work by trying again and again, beside those of the tests.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import copy  # noqa: E402
import gc  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

from jvae.runtime import compile_cache  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Hundreds of compiled programs are a large heap: to search it often takes a sixth of
# the time, and there is little to find.
gc.set_threshold(200_000, 10, 10)

pytest_plugins = ["tests.toys"]

ROOT = Path(__file__).parent.parent

# Linux lets a process map 65,530 pieces of memory; a compiled program takes several,
# and the one that finds none left brings the process down.
MAPS, MOST_MAPS = Path("/proc/self/maps"), 20_000
MOST_CACHED = 2**30
"""Bytes of compiled programs, after which the folder begins again."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

TINY = {
    "num_steps": 12,
    "log_every_steps": 2,
    "eval_every_steps": 6,
    "checkpoint_every_steps": 4,
    "ema_decay": 0.9,
    "data": {
        "name": "digits",
        "batch_size": 64,
        "transform": "binarize",
        "num_validation": 80,
    },
    "model": {
        "name": "mlp",
        "image_shape": [8, 8, 1],
        "hidden": [24],
        "latent_dim": 3,
    },
    "loss": {"name": "elbo"},
    "optimizer": {"name": "adam", "learning_rate": 3e-3},
}


def pytest_configure(config):
    """Keeps compiled programs in pytest's cache, for all workers and the next run.

    In a folder for each kind of processor; JAX tells versions and flags apart. A worker
    that reads a program while another writes it compiles it, see setup.cfg.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR") and hasattr(config, "cache"):
        folder = config.cache.mkdir(f"jax-{compile_cache.cache_folder().name}")
        size = sum(file.stat().st_size for file in folder.iterdir())
        if size > MOST_CACHED and not hasattr(config, "workerinput"):
            shutil.rmtree(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_collection_finish():
    """What is imported by now stays: the garbage collector need not look at it."""
    gc.collect()
    gc.freeze()


def drop_programs(most_maps):
    """Drops the compiled programs of this process if they hold more maps than that."""
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > most_maps:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _memory():
    """Two workers stay below 6 GiB: files of tests share few programs."""
    yield
    drop_programs(6_000)


@pytest.fixture(autouse=True)
def _maps():
    """Looks after tests that may have compiled much; to look takes milliseconds."""
    start = time.monotonic()
    yield
    if time.monotonic() - start > 2.0:
        drop_programs(MOST_MAPS)


@pytest.fixture
def tiny():
    """A config that trains in a second on the bundled digits."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run of the tiny config: its workdir."""
    from jvae.training import experiment

    workdir = tmp_path_factory.mktemp("trained") / "run"
    experiment.run(TINY, workdir)
    return workdir


@pytest.fixture(scope="session")
def browser():
    """A Chromium of this machine, without a window; tests are skipped without one."""
    reason = "Playwright is not installed"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    found = os.environ.get("CHROMIUM")
    found = found or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as started:
        options = {"executable_path": found, "args": ["--no-sandbox"]}
        browser = started.chromium.launch(**options)
        yield browser
        browser.close()
