import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

import jvae
from jvae.commands.main import COMMANDS, command_of, main, run_command, script
from jvae.errors import nearest

ROOT = Path(__file__).parents[2]


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: jvae COMMAND ..."
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [*COMMANDS]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help_and_refuses_an_unknown_flag(name, capsys):
    """In the fast tier, as it is the one run of each command's parser."""
    assert run_command(command_of(name), ["--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: jvae {name}")
    assert run_command(command_of(name), ["--no_such_flag=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jvae: error: flag '--no_such_flag=1' is unknown")


def test_a_word_that_is_given_as_a_flag_is_explained(capsys):
    assert run_command(command_of("export"), ["--workdir=runs/a"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("Give WORKDIR without the flag; see --help.")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no command is given. See --help."),
        (["tran"], "'tran' is not a command. " + nearest("tran", COMMANDS)),
        (["report", "a", "b"], "'report' is now 'compare'"),
        (["refresh"], "'refresh' is now 'recalibrate'"),
    ],
)
def test_another_word_is_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jvae: error: {message}")


def test_every_command_that_the_docs_name_is_there():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    named = set(re.findall(r"(?:^|`)jvae ([a-z]+)", text, re.M))
    assert named <= set(COMMANDS) and len(named) >= 8


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jvae {jvae.__version__}\n"


def test_the_installed_program_is_this_one():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert scripts["jvae"].load() is script


def test_help_imports_nothing_heavy():
    import subprocess

    code = (
        "import sys; from jvae.commands.main import main; main(['--help']);"
        "print(*sorted({'jax', 'numpy', 'orbax'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "\n")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(28, "No space left", "/x/y"), 4, "left (/x/y). Make room."),
        (PermissionError(13, "Denied", "/x"), 4, "Denied (/x). Name a folder that can"),
        (OSError(2, "No such file", "/x"), 4, "(/x). It was there before: was the fol"),
        (OSError(21, "Is a directory", "/x"), 4, "(/x). Remove it: it is a folder"),
        (RuntimeError("can't start new thread"), 6, "no more threads may be started"),
        (MemoryError("6 GiB"), 6, "memory of this machine: 6 GiB. Lower"),
    ],
)
def test_what_the_machine_refuses_is_one_line(capsys, error, status, words):
    def refused(_):
        raise error

    assert run_command(refused, []) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jvae: error: ") and words in line


def test_other_errors_of_python_are_not_hidden():
    def failed(_):
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        run_command(failed, [])
