"""Memory that a program on CPU keeps, to use it again in its next step."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
from typing import Any

import jax

# Of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER = -1


def keep_freed() -> bool:
    """Tells the C library not to return large pieces of memory to the system.

    XLA takes the temporary memory of a CPU program anew whenever it runs. By default
    glibc gets a piece of more than 32 MiB from the system and returns it at the end,
    and every page is cleared at its first use: a fifth of the processors' time of a
    convolutional VAE's step. Kept in one heap it is used again. The process then keeps
    the most memory that it ever needed at once.

    For the whole process, to be called before JAX computes: threads that have had
    memory keep the heap that they had it from.

    Returns:
      Whether it was told, False where JAX computes on another device (whose programs
      need no such memory, while many threads that read data would share one heap), and
      with another C library.
    """
    if not _computes_on_cpu() or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    told = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER))
    return all(libc.mallopt(*setting) == 1 for setting in told)


def _computes_on_cpu() -> bool:
    """Returns whether JAX will take the CPU, without starting it."""
    settings: Any = jax.config
    if settings.jax_platforms:
        return settings.jax_platforms.split(",")[0] == "cpu"
    return not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))
