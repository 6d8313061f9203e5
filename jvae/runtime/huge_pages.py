"""Memory in pages of 2 MiB in place of 4 KiB.

XLA takes a program's temporary memory anew at every call, and glibc takes pieces of
more than 32 MiB from the system each time, which clears every page at its first use:
a seventh of a convolutional VAE's step (docs/performance.md, "Memory on CPU"). glibc
asks for large pages if a variable of the environment says so when a process starts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb"
SINCE = (2, 35)
"""The version of glibc that knows the setting."""
STARTED_OVER = "JVAE_STARTED_OVER"
MODULE = "jvae"
SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_large() -> None:
    """Starts the script over with large pages, where that helps.

    A script calls it before it imports anything heavy. It stays the same process with
    the same arguments, so that whoever has started it notices nothing but some 20 ms.
    Nothing happens where `environment` says so, or a debugger or profiler looks on.
    """
    asking = environment()
    if asking is None or STARTED_OVER in os.environ or not _is_plain_script():
        return
    asking[STARTED_OVER] = "1"  # setuid programs lose the variable, and would go on
    try:
        os.execve(sys.executable, sys.orig_argv, asking)
    except OSError:
        return  # as it was before, only slower


def environment() -> dict[str, str] | None:
    """Returns the environment of a process with large pages.

    None where nothing is to be changed: the user has said how glibc is to do this,
    another C library is used, or the system gives large pages to all or to nobody.
    """
    tunables = os.environ.get(VARIABLE, "")
    if SETTING in tunables or not _must_be_asked_for():
        return None
    setting = f"{SETTING}=1"
    return {**os.environ, VARIABLE: f"{tunables}:{setting}" if tunables else setting}


def _must_be_asked_for() -> bool:
    """Returns whether large pages are there for those who ask, and glibc can ask."""
    try:
        is_for_asking = "[madvise]" in SYSTEM.read_text()
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        return False
    is_new = [int(n) for n in version.split(".") if n.isdigit()] >= list(SINCE)
    return is_for_asking and name == "glibc" and is_new


def _is_plain_script() -> bool:
    """Returns whether `python [options] FILE ...` runs and nothing watches it.

    Or `python [options] -m jvae ...`.
    """
    if sys.gettrace() or sys.getprofile() or not sys.executable:
        return False
    words = sys.orig_argv[1:]
    options = words[: len(words) - len(sys.argv)]
    rest = words[len(options) :]
    if options[-1:] == ["-m"]:
        is_whole = rest == [MODULE, *sys.argv[1:]]
    else:  # stdin could not be read again
        is_whole = rest == sys.argv and Path(sys.argv[0]).is_file()
    return is_whole and all(word.startswith("-") for word in options)
