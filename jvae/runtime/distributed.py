"""Many processes, one run: joining JAX's runtime, and what devices may fail with."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax
import numpy as np

from jvae.errors import ConfigError, DeviceError, JvaeError, first_line, require
from jvae.runtime import aborts

Result = TypeVar("Result")

JOIN_SECONDS, SILENCE_SECONDS, RETRY_SECONDS = 300, 100, 0.5
"""How long others may take to come, or say nothing; how often to look for the first."""
MOST_SECONDS, MOST_PROCESSES = 86_400, 100_000
"""The largest time-out and number of processes; JAX fails on numbers of 10 digits."""
LOST_PROCESS = ("Gloo", "NCCL", "coordination service", "Connection reset by peer")
"""What is in the messages of collectives whose other side is gone."""


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    join_timeout: int = JOIN_SECONDS,
    silence_timeout: int = SILENCE_SECONDS,
) -> None:
    """Joins the run's other processes; before anything else touches a device.

    Without arguments JAX finds out by itself on TPU pods, Slurm, Open MPI and
    Kubernetes. From then on an abort of JAX's, where another process is gone, is an
    exit of one line, see `jvae.runtime.aborts`.

    Args:
      coordinator: 'host:port' of process 0.
      num_processes: of the run.
      process_id: of this process, 0 ... num_processes - 1.
      join_timeout: seconds to wait for the other processes at the start and the end.
      silence_timeout: seconds after which a process that says nothing counts as gone.

    Raises:
      ConfigError: only some of the first three are given, one is out of range, or
        num_processes is another in another process.
      DeviceError: the coordinator cannot be reached, its port is in use, nothing is
        found, or as `check_devices`.
    """
    _check(coordinator, num_processes, process_id, join_timeout, silence_timeout)

    if coordinator is not None and process_id != 0:
        _reach(coordinator, join_timeout)
    elif coordinator is not None:
        _require_free(coordinator)

    aborts.become_device_errors()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=join_timeout,
            heartbeat_timeout_seconds=silence_timeout,
            shutdown_timeout_seconds=join_timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"the processes did not find each other: {first_line(error)}",
            fix="Give --coordinator, --num_processes and --process_id.",
        ) from error

    check_devices()
    told = gathered(num_processes)  # JAX believes process 0
    if len(set(told)) > 1:
        raise ConfigError(
            f"the processes were told different num_processes: {told}",
            fix="Start all with the same.",
        )


def _check(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    join_timeout: int,
    silence_timeout: int,
) -> None:
    """Raises ConfigError for what cannot be right, before anything waits."""
    for name, seconds in (("join", join_timeout), ("silence", silence_timeout)):
        rule = f"be from 1 to {MOST_SECONDS} seconds"
        require(1 <= seconds <= MOST_SECONDS, f"{name}_timeout", rule, seconds)
    if coordinator is None and num_processes is None and process_id is None:
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise ConfigError(
            "coordinator, num_processes and process_id go together",
            fix="Give all three, or none where JAX can find them.",
        )
    rule = f"be from 1 to {MOST_PROCESSES}"
    require(1 <= num_processes <= MOST_PROCESSES, "num_processes", rule, num_processes)
    rule = f"be in 0 ... {num_processes - 1}, below num_processes"
    require(0 <= process_id < num_processes, "process_id", rule, process_id)
    _, _, port = coordinator.rpartition(":")
    is_port = port.isdecimal() and len(port) < 6 and 0 < int(port) < 2**16
    is_address = is_port and coordinator.isascii() and coordinator.isprintable()
    require(is_address, "coordinator", "be 'host:port'", coordinator)


def _reach(coordinator: str, seconds: float) -> None:
    """Opens a socket to the coordinator, as JAX aborts the process if it cannot."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            address = host.strip("[]"), int(port)  # of IPv6 in brackets
            socket.create_connection(address, timeout=5).close()
            return
        except (OSError, UnicodeError) as error:
            if isinstance(error, UnicodeError) or time.monotonic() > end:
                raise DeviceError(
                    f"cannot reach coordinator {coordinator}: {error}",
                    fix="Start process 0 there, and look at names and firewalls.",
                ) from error
        time.sleep(RETRY_SECONDS)


