"""Values and seeds in sequence, and a table of how far their results spread."""

import csv
import itertools
import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from jvae.commands.main import main
from jvae.errors import ConfigError
from jvae.reports import run as reports_run
from jvae.sweeps import grid as trials
from jvae.sweeps import table as tables
from jvae.sweeps.sweep import OUTCOME_FILE, Outcome, Sweep
from jvae.training import experiment
from jvae.workdir import metrics as writers
from tests.runs import Command, assert_same_run, steps, write_config

ROOT = Path(__file__).parents[2]
FEW = ["--num_samples=2", "--num_examples=64", "--num_images=4", "--batch_size=64"]
BETAS = ["--seeds=2", "--set=loss.beta=0.5,4", *FEW]


class Interrupted(Exception):
    pass


FUNCTIONS = {"run": (experiment, "run"), "evaluate": (reports_run, "evaluate_run")}


def status(*arguments):
    """Runs the command in this process; returns its exit status."""
    return main(["sweep", *map(str, arguments)])


def counted(patch, name):
    """Returns the list of the workdirs that a function of FUNCTIONS is called with."""
    calls, function = [], getattr(*FUNCTIONS[name])

    def call(*args, **options):
        workdir = args[1] if name == "run" else args[0]
        calls.append("/".join(Path(workdir).parts[-2:]))
        return function(*args, **options)

    patch.setattr(*FUNCTIONS[name], call)
    return calls


def crash_at(patch, folder, step):
    """Makes a run end with an exception when it writes the numbers of a step."""
    write = writers.MetricsWriter.write

    def crashing(self, now, split, metrics):
        write(self, now, split, metrics)
        if folder in str(self._file) and now >= step:
            raise Interrupted

    patch.setattr(writers.MetricsWriter, "write", crashing)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The tiny config as a file."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("config")
    return write_config(folder, TINY | {"num_steps": 6, "checkpoint_every_steps": 2})


@pytest.fixture(scope="module")
def swept(file, tmp_path_factory):
    """Two values, two seeds, a crash in the third run: (workdir, calls after it)."""
    root = tmp_path_factory.mktemp("sweep") / "betas"
    command = (f"--config={file}", *BETAS, f"--workdir={root}")
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, "loss.beta=0.5/seed=1", 4)
        with pytest.raises(Interrupted):
            status(*command)
    with pytest.MonkeyPatch.context() as patch:
        calls = {name: counted(patch, name) for name in ("run", "evaluate")}
        assert status(*command) == 0
    return root, calls


def results_of(run):
    (file,) = run.glob("evaluation/*/results.json")
    return json.loads(file.read_text())["metrics"]


def test_a_sweep_of_one_run_leaves_its_results_and_a_table(file, tmp_path, monkeypatch):
    """In the default tier: the command, once."""
    command = [f"--config={file}", "--seeds=1", "--set=loss.beta=0.5", *FEW]
    command += ["--config.num_steps=2", f"--workdir={tmp_path}", "--metrics=elbo,nll"]
    assert status(*command) == 0
    results = results_of(tmp_path / "loss.beta=0.5" / "seed=0")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    found = {row["metric"]: row["median"] for row in rows}
    assert found == {name: results[name]["value"] for name in ("elbo", "nll")}
    calls = counted(monkeypatch, "run")
    assert status(*command) == 0 and calls == []


@pytest.mark.slow
def test_a_restart_repeats_no_finished_run(swept):
    root, calls = swept
    left = ["loss.beta=0.5/seed=1", "loss.beta=4/seed=1"]
    assert calls == {"run": left, "evaluate": left}
    found = {str(p.parent.relative_to(root)) for p in root.glob("*/*/config.json")}
    assert found == {f"loss.beta={b}/seed={s}" for b in ("0.5", "4") for s in (0, 1)}


