"""A page that is served by a process of its own, which may reach nothing else."""

import re

import pytest

from tests import runs

GUARD = '''
"""Writes down every address outside this machine that Python is asked to reach."""
import socket, sys

def _guarded(event, arguments):
    if event == "socket.connect":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else ""
    elif event == "socket.getaddrinfo":
        host = arguments[0] or ""
    else:
        return
    if host not in ("", "127.0.0.1", "::1", "localhost", "0.0.0.0"):
        with open({file!r}, "a") as file:
            file.write(f"{{event}} {{host}}\\n")
        raise OSError(f"{{host}} is out of reach")

sys.addaudithook(_guarded)
'''


class Served:
    """A page: its address, its process, and what it wanted from elsewhere."""

    def __init__(self, command, url, strayed):
        self.command, self.url, self.strayed = command, url, strayed

    @property
    def errors(self):
        """What the process wanted outside this machine."""
        return self.strayed.read_text() if self.strayed.exists() else ""


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A short run on the digits."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("explored")
    file = runs.write_config(folder, TINY)
    assert runs.train(file, folder / "run").wait() == 0
    return folder / "run"


@pytest.fixture(scope="session")
def served(run, tmp_path_factory):
    """`jvae explore`, with the network blocked."""
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    folder = tmp_path_factory.mktemp("guard")
    strayed = folder / "strayed"
    (folder / "sitecustomize.py").write_text(GUARD.format(file=str(strayed)))
    command = runs.Command(
        "jvae",
        "explore",
        "--port=0",
        "--no_browser",
        "--num_examples=60",
        str(run),
        PYTHONPATH=str(folder),
    )
    assert command.wait_for("(Ctrl-C ends it)"), command.text
    url = re.search(r"http://127\.0\.0\.1:\d+", command.text)[0]
    yield Served(command, url, strayed)
    command.send(15)
    command.wait()
