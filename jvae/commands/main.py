"""The program `jvae`: which commands there are, and how each is run.

What is imported at the top is light: a command may start this process over before it
imports JAX, and `jvae --help` never does.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

import jvae
from jvae.errors import (
    AloneError,
    ConfigError,
    DeviceError,
    JvaeError,
    StoppedError,
    WorkdirError,
    nearest,
)
from jvae.runtime import aborts
from jvae.runtime.start import end_process, prepare_process
from jvae.runtime.streams import lasting

NO_THREAD = ("can't start new thread", "cannot join thread before it is started")
"""What Python's RuntimeError says where a process may have no more threads."""
READABLE = "Name a folder that can be read and written."
REMEDIES = {
    errno.ENOSPC: "Make room.",
    errno.EDQUOT: "Make room.",
    errno.ENOENT: "It was there before: was the folder renamed or removed?",
    errno.EISDIR: "Remove it: it is a folder where a file should be.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n).",
}
"""By what the system says; of others `READABLE`."""

Command = Callable[[Sequence[str]], None]

COMMANDS = {
    "train": ("train", "train an experiment, from where it stopped if it was begun"),
    "eval": ("evaluate", "evaluate a run: results.json, images, report.html"),
    "sample": ("sample", "write samples of a trained model as PNG files"),
    "sweep": ("sweep", "train and evaluate many values and seeds, write a table"),
    "export": ("export", "write a model for programs without jvae"),
    "compare": ("compare", "compare evaluated runs on one page"),
    "recalibrate": ("recalibrate", "recompute BatchNorm statistics from samples"),
    "fid": ("fid", "compare two sets of images by their features"),
    "explore": ("explore.command", "move through a latent space in the browser"),
    "prepare": ("prepare", "prepare or convert a TensorFlow data set"),
    "novels": ("novels", "make a data set of sentences from plain text"),
}
"""Name: (module in `jvae.commands`, what it does)."""

RENAMED = {"report": "compare", "refresh": "recalibrate", "evaluate": "eval"}

STARTS_OVER = ("train", "eval")
"""Commands that compute for long: they start over with large pages of memory."""

AGREED = (0, 2, 4, 5, 129, 130, 143)
"""Exit statuses that all processes of a run end with, if one does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `jvae COMMAND ...`; returns the exit status, errors in one line.

    Args:
      arguments: of the command line; None takes those of the process.
    """
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or [""]
    prepare_process(rest, computes_for_long=name in STARTS_OVER)
    if name not in COMMANDS:
        with lasting():
            return _status(_without_command, [name])
    return run_command(command_of(name), rest)


def script() -> None:
    """The program `jvae`: `main`, and the end of the process."""
    end_process(main())


def command_of(name: str) -> Command:
    """Returns the function of a command, a key of `COMMANDS`."""
    module, _ = COMMANDS[name]
    return importlib.import_module(f"jvae.commands.{module}").command


def _without_command(arguments: Sequence[str]) -> None:
    """Answers --help and --version; raises ConfigError for any other word."""
    (word,) = arguments
    if word in ("--help", "-h", "help"):
        lines = [f"  {name:12s} {text}" for name, (_, text) in COMMANDS.items()]
        more = "`jvae COMMAND --help` says what a command takes."
        print("\n".join(["usage: jvae COMMAND ...", "", *lines, "", more]))
    elif word == "--version":
        print(f"jvae {jvae.__version__}")
    elif word in RENAMED:
        raise ConfigError(f"{word!r} is now {RENAMED[word]!r}")
    elif not word:
        raise ConfigError("no command is given", fix="See --help.")
    else:
        raise ConfigError(f"{word!r} is not a command", fix=nearest(word, COMMANDS))


def run_command(command: Command, arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit status, errors in one line.

    Args:
      command: what a module of `jvae.commands` offers by that name.
      arguments: its own, without the name of the program.
    """
    # Heavy imports, which `jvae --help` and what starts over do without.
    from jvae.runtime import compile_cache, distributed

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with lasting():
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("jvae").setLevel(logging.INFO)
        compile_cache.switch_on()
        try:
            status = _status(command, arguments)
        except Exception:  # a bug
            if not distributed.is_initialized():
                raise
            traceback.print_exc()  # as Python would, which would wait for the others
            status = JvaeError.exit_code
    if distributed.is_initialized() and status not in AGREED:
        os._exit(status)  # the others do not come to where JAX would wait for them
    distributed.shut_down()
    return status


def _status(command: Command, arguments: Sequence[str]) -> int:
    """Returns the exit status of a command, whose error it prints."""
    try:
        command(arguments)
        return 0

    except SystemExit as answered:  # --help, --version
        return int(answered.code or 0)

    except StoppedError as stopped:
        print(f"jvae: {stopped}", file=sys.stderr)
        return stopped.exit_code

    except (JvaeError, OSError, MemoryError, RuntimeError) as raised:
        if isinstance(raised, RuntimeError) and not str(raised).startswith(NO_THREAD):
            raise
        if "--debug" in arguments:
            traceback.print_exc()
        error = raised if isinstance(raised, JvaeError) else _explained(raised)
        print(f"jvae: error: {error}", file=sys.stderr)
        aborts.say_no_more()

        if isinstance(error, AloneError):
            sys.stderr.flush()
            os._exit(error.exit_code)
        return error.exit_code

    except KeyboardInterrupt:
        print("jvae: interrupted; run the same command to go on", file=sys.stderr)
        return 130


def _explained(error: Exception) -> JvaeError:
    """Returns what a disk, a folder's rights or a machine's limits refuse, as ours."""
    if isinstance(error, RuntimeError):
        return DeviceError(
            "no more threads may be started",
            fix="Raise the limits on processes or memory (ulimit -u, ulimit -v).",
        )
    if isinstance(error, MemoryError):
        return DeviceError(
            f"too big for the memory of this machine: {error}",
            fix="Lower data.batch_size or the size of the data.",
        )
    assert isinstance(error, OSError)
    return WorkdirError(
        f"a file cannot be read or written: {error.strerror or error}",
        where=str(error.filename or ""),
        fix=REMEDIES.get(error.errno or 0, READABLE),
    )