@pytest.mark.slow
def test_an_interrupted_run_of_a_sweep_goes_on_as_if_nothing_had_happened(
    swept, file, tmp_path
):
    (trial,) = [
        t
        for t in trials.plan(str(file), {"loss.beta": ["0.5"]}, {}, 2)
        if t.name == "loss.beta=0.5/seed=1"
    ]
    experiment.run(trial.config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", swept[0] / trial.name)


@pytest.mark.slow
def test_the_table_has_numpys_quantiles_of_the_results_in_their_units(swept):
    root, _ = swept
    table = json.loads((root / "table.json").read_text())
    rows = {(r["metric"], r["values"]["loss.beta"]): r for r in table["rows"]}
    checked = 0
    for beta in (0.5, 4.0):
        runs = [results_of(root / f"loss.beta={beta:g}/seed={s}") for s in (0, 1)]
        for name, told in runs[0].items():
            row = rows[name, beta]
            numbers = [run[name]["value"] for run in runs]
            wanted = np.quantile(numbers, [0.5, 0.25, 0.75, 0.0, 1.0])
            found = [row[statistic] for statistic in tables.STATISTICS]
            np.testing.assert_allclose(found, wanted, rtol=1e-12)
            assert list(row["by_seed"].values()) == numbers
            assert (row["unit"], row["kind"]) == (told["unit"], told["kind"])
            assert (row["seeds"], row["num_seeds"]) == (2, 2)
            checked += 1
    assert checked == len(rows) >= 20


@pytest.mark.slow
def test_the_three_formats_of_the_table_say_the_same(swept):
    root, _ = swept
    rows = json.loads((root / "table.json").read_text())["rows"]
    with (root / "table.csv").open() as lines:
        from_csv = list(csv.DictReader(lines))
    text = (root / "table.md").read_text()
    assert len(rows) == len(from_csv) == text.count("2 of 2")
    for row, other in zip(rows, from_csv, strict=True):
        assert other["metric"] == row["metric"] and other["unit"] == row["unit"]
        assert float(other["loss.beta"]) == row["values"]["loss.beta"]
        for statistic in tables.STATISTICS:
            assert float(other[statistic]) == row[statistic]
        start = f"| {row['metric']} | {row['unit']} | {row['kind']} | "
        start += f"{row['values']['loss.beta']:g} | 2 of 2 | {row['median']:.5g} |"
        assert start in text
    assert "Seeds 0 to 1; test split, at most 64 examples" in text


@pytest.mark.slow
def test_other_questions_to_finished_runs_train_nothing(
    swept, file, monkeypatch, capsys
):
    """A finished sweep again; then more draws, for two metrics of one value."""
    root, _ = swept
    calls = counted(monkeypatch, "evaluate")
    monkeypatch.setattr(
        "jvae.training.train_step.compile_train_step",
        lambda *a, **o: pytest.fail("trained"),
    )
    command = (f"--config={file}", f"--workdir={root}")
    before = (root / "table.json").read_text()
    assert status(*command, *BETAS) == 0
    assert calls == [] and (root / "table.json").read_text() == before
    capsys.readouterr()
    other = ("--seeds=2", "--set=loss.beta=4", *FEW, "--num_samples=3")
    assert status(*command, *other, "--metrics=elbo,nll") == 0
    assert calls == ["loss.beta=4/seed=0", "loss.beta=4/seed=1"]
    table = capsys.readouterr().out
    assert re.findall(r"^\| (\w+) \|", table, re.M) == ["metric", "elbo", "nll"]
    assert status(*command, *other, "--metrics=elbo,nl") == 2
    assert "metric 'nl' is unknown. Did you mean 'nll'?" in capsys.readouterr().err
    assert len(calls) == 2


@pytest.mark.slow
def test_a_folder_of_another_config_is_refused_before_any_run(
    swept, file, tmp_path, monkeypatch, capsys
):
    root, _ = swept
    calls = counted(monkeypatch, "run")
    other = (*BETAS, "--config.model.latent_dim=5")
    assert status(f"--config={file}", f"--workdir={root}", *other) == 4
    assert "model.latent_dim: 3 there, 5 here" in capsys.readouterr().err
    single = root / "loss.beta=4" / "seed=0"
    assert status(f"--config={file}", f"--workdir={single}", *BETAS) == 4
    assert "workdir is that of a single run" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert status(f"--config={file}", f"--workdir={tmp_path / 'file'}", *BETAS) == 4
    assert calls == []


@pytest.mark.slow
def test_a_value_that_diverges_or_fails_does_not_end_the_sweep(
    file, tmp_path, monkeypatch, capsys
):
    """1e30 is no learning rate to live with, 7 images no batch for eight devices."""
    grid = ["--set=optimizer.learning_rate=1e30,0.003", "--set=data.batch_size=7,64"]
    command = [f"--config={file}", "--seeds=1", "--config.max_skips=2", *grid, *FEW]
    command += [f"--workdir={tmp_path}", "--metrics=elbo,kl"]
    assert status(*command) == 2
    said = capsys.readouterr()
    assert "error: 3 of 4 runs have no results, the first data.batch_size=7" in said.err
    table = json.loads((tmp_path / "table.json").read_text())
    rows = [
        (r["values"]["optimizer.learning_rate"], r["values"]["data.batch_size"])
        for r in table["rows"]
        if r["metric"] == "elbo" and r["seeds"] == 1
    ]
    assert rows == [(0.003, 64)] and table["num_waiting"] == 0
    assert len(table["rows"]) == 8 and len(table["failures"]) == 3
    (diverged,) = [text for text in table["failures"] if "diverged: the 2" in text]
    assert "data.batch_size=64__optimizer.learning_rate=1e+30/seed=0" in diverged
    assert "| 1e+30 | 7 | 0 of 1 | none | none to none | none | none |" in said.out
    # What diverged would again, what failed may not: only the latter is tried again.
    calls = counted(monkeypatch, "run")
    assert status(*command) == 2
    assert len(calls) == 2 and all("batch_size=7" in name for name in calls)


def test_a_metric_that_is_not_finite_counts_for_no_seed():
    row = tables.Row({"a": 1}, "elbo", "nats", "bound", "", {1: 3.0, 2: 5.0}, 3)
    assert row.statistics["median"] == 4.0 and row.to_dict()["seeds"] == 2
    table = tables.Table(["a"], [row], "Three seeds", [], 0)
    rows = [line for line in table.markdown.splitlines() if line.startswith("|")]
    assert rows[-1] == "| elbo | nats | bound | 1 | 2 of 3 | 4 | 3.5 to 4.5 | 3 | 5 |"
    assert len({line.count("|") for line in rows}) == 1  # else it is no table


def test_a_table_says_how_many_runs_are_not_finished(file, tmp_path):
    runs = trials.plan(str(file), {"loss.beta": ["0.5", "4"]}, {}, 2)
    begun = Sweep(runs, tmp_path)
    assert "Not finished yet: 4 runs." in begun.table.markdown
    begun.outcomes[runs[0].name] = Outcome("diverged", {}, {}, "diverged", 5)
    assert "Not finished yet: 3 runs." in begun.table.markdown


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--set=loss.bata=1"], "config.loss.bata is unknown. Did you mean 'beta'"),
        (["--set=los.beta=1"], "config.los is unknown. Did you mean 'loss'"),
        (["--set=loss.beta"], "--set loss.beta has no values"),
        (["--set=loss.beta="], "--set loss.beta has no values"),
        (["--set=loss.beta=1,,2"], "--set loss.beta has an empty value, in '1,,2'"),
        (["--set=loss.beta=1,x"], "config.loss.beta must be float >= 0, got 'x'"),
        (["--set=loss.beta=1,1.0"], "the same run twice, loss.beta=1/seed=0"),
        (["--set=loss.beta=1", "--set=loss.beta=2"], "--set loss.beta is given twice"),
        (["--set=seed=1,2"], "--set seed is what --seeds=N does"),
        (["--set=loss.beta=1", "--config.loss.beta=1"], "is set by --set already"),
        (["--config.seed=1"], "--config.seed is set by --seeds already"),
        (["--seeds=0"], "--seeds must be at least 1, got 0"),
        (["--seeds=two"], "argument --seeds: invalid int value: 'two'"),
        (["--num_sampels=2"], "Did you mean '--num_samples'"),
        (["--num_samples=0"], "num_samples must be at least 1"),
        (["--split=tset"], "split must be one of train, validation, test"),
        (["--params=mean"], "params must be one of ema, raw"),
        (["--sets=loss.beta=1"], "Did you mean '--set'"),
    ],
)
def test_a_wrong_sweep_is_one_line_and_exit_2(file, tmp_path, capsys, arguments, words):
    workdir = tmp_path / "sweep"
    assert status(f"--config={file}", f"--workdir={workdir}", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]
    assert not workdir.exists()


