"""Errors of devices and processes, as far as one process shows them."""

import jax
import jax.numpy as jnp
import pytest

from jvae.errors import ConfigError, DeviceError, WorkdirError
from jvae.runtime import distributed


def test_out_of_memory_says_what_to_lower():
    with pytest.raises(DeviceError, match="Lower data.batch_size") as caught:
        with distributed.device_errors():
            jnp.zeros(int(1e13)).block_until_ready()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 6


@pytest.mark.parametrize(
    "text",
    [
        "Gloo all-reduce failed: [pair.cc:538] Read error: Connection reset by peer",
        "UNKNOWN: NCCL operation ncclAllReduce failed: remote process exited",
    ],
)
def test_a_broken_collective_says_that_a_process_is_gone(text):
    with pytest.raises(DeviceError, match="another process is gone: .*goes on from"):
        with distributed.device_errors():
            raise jax.errors.JaxRuntimeError(text)


@pytest.mark.parametrize(
    "error", [ValueError("no such axis"), WorkdirError("Gloo"), ConfigError("NCCL")]
)
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, distributed.device_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("given", [("h:1", None, None), (None, 2, 0), ("h:1", 2, None)])
def test_half_an_address_is_refused(given):
    with pytest.raises(DeviceError, match="go together"):
        distributed.initialize(*given)


def test_where_nothing_tells_jax_about_other_processes_it_says_so():
    with pytest.raises(DeviceError, match="did not find each other.*--coordinator"):
        distributed.initialize()


def test_a_coordinator_without_port_is_named(monkeypatch):
    with pytest.raises(DeviceError, match="cannot reach coordinator nowhere"):
        distributed.initialize("nowhere", 2, 1)


def test_alone_the_first_process_does_everything():
    assert distributed.is_first() and not distributed.is_initialized()
    assert distributed.on_process_zero(lambda: 7) == 7
    distributed.wait_for_all("nobody")
    with pytest.raises(WorkdirError, match="full"):
        distributed.on_process_zero(lambda: (_ for _ in ()).throw(WorkdirError("full")))
