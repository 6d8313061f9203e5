"""A library that is absent is named with the command that installs it."""

import pytest

from jvae.data.libraries import library
from jvae.errors import ConfigError


def test_a_library_is_imported():
    assert library("json.decoder", "json").JSONDecoder


def test_an_absent_library_is_named():
    with pytest.raises(ConfigError, match=r"Run: pip install 'no-such-thing'"):
        library("no_such_module", "no-such-thing")