def test_what_a_sweep_needs_is_asked_for(file, capsys):
    assert status() == 2 and status(f"--config={file}") == 2
    text = capsys.readouterr().err
    assert "--config is missing" in text and "--workdir is missing" in text
    assert status("--help") == 0
    text = capsys.readouterr().out
    for words in ("--seeds", "--set", "--num_samples", "--config.num_steps  (int"):
        assert words in text


def named(file, **grid):
    return [t.name for t in trials.plan(str(file), grid, {}, 1)]


def test_folders_are_named_after_values_whatever_their_order_or_spelling(file):
    """4, 4.0 and 4e0 are one value; all fields are there, in one order."""
    beta, hidden = "loss.beta", "model.hidden"
    assert named(file) == ["seed=0"]
    assert named(file, **{beta: ["4.0"]}) == named(file, **{beta: ["4e0"]})
    one = named(file, **{beta: ["0.1"], hidden: ["(32, 16)"]})
    assert one == named(file, **{hidden: ["[32,16]"], beta: ["1e-1"]})
    assert one == ["loss.beta=0.1__model.hidden=32-16/seed=0"]


def test_values_that_no_folder_could_be_called_still_have_one_each(file):
    likelihoods = ("bernoulli", {"name": "gaussian", "std": 0.1}, "../../elsewhere")
    fields = ("model.likelihood", "data.transform", "init_from")
    values = itertools.product(
        likelihoods, ("a:b", "a/b", "a b"), (None, "none", "x" * 400)
    )
    names = [
        trials.Trial(dict(zip(fields, v, strict=True)), 0, {}).name for v in values
    ]
    assert len(set(names)) == len(names) == 27
    for name in names:
        folder, _, seed = name.partition("/")
        assert re.fullmatch(r"[\w.=+-]+", folder, re.ASCII) and seed == "seed=0"
        assert len(folder) < 140
    number, alone = (trials.Trial({"model.groups": v}, 0, {}).name for v in (3, [3]))
    assert number == "model.groups=3/seed=0" != alone


