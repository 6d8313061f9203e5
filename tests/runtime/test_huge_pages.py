"""Scripts start over with large pages: once, as the same process, and not unasked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jvae.runtime import huge_pages
from tests.runs import TIMEOUT

ROOT = Path(huge_pages.__file__).parents[2]
SCRIPT_FILE = str(ROOT / "train.py")
SCRIPT = """
import json, os, resource, sys
from jvae.runtime import huge_pages
huge_pages.use_large()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
memory = b"x" * (64 << 20)
print(json.dumps({
    "faults": faults() - before, "pid": os.getpid(), "argv": sys.argv,
    "tunables": os.environ.get("GLIBC_TUNABLES"), "starts": os.environ.get("STARTS"),
    "optimize": sys.flags.optimize, "stdin": sys.stdin.read(),
}))
"""
TRACED = "import sys; sys.settrace(lambda *_: None)\n"


@pytest.fixture
def environment(monkeypatch):
    """Nothing is asked for yet; the environment of a process that finds jvae."""
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    monkeypatch.delenv(huge_pages.STARTED_OVER, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def asked(environment, monkeypatch, tmp_path):
    """A system whose large pages are for those who ask; the file that says so."""
    system = tmp_path / "enabled"
    system.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "SYSTEM", system)
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.36")
    monkeypatch.setattr(sys, "argv", [SCRIPT_FILE, "--workdir=here"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", *sys.argv])
    monkeypatch.setattr(sys, "gettrace", lambda: None)  # of a debugger of the tests
    return system


@pytest.fixture
def calls(asked, monkeypatch):
    """The calls of execve, which are not done."""
    done = []
    monkeypatch.setattr(os, "execve", lambda *arguments: done.append(arguments))
    return done


def run(tmp_path, *options, before=""):
    """Returns what SCRIPT printed, as a process; its pid is checked here."""
    script = tmp_path / "script.py"
    script.write_text(before + SCRIPT)
    with subprocess.Popen(
        [sys.executable, *options, str(script), "--a=b c", "--config"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, _ = process.communicate("typed", timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 0
    found = json.loads(out)
    assert found.pop("pid") == process.pid
    assert found["argv"] == [str(script), "--a=b c", "--config"]
    assert found["stdin"] == "typed"
    return found


needs_large_pages = pytest.mark.skipif(
    huge_pages.environment() is None, reason="the system has no large pages to ask for"
)


@needs_large_pages
def test_a_script_has_large_pages_and_is_otherwise_the_same(environment, tmp_path):
    found = run(tmp_path, "-O", "-u")
    assert found["tunables"] == "glibc.malloc.hugetlb=1"
    assert found["optimize"] == 1
    assert found["faults"] < 1_000  # 16,384 pages of 4 KiB


@needs_large_pages
def test_what_else_is_set_for_glibc_stays(environment, monkeypatch, tmp_path):
    monkeypatch.setenv(huge_pages.VARIABLE, "glibc.malloc.arena_max=3")
    found = run(tmp_path)
    assert found["tunables"] == "glibc.malloc.arena_max=3:glibc.malloc.hugetlb=1"
    assert found["faults"] < 1_000


@needs_large_pages
def test_under_a_debugger_it_does_not_start_over(environment, tmp_path):
    found = run(tmp_path, before=TRACED)
    assert found["tunables"] is None and found["faults"] > 10_000


def test_a_variable_that_is_taken_away_does_not_make_it_start_for_ever(
    environment, tmp_path
):
    """As from a program that runs with other rights than its user's."""
    take = f"import os; os.environ.pop({huge_pages.VARIABLE!r}, None)\n"
    count = "os.environ['STARTS'] = os.environ.get('STARTS', '') + 'I'\n"
    found = run(tmp_path, before=take + count)
    assert found["starts"] == ("I" if huge_pages.environment() is None else "II")


def test_it_asks_once_with_the_same_words(calls):
    huge_pages.use_large()
    ((program, words, environment),) = calls
    assert program == sys.executable and words == sys.orig_argv
    changed = {k: v for k, v in environment.items() if os.environ.get(k) != v}
    assert changed == {
        huge_pages.VARIABLE: "glibc.malloc.hugetlb=1",
        "JVAE_STARTED_OVER": "1",
    }
    assert os.environ.keys() <= environment.keys()


