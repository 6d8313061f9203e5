import re
import subprocess
import sys
from pathlib import Path

import pytest

from jvae import registry
from jvae.commands import evaluate, main, train
from jvae.errors import ConfigError, DataError, JvaeError
from jvae.training import config_files
from jvae.training.config import Experiment
from tests.runs import TIMEOUT
from tests.tiers import others_slow

ROOT = Path(__file__).parents[2]
DIGITS = f"--config={ROOT / 'configs' / 'digits.py'}"


def status(command, *arguments):
    return main.run_command(command, arguments)


@pytest.fixture
def ran(monkeypatch):
    """Catches what train.py would run: (config, workdir)."""
    calls = []
    monkeypatch.setattr("jvae.training.experiment.run", lambda *a: calls.append(a))
    monkeypatch.setattr(
        "jvae.training.experiment.dry_run", lambda c: calls.append((c, None))
    )
    return calls


@pytest.mark.parametrize(
    "text, path, value",
    [
        ("--config.loss.beta=4", ("loss", "beta"), 4.0),
        ("--config.num_steps=7", ("num_steps",), 7),
        ("--config.model.hidden=(32,16)", ("model", "hidden"), (32, 16)),
        ("--config.model.likelihood=gaussian", ("model", "likelihood"), "gaussian"),
        (
            "--config.model.likelihood={'name':'gaussian','std':0.1}",
            ("model", "likelihood"),
            {"name": "gaussian", "std": 0.1},
        ),
        ("--config.optimizer.clip_norm=none", ("optimizer", "clip_norm"), None),
        ("--config.model.hidden=512", ("model", "hidden"), [512]),
        ("--config.model.likelihood=2024", ("model", "likelihood"), "2024"),
        (
            "--config.schedules.beta.name=linear",
            ("schedules", "beta", "name"),
            "linear",
        ),
        ("--config.mesh.params=2", ("mesh", "params"), 2),
        ("--config.data.num_validation=9", ("data", "num_validation"), 9),
        ("--config.model.batch_norm=true", ("model", "batch_norm"), True),
    ],
)
def test_an_override_reaches_the_run(ran, text, path, value):
    model = "--config.model.name=conv" if "batch_norm" in text else "--dry_run"
    assert status(train.command, DIGITS, "--workdir=w", model, text) == 0
    node = ran[0][0]
    for name in path:
        node = node[name]
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config.optimizer.lerning_rate=1"], "Did you mean 'learning_rate'"),
        (["--config.los.beta=1"], "config.los is unknown.*Did you mean 'loss'"),
        (["--config.los.a.beta=1"], "config.los is unknown.*Did you mean 'loss'"),
        (["--config.num_step=1"], "Did you mean 'num_steps'"),
        (["--config.num_steps=1e3"], "config.num_steps must be int >= 0, got '1e3'"),
        (["--config.loss.beta=abc"], "config.loss.beta must be float >= 0, got 'abc'"),
        (["--config.loss.beta=nan"], "loss.beta"),
        (["--config.num_steps=" + "-" * 90_000 + "1"], "num_steps must be int"),
        (["--config.num_steps=" + "(" * 90_000], "num_steps must be int"),
        (["--config.seed"], "config.seed has no value"),
        (["stray"], "argument 'stray' is unknown"),
        (["--workdr=x"], "flag '--workdr=x' is unknown.*Did you mean '--workdir'"),
        (["--config.model.likelihood.name=gaussian"], "model.likelihood"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(capsys, arguments, words):
    arguments = [DIGITS, "--workdir=unused", *arguments]
    assert status(train.command, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("jvae: error: ")
    assert re.search(words, lines[0])


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "--config is missing"),
        ([DIGITS], "--workdir is missing"),
        (["--config=missing.py", "--workdir=w"], "missing.py does not exist"),
    ],
)
def test_what_is_needed_is_asked_for(capsys, arguments, words):
    assert status(train.command, *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_config_file_may_take_an_argument(ran, tmp_path):
    file = tmp_path / "sized.py"
    text = "def get_config(size='8'):\n    return {'seed': int(size)}"
    file.write_text(text)
    for path, seed in ((file, 8), (f"{file}:64", 64)):
        assert status(train.command, f"--config={path}", "--workdir=w") == 0
        assert ran[-1][0] == {"seed": seed}


@pytest.mark.parametrize(
    "text, words",
    [
        ("def get_config(:", "fails"),
        ("import no_such_module", "fails: ModuleNotFoundError: No module named"),
        ("x = 1", "has no get_config"),
        ("def get_config():\n    return {}['x']", "fails: KeyError: 'x'"),
        ("def get_config():\n    return unknown", "fails: NameError: name 'unknown'"),
        ("def get_config():\n    return 1 / 0", "fails: ZeroDivisionError"),
        ("def get_config():\n    return get_config()", "fails: RecursionError"),
        ("raise SystemExit(0)", "fails: SystemExit: 0"),
        ("def get_config():\n    pass", "must return a dict, got NoneType"),
    ],
)
def test_a_broken_config_file_is_named(capsys, tmp_path, text, words):
    file = tmp_path / "broken.py"
    file.write_text(text)
    assert status(train.command, f"--config={file}", "--workdir=w") == 2
    error = capsys.readouterr().err
    assert "broken.py" in error and words in error


def test_the_exit_status_is_that_of_the_error(capsys):
    for error in (DataError("a"), ConfigError("b"), JvaeError("c")):

        def command(arguments, error=error):
            raise error

        assert status(command) == error.exit_code
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys):
    assert status(train.command, "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_not_hidden():
    def command(arguments):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        status(command)


def test_help_shows_every_field_with_type_value_and_meaning(capsys):
    assert status(train.command, DIGITS, "--help") == 0
    text = capsys.readouterr().out
    for flag in ("--workdir", "--dry_run", "--debug"):
        assert flag in text
    config = config_files.experiment_config(DIGITS.partition("=")[2], {})
    for section in ("data", "model", "loss", "optimizer", "mesh"):
        for name, field in config_files.known_fields(config, [section]).items():
            if name != "name":
                assert f"--config.{section}.{name}  ({field.type_name}, " in text
                assert field.meaning in text
    for name, field in registry.of(Experiment).items():
        assert field.meaning in text, name
    assert "--config.loss.beta  (float >= 0, 1.0)" in text


def test_help_without_a_config_shows_what_all_experiments_have(capsys):
    assert status(train.command, "--help") == 0
    assert "--config.num_steps  (int >= 0, 1000)" in capsys.readouterr().out


def test_help_of_eval_shows_its_settings(capsys):
    assert status(evaluate.command, "--help") == 0
    text = capsys.readouterr().out
    assert "--num_samples" in text and "--split" in text


def test_eval_of_no_run_is_exit_4_and_of_a_wrong_flag_exit_2(capsys, tmp_path, trained):
    assert status(evaluate.command, f"--workdir={tmp_path}") == 4
    assert status(evaluate.command, f"--workdir={trained}", "--step=77") == 4
    assert "There are" in capsys.readouterr().err
    for step in ("\u00b2", "9" * 5000):
        assert status(evaluate.command, f"--workdir={trained}", f"--step={step}") == 4
    for wrong in ("--num_sampels=3", "--num_samples=x", "--config.model.latent_dim=1"):
        assert status(evaluate.command, f"--workdir={trained}", wrong) == 2


def test_eval_finds_the_data_where_it_is_told(monkeypatch, trained):
    seen = {}
    monkeypatch.setattr("jvae.reports.run.evaluate_run", lambda w, **o: seen.update(o))
    arguments = [f"--workdir={trained}", "--config.data.path=/here", "--num_samples=5"]
    assert status(evaluate.command, *arguments) == 0
    assert seen["data_fields"] == {"path": "/here"} and seen["num_samples"] == 5


def test_fields_of_data_have_the_type_of_the_data_set():
    config = {"data": {"name": "images", "path": "old", "batch_size": 8}}
    given = {"path": "2024", "height": "12", "test_fraction": 0.5}
    found = config_files.with_data_fields(config, given)
    assert (found["path"], found["height"], found["test_fraction"]) == ("2024", 12, 0.5)
    assert config["data"]["path"] == "old"
    npz = config_files.with_data_fields(config, {"path": "x", "name": "npz"})
    assert npz["name"] == "npz"
    with pytest.raises(ConfigError, match="config.data.height must be .*'tall'"):
        config_files.with_data_fields(config, {"height": "tall"})


def test_a_data_set_that_is_not_there_is_exit_3(capsys, tmp_path):
    override = ["--config.data.name=idx", f"--config.data.path={tmp_path / 'no'}"]
    arguments = [DIGITS, f"--workdir={tmp_path / 'w'}", *override]
    assert status(train.command, *arguments) == 3
    assert str(tmp_path / "no") in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("script", others_slow(["train.py", "eval.py"], "eval.py"))
def test_the_scripts_answer_help(script):
    command = [sys.executable, str(ROOT / script), "--help"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, check=True
    )
    assert script in done.stdout