def test_commas_in_brackets_and_quotes_divide_no_values():
    texts = trials.split_values("x", "(1,2), 'a,b', {'k': [1, 2]},none")
    assert texts == ["(1,2)", "'a,b'", "{'k': [1, 2]}", "none"]
    with pytest.raises(ConfigError, match="has no values"):
        trials.split_values("x", " ")


@pytest.mark.parametrize("where", ["run", "evaluate"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_where_nothing_is_unsaved_ends_the_sweep_there(
    file, tmp_path, monkeypatch, where, number
):
    """In the last step of a run, which then ends as it would have, and evaluating."""
    reached = []

    def signalled(name):
        def call(*args, **options):
            reached.append(name)
            if name == where:
                signal.raise_signal(number)
                reached.append("after")
            return {"metrics": {}}

        return call

    for name in ("run", "evaluate"):
        monkeypatch.setattr(*FUNCTIONS[name], signalled(name))
    before = signal.getsignal(signal.SIGTERM)
    command = (f"--config={file}", f"--workdir={tmp_path}", *BETAS)
    assert status(*command) == 128 + number
    assert reached == {"run": ["run", "after"], "evaluate": ["run", "evaluate"]}[where]
    assert not list(tmp_path.glob("*/*/outcome.json"))
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_during_a_run_that_then_fails_begins_no_other(
    file, tmp_path, monkeypatch
):
    begun = []

    def failing(config, workdir, stop):
        begun.append(workdir)
        signal.raise_signal(signal.SIGTERM)
        raise ConfigError("too late")

    monkeypatch.setattr(experiment, "run", failing)
    assert status(f"--config={file}", f"--workdir={tmp_path}", *BETAS) == 143
    assert len(begun) == 1


@pytest.mark.proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_run_and_ends_the_sweep(file, tmp_path, number):
    root = tmp_path / "sweep"
    arguments = [f"--config={file}", "--config.num_steps=100000", *BETAS]
    arguments += ["--config.log_every_steps=50", f"--workdir={root}"]
    running = Command("jvae", "sweep", *arguments)
    assert running.wait_for("step 50/"), running.text
    running.send(number)
    assert running.wait() == 128 + number
    assert "run the same command to go on" in running.text
    assert steps(root / "loss.beta=0.5" / "seed=0")
    assert not (root / "loss.beta=4").exists()


@pytest.mark.parametrize("asked", [None, 3, [], {}, {"config": 3}, {"config": {}}])
def test_an_outcome_that_says_nothing_of_its_run_is_none(tmp_path, tiny, asked):
    (trial,) = trials.plan(write_config(tmp_path, tiny), {}, {}, 1)
    sweep = Sweep([trial], tmp_path / "sweep")
    folder = tmp_path / "sweep" / trial.name
    folder.mkdir(parents=True)
    done = {"status": "done", "metrics": {}, "error": "", "exit_code": 0}
    (folder / OUTCOME_FILE).write_text(json.dumps({**done, "asked": asked}))
    assert sweep._stored(trial) is None
    whole = sweep._asked_of(trial)
    (folder / OUTCOME_FILE).write_text(json.dumps({**done, "asked": whole}))
    assert sweep._stored(trial).status == "done"


def test_an_outcome_of_a_run_without_a_rule_counts(tmp_path, tiny):
    """Its config was stored before pictures were read by a rule with a number."""
    tiny["data"] |= {"name": "images", "path": "pictures"}
    (trial,) = trials.plan(write_config(tmp_path, tiny), {}, {}, 1)
    sweep = Sweep([trial], tmp_path / "sweep")
    folder = tmp_path / "sweep" / trial.name
    folder.mkdir(parents=True)
    earlier = json.loads(json.dumps(sweep._asked_of(trial)))
    del earlier["config"]["data"]["rule"], earlier["config"]["max_skips"]
    done = {"status": "done", "metrics": {}, "error": "", "exit_code": 0}
    (folder / OUTCOME_FILE).write_text(json.dumps({**done, "asked": earlier}))
    assert sweep._stored(trial).status == "done"
    earlier["config"]["seed"] = 9
    (folder / OUTCOME_FILE).write_text(json.dumps({**done, "asked": earlier}))
    assert sweep._stored(trial) is None