@pytest.mark.parametrize("value", ["0", "1", "2"])
def test_the_users_own_setting_stays(calls, monkeypatch, value):
    setting = f"glibc.malloc.check=0:glibc.malloc.hugetlb={value}"
    monkeypatch.setenv(huge_pages.VARIABLE, setting)
    huge_pages.use_large()
    assert not calls and huge_pages.environment() is None


@pytest.mark.parametrize("says", ["[always] madvise never", "always madvise [never]"])
def test_it_asks_only_where_that_changes_something(calls, asked, says):
    asked.write_text(says)
    huge_pages.use_large()
    assert not calls and huge_pages.environment() is None


def test_a_system_without_large_pages(calls, asked):
    asked.unlink()
    huge_pages.use_large()
    assert not calls


@pytest.mark.parametrize("library", ["glibc 2.34", "glibc 1.99", "musl 2.40", "", None])
def test_another_c_library_is_not_asked(calls, monkeypatch, library):
    monkeypatch.setattr(os, "confstr", lambda _: library)
    huge_pages.use_large()
    assert not calls


@pytest.mark.parametrize("library", ["glibc 2.35", "glibc 2.40", "glibc 3.0"])
def test_every_glibc_that_knows_the_setting_is(calls, monkeypatch, library):
    monkeypatch.setattr(os, "confstr", lambda _: library)
    huge_pages.use_large()
    assert len(calls) == 1


def test_a_system_that_does_not_know_its_c_library(calls, monkeypatch):
    def unknown(_):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    huge_pages.use_large()
    assert not calls


def test_the_package_starts_over_as_a_script_does(calls, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", [str(ROOT / "jvae/__main__.py"), "train", "--help"]
    )
    words = ["python", "-u", "-m", "jvae", "train", "--help"]
    monkeypatch.setattr(sys, "orig_argv", words)
    huge_pages.use_large()
    assert [call[1] for call in calls] == [words]


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "jvae.other", "--workdir=here"],
        ["-m", "cProfile", SCRIPT_FILE, "--workdir=here"],
        ["-m", "pdb", SCRIPT_FILE, "--workdir=here"],
        ["-c", f"import runpy; runpy.run_path({SCRIPT_FILE!r})"],
        ["/usr/bin/coverage", "run", SCRIPT_FILE, "--workdir=here"],
        ["other.py", SCRIPT_FILE, "--workdir=here"],
        [SCRIPT_FILE],
        [],
    ],
)
def test_only_a_script_that_python_itself_runs_starts_over(calls, monkeypatch, words):
    """Whatever runs the script would do its own part twice."""
    monkeypatch.setattr(sys, "orig_argv", ["python", *words])
    huge_pages.use_large()
    assert not calls


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_a_script_that_comes_through_a_pipe_is_run_once(environment, source):
    """It could not be read again, and nothing would run."""
    script = "from jvae.runtime import huge_pages as h; h.use_large(); print('runs')"
    done = subprocess.run(
        [sys.executable, source],
        input=script,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stdout == "runs\n"


@pytest.mark.parametrize("watcher", ["gettrace", "getprofile"])
def test_not_while_a_debugger_or_profiler_looks_on(calls, monkeypatch, watcher):
    monkeypatch.setattr(sys, watcher, lambda: print)
    huge_pages.use_large()
    assert not calls


@needs_large_pages
def test_a_python_that_cannot_be_started_goes_on(environment, tmp_path):
    found = run(tmp_path, before="import sys; sys.executable = '/nowhere/python'\n")
    assert found["tunables"] is None and found["faults"] > 10_000


def test_a_python_that_does_not_know_where_it_is(calls, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    huge_pages.use_large()
    assert not calls


@needs_large_pages
@pytest.mark.slow
@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_the_scripts_start_over_before_they_import_anything_heavy(environment, script):
    words = [sys.executable, "-Ximporttime", str(ROOT / script), "--version"]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    imports = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert imports.count("jvae.runtime.huge_pages") == 2 and imports.count("jax") == 1
