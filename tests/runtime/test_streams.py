"""Streams that are closed, full or left. Fast: what is started imports no JAX."""

import io
import subprocess
import sys

import pytest

from jvae.runtime import streams


class Full(io.StringIO):
    encoding = "utf-8"

    def __init__(self, error):
        super().__init__()
        self.error, self.tries = error, 0

    def write(self, text):
        self.tries += 1
        raise self.error

    flush = write


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), BrokenPipeError(32, "left"), ValueError("closed")]
)
def test_a_write_that_fails_is_lost_and_no_error(monkeypatch, error):
    full = Full(error)
    monkeypatch.setattr(Full, "flush", lambda self: self.write(""))
    monkeypatch.setattr(sys, "stdout", full)
    with streams.lasting():
        print("lost", flush=True)
        assert sys.stdout.encoding == "utf-8" and not sys.stdout.isatty()
    assert full.tries >= 2 and sys.stdout is full


def test_what_can_be_written_is(capsys):
    with streams.lasting():
        print("out")
        print("err", file=sys.stderr)
    assert capsys.readouterr() == ("out\n", "err\n")


SCRIPT = """
import os, sys
from jvae.runtime import streams
streams.open_closed()
file = open({path!r}, "w")
assert file.fileno() > 2, file.fileno()
with streams.lasting():
    print("a" * 10_000)
    print("b", file=sys.stderr, flush=True)
    sys.stdin.read()
file.write("mine")
"""


@pytest.mark.parametrize(
    "closed",
    ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "| head -c 1"],
)
def test_a_script_goes_on_and_its_files_get_none_of_it(tmp_path, closed):
    file = tmp_path / "file"
    (tmp_path / "script.py").write_text(SCRIPT.format(path=str(file)))
    command = f"{sys.executable} {tmp_path / 'script.py'} {closed}"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert file.read_text() == "mine"


EXEC = """
import os, sys
from jvae.runtime import streams
streams.open_closed()
code = "import os; here = os.path.samestat(os.fstat(2), os.stat(os.devnull)); "
code += "open({path!r}, 'w').write(str(here))"
os.execv(sys.executable, [sys.executable, "-c", code])
"""


def test_a_stream_stays_open_when_the_process_starts_over(tmp_path):
    """As it does for large pages of memory."""
    file = tmp_path / "file"
    (tmp_path / "script.py").write_text(EXEC.format(path=str(file)))
    command = f"{sys.executable} {tmp_path / 'script.py'} 2>&-"
    assert subprocess.run(["bash", "-c", command], timeout=60).returncode == 0
    assert file.read_text() == "True"
