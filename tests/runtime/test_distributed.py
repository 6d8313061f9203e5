"""Errors of devices and processes, as far as one process shows them."""

import socket
import types

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


@pytest.fixture
def abortable(monkeypatch):
    """This process keeps its own handler of aborts."""
    monkeypatch.setattr(distributed.aborts, "become_device_errors", lambda: None)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("h:1", None, None), "go together"),
        ((None, 2, 0), "go together"),
        (("h:1", 2, None), "go together"),
        (("nowhere", 2, 1), "coordinator must be 'host:port', got 'nowhere'"),
        (("h:65536", 2, 1), "coordinator must be 'host:port'"),
        (("h:1", 0, 0), "num_processes must be from 1 to 100000, got 0"),
        (("h:1", 10**9, 0), "num_processes must be from 1 to 100000"),
        (("h:\uff11\uff12", 2, 0), "coordinator must be 'host:port'"),
        (("h:" + "1" * 5000, 2, 0), "coordinator must be 'host:port'"),
        (("\udcff:1", 2, 0), "coordinator must be 'host:port'"),
        (("h:1", 2, 2), "process_id must be in 0 ... 1, below num_processes, got 2"),
        (("h:1", 2, -1), "process_id must be in 0 ... 1"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_at_once(given, text):
    with pytest.raises(ConfigError, match=text) as caught:
        distributed.initialize(*given)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["join_timeout", "silence_timeout"])
def test_a_timeout_is_a_second_to_a_day(name):
    for seconds in (0, 86_401, 10**18):
        with pytest.raises(ConfigError, match=f"{name} must be from 1 to 86400 second"):
            distributed.initialize(**{name: seconds})


def test_where_nothing_tells_jax_about_other_processes_it_says_so(abortable):
    with pytest.raises(DeviceError, match="did not find each other.*--coordinator"):
        distributed.initialize()


def test_a_port_in_use_is_not_shared_with_another_process_0(abortable):
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DeviceError, match=f"port {port} of the coordinator cannot"):
            distributed.initialize(f"127.0.0.1:{port}", 2, 0)


def test_a_coordinator_that_never_comes_is_named_when_the_time_is_over(abortable):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DeviceError, match=f"cannot reach coordinator {address}"):
            distributed.initialize(address, 2, 1, join_timeout=1)


def test_alone_the_first_process_does_everything():
    assert distributed.is_first() and not distributed.is_initialized()
    assert distributed.on_process_zero(lambda: 7) == 7
    distributed.wait_for_all("nobody")
    with pytest.raises(WorkdirError, match="full"):
        distributed.on_process_zero(lambda: (_ for _ in ()).throw(WorkdirError("full")))


def test_alone_there_is_one_value_and_it_comes_back():
    assert distributed.gathered({"a": [1, None]}) == [{"a": [1, None]}]
    assert distributed.from_first(lambda: "b") == "b"
    with pytest.raises(WorkdirError, match="full"):
        distributed.together(lambda: (_ for _ in ()).throw(WorkdirError("full")))


def test_processes_with_other_numbers_of_devices_are_refused(monkeypatch):
    devices = [types.SimpleNamespace(process_index=i) for i in (0, 0, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(DeviceError, match="different numbers of devices: 2, 1"):
        distributed.check_devices()
