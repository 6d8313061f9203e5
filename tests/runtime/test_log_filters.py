"""What is kept off the screen is Orbax's, and nothing of anybody else."""

import asyncio
import gc
import logging
import sys
import warnings
from types import SimpleNamespace

import pytest
from orbax.checkpoint._src.path import async_path

from jvae.runtime import log_filters


async def theirs():
    """A coroutine of the user's own."""


def coroutine_of_orbax():
    """Returns one that nobody awaits."""
    return async_path.exists(None)


def dropped(make):
    """Returns the warnings of a coroutine that is made and not awaited."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log_filters.background_failures.__wrapped__()
        make()
        gc.collect(1)
    return [str(w.message) for w in caught]


@pytest.fixture(autouse=True)
def hooks(monkeypatch):
    """Leaves the hooks of the process as they were."""
    for owner, name in ((sys, "unraisablehook"), (log_filters.threading, "excepthook")):
        monkeypatch.setattr(owner, name, getattr(owner, name))


def test_only_coroutines_of_orbax_may_be_dropped_without_a_warning():
    assert dropped(coroutine_of_orbax) == []
    (message,) = dropped(theirs)
    assert "coroutine 'theirs' was never awaited" in message


def test_coroutines_within_functions_and_classes_are_known_too():
    names = log_filters._coroutines_of("orbax")
    assert {"exists", "_read_shard", "ArrayHandler.serialize"} <= names
    assert any("<locals>" in name for name in names) and "theirs" not in names


@pytest.mark.parametrize(("make", "is_quiet"), [(coroutine_of_orbax, 1), (theirs, 0)])
def test_an_exception_in_a_dropped_coroutine_of_orbax_is_not_printed(make, is_quiet):
    told = []
    hook = log_filters._filtered(told.append, log_filters._is_abandoned)
    coroutine = make()
    hook(SimpleNamespace(object=coroutine, exc_value=RuntimeWarning("never awaited")))
    coroutine.close()
    assert len(told) == 1 - is_quiet


def never_retrieved(function, *arguments):
    """Returns a record as asyncio logs a future whose exception nobody asked for."""
    try:
        function(*arguments)
    except OSError:
        failure = sys.exc_info()
    words = "Future exception was never retrieved"
    return logging.LogRecord("asyncio", logging.ERROR, "", 0, words, (), failure)


def test_a_failure_in_a_thread_of_orbax_is_not_printed_and_others_are(tmp_path):
    def write():
        (tmp_path / "no" / "file").write_text("")

    class Full:
        def unlink(self):
            write()

        def write_text(self, text):
            write()

    of_orbax = never_retrieved(asyncio.run, async_path.write_text(Full(), ""))
    assert log_filters._is_lost(of_orbax) and not log_filters._is_lost(
        never_retrieved(write)
    )
    assert not log_filters._is_lost(
        logging.LogRecord("asyncio", 40, "", 0, "x", (), None)
    )