def _require_free(coordinator: str) -> None:
    """Raises DeviceError if something listens to the coordinator's port on this host.

    JAX would listen to it as well, and both would wait for half of the processes.
    """
    port = int(coordinator.rpartition(":")[2])
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except OSError as error:
        raise DeviceError(
            f"port {port} of the coordinator cannot be used: {error.strerror}",
            fix="Look for another process 0, or choose another port.",
        ) from error


def is_initialized() -> bool:
    """Returns whether this process has joined others (or itself alone)."""
    return jax.distributed.is_initialized()


def shut_down() -> None:
    """Leaves the other processes, once all are here."""
    if is_initialized():
        jax.distributed.shutdown()


def is_first() -> bool:
    """Returns whether this process writes logs, metrics and pictures."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def anywhere(value: bool) -> bool:
    """Returns whether `value` holds in any process; all ask at the same place."""
    return any(gathered(value))


def gathered(value: Any) -> list[Any]:
    """Returns a value of each process, in order; all ask at the same place.

    Args:
      value: this process's, such as JSON can hold.
    """
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    blob = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(blob.size, np.int32))
    rows = np.zeros(sizes.max(), np.uint8)
    rows[: blob.size] = blob
    rows = multihost_utils.process_allgather(rows)
    return [json.loads(bytes(row[:n])) for row, n in zip(rows, sizes, strict=True)]


def together(action: Callable[[], Result]) -> Result:
    """Returns action() in each process, once it is done in all of them.

    Raises:
      JvaeError: the action's error; where it came in another process, one with that
        text and exit status.
    """
    result, failure = None, None
    try:
        result = action()
    except JvaeError as error:
        failure = error
    told = gathered(None if failure is None else [failure.exit_code, str(failure)])
    if failure is not None:
        raise failure
    for process, entry in enumerate(told):
        if entry is not None:
            failure = JvaeError(f"process {process}: {entry[1]}")
            failure.exit_code = entry[0]
            raise failure
    return cast(Result, result)


def on_process_zero(action: Callable[[], Any]) -> Any:
    """Returns action() in process 0 and None in the others, once it is done.

    Raises:
      JvaeError: as `together` does.
    """
    return together(lambda: action() if is_first() else None)


def from_first(action: Callable[[], Any]) -> Any:
    """Returns what action() returned in process 0, in all; such as JSON can hold."""
    return gathered(on_process_zero(action))[0]


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """Turns what devices and collectives fail with into a DeviceError of one line."""
    try:
        yield
    except JvaeError:
        raise
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
            raise DeviceError(
                f"too big for the memory of the device: {first_line(error)}",
                fix="Lower data.batch_size or raise accumulate_steps.",
            ) from error
        if any(word in text for word in LOST_PROCESS):
            raise DeviceError(
                f"another process is gone: {first_line(error)}",
                fix="Run the same command again; it goes on from the last checkpoint.",
            ) from error
        raise


def check_devices() -> None:
    """Initialises JAX's backend.

    Raises:
      DeviceError: the platform that was asked for is not there, or processes have
        different numbers of devices.
    """
    try:
        owners = collections.Counter(d.process_index for d in jax.devices())
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "default")
        why = first_line(error) if str(error) else "the plugin is missing"
        raise DeviceError(
            f"no {platforms} devices: {why}",
            where="JAX_PLATFORMS",
            fix="Install it, e.g. pip install 'jax[cuda13]' or 'jax[tpu]', or unset "
            "JAX_PLATFORMS.",
        ) from error
    if len(set(owners.values())) > 1:
        counts = ", ".join(str(owners[i]) for i in sorted(owners))
        raise DeviceError(
            f"the processes have different numbers of devices: {counts}",
            fix="Give each as many as the others.",
        )
