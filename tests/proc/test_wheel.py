"""The wheel: what a user of `pip install jvae` has, without this repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from tests.runs import ROOT, write_config

pytestmark = pytest.mark.proc

BUILT_OF = ("jvae", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built of a copy: `build/` may hold modules that are gone."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_OF:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"]
    offline = ["--no-deps", "--no-build-isolation", "-w", str(source / "wheels")]
    subprocess.run([*pip, *offline, str(source)], check=True)
    (file,) = (source / "wheels").glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment that has the wheel.

    Its dependencies are those of this environment, by a .pth file: theirs are not
    read, so an editable jvae is not found. `.ci/run` installs them for real.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    folder = "Scripts" if os.name == "nt" else "bin"
    interpreter = home / folder / "python"
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run(
        [interpreter, "-c", place], check=True, capture_output=True, text=True
    ).stdout.strip()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    pip += ["--python", str(interpreter), "install", "-q", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    with open(f"{site}/dependencies.pth", "w") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    return interpreter


def test_a_run_from_the_wheel_is_trained_evaluated_and_sampled(python, tiny, tmp_path):
    def run(*command):
        done = subprocess.run(
            [python, *command], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    where = run("-c", "import jvae; print(jvae.__file__)").strip()
    assert where.startswith(str(python.parent.parent))
    file = write_config(tmp_path, tiny)
    run("-m", "jvae", "train", f"--config={file}", "--workdir=run")
    run("-m", "jvae", "eval", "--workdir=run", "--num_samples=2")
    (folder,) = (tmp_path / "run" / "evaluation").iterdir()
    assert "data:image/png" in (folder / "report.html").read_text()
    assert "elbo" in json.loads((folder / "results.json").read_text())["metrics"]
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    run("-m", "jvae", "compare", "run", "again", "--out=page.html")
    run("-m", "jvae", "sample", "run", "samples", "--n=3")
    script = python.parent / "jvae"
    help_ = subprocess.run([script, "--help"], check=True, capture_output=True)
    assert b"train" in help_.stdout


def test_the_wheel_is_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "jvae").rglob("*.*")}
    assert {n for n in names if ".dist-info" not in n} == {
        n for n in files if "__pycache__" not in n
    }
