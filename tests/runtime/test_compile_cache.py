"""Compiled programs are kept in a folder of the user's own; damage costs time alone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jvae.runtime import compile_cache
from tests.runs import TIMEOUT

ROOT = Path(compile_cache.__file__).parents[2]
NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """No folder is chosen, and the user's is here; settings are put back."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_a_folder_of_the_user_alone(cache):
    compile_cache.switch_on()
    folder = Path(jax.config.jax_compilation_cache_dir)
    assert folder == compile_cache.cache_folder() and folder.parent == cache / "jvae"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()


def test_the_folder_is_in_the_home_if_nothing_else_is_said(cache, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(cache / "home"))
    assert compile_cache.cache_folder().parent == cache / "home" / ".cache" / "jvae"


def test_other_processors_have_other_folders(cache, monkeypatch):
    here = compile_cache.cache_folder()
    assert compile_cache.cache_folder() == here
    monkeypatch.setattr(compile_cache, "_processor", lambda: "flags : sse2")
    assert compile_cache.cache_folder() != here


def test_a_folder_that_the_user_has_chosen_is_used(cache):
    jax.config.update("jax_compilation_cache_dir", str(cache / "mine"))
    compile_cache.switch_on()
    assert jax.config.jax_compilation_cache_dir == str(cache / "mine")
    assert not (cache / "jvae").exists()


@pytest.mark.parametrize("obstacle", ["file", "file above", "link to nowhere"])
def test_a_folder_that_cannot_be_made_is_no_error(cache, obstacle):
    path = compile_cache.cache_folder()
    if obstacle == "file above":
        path.parent.write_text("")
    else:
        path.parent.mkdir()
        if obstacle == "file":
            path.write_text("")
        else:
            path.symlink_to(cache / "nowhere" / "at all")
    compile_cache.switch_on()
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_may_not_be_written_is_not_used(cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    compile_cache.switch_on()
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_folder_that_others_may_write_is_not_trusted(cache, mode):
    """What lies there is run."""
    compile_cache.cache_folder().mkdir(parents=True)
    compile_cache.cache_folder().chmod(mode)
    compile_cache.switch_on()
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_of_somebody_else_is_not_trusted(cache, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    compile_cache.switch_on()
    assert jax.config.jax_compilation_cache_dir is None


PROGRAM = """
import jax, jax.numpy as jnp
from jvae.runtime import compile_cache
compile_cache.MIN_SECONDS = 0.0
compile_cache.switch_on()
assert jax.config.jax_compilation_cache_dir
x = jnp.linspace(0.0, 1.0, 50)
print(*jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x) + jnp.cumsum(x))(x).tolist())
"""


@pytest.mark.slow
def test_damaged_programs_are_compiled_again(tmp_path):
    kept = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    environment = {**kept, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def run():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**environment, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = run()
    entries = sorted(p for p in tmp_path.rglob("*-cache") if p.is_file())
    assert entries
    for i, entry in enumerate(entries):
        content = entry.read_bytes()
        entry.write_bytes([b"", content[: len(content) // 2], b"garbage"][i % 3])
    assert run() == first
