"""Compiled programs kept between runs, so that a rerun starts in seconds."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
from pathlib import Path
from typing import Any

import jax

MIN_SECONDS = 0.03
"""Programs that compile faster are not kept."""
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """Returns the user's folder of compiled programs for this kind of processor.

    One for each, as homes are shared between machines, and XLA's CPU programs use the
    instructions of the processor that compiled them.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kind = hashlib.sha256(f"{platform.machine()} {_processor()}".encode()).hexdigest()
    return Path(home) / "jvae" / f"xla-{kind[:12]}"


def _processor() -> str:
    """Returns what tells processors apart: their instruction sets where known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    flags = (line for line in lines if line.startswith(("flags", "Features")))
    return next(flags, platform.processor())


def switch_on() -> None:
    """Makes JAX keep compiled programs, unless the user has chosen a folder or none.

    The folder is the user's alone: whoever can write there can run code. One that
    cannot be made, or a damaged file in it, costs a compilation and nothing else.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        return
    try:
        path = cache_folder()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = path.stat()
        is_mine = there.st_uid == os.getuid() and not there.st_mode & OTHERS_WRITE
        if not is_mine or not os.access(path, os.W_OK):
            return
    except (OSError, RuntimeError):
        return
    settings.update("jax_compilation_cache_dir", str(path))
    settings.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
