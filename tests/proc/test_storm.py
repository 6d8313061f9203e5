"""One interruption storm; `python -m tests.storm` makes many."""

import time

import pytest

from tests.storm import storm

pytestmark = pytest.mark.proc


def test_a_storm_of_signals_changes_nothing(tmp_path):
    assert storm(time.time_ns() % 10_000, tmp_path, num_interruptions=4)
