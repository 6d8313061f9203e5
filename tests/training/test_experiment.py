import dataclasses
import json
import logging
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from jvae.data import datasets
from jvae.data.datasets.digits import digits
from jvae.data.sources import ArraySource
from jvae.errors import ConfigError, DataError, StoppedError, WorkdirError
from jvae.pretrained import likelihood, restore
from jvae.reports.run import evaluate_run
from jvae.runtime import distributed, mesh
from jvae.training import experiment, loop, train_step, validation
from jvae.training.identity import check_agreement
from jvae.workdir import metadata
from jvae.workdir import metrics as writers
from jvae.workdir.checkpoints import Checkpoints
from tests.runs import arrays, assert_same_run, metrics, steps
from tests.tiers import others_slow


class Interrupted(Exception):
    pass


def test_a_run_leaves_what_it_promises(trained):
    assert json.loads((trained / "config.json").read_text())["num_steps"] == 12
    assert [p.name for p in (trained / "pictures").glob("samples_*")]
    assert list((trained / "tensorboard").glob("events*"))
    train = [r for r in metrics(trained) if r["split"] == "train"]
    assert [r["step"] for r in train] == [2, 4, 6, 8, 10, 12]
    for row in train:
        np.testing.assert_allclose(
            row["elbo"], row["log_likelihood"] - row["kl"], rtol=1e-5
        )
        np.testing.assert_allclose(row["loss"], -row["elbo"], rtol=1e-6)
    validation = [r for r in metrics(trained) if r["split"] == "validation"]
    assert [r["step"] for r in validation] == [6, 12]


@pytest.mark.slow
def test_the_same_seed_repeats_a_run_and_another_does_not(trained, tiny, tmp_path):
    experiment.run(tiny, tmp_path / "again")
    assert_same_run(trained, tmp_path / "again")
    other = {"seed": 1, "num_steps": 2, "eval_every_steps": 0}
    experiment.run(tiny | other, tmp_path / "other")
    assert metrics(trained)[:1] != metrics(tmp_path / "other")[:1]


@pytest.mark.parametrize("steps_to_crash", others_slow([3, 7], 7))
def test_a_crash_between_checkpoints_changes_nothing(
    trained, tiny, tmp_path, monkeypatch, steps_to_crash
):
    logged = []
    write = writers.MetricsWriter.write

    def crashing(self, step, split, metrics):
        write(self, step, split, metrics)
        logged.append(step)
        if step > steps_to_crash:
            raise Interrupted

    monkeypatch.setattr(writers.MetricsWriter, "write", crashing)
    with pytest.raises(Interrupted):
        experiment.run(tiny, tmp_path)
    monkeypatch.undo()
    experiment.run(tiny, tmp_path)
    assert_same_run(trained, tmp_path)


def test_a_finished_run_says_so_and_changes_nothing(trained, tiny, capsys):
    before = (trained / "metrics.jsonl").read_bytes()
    experiment.run(tiny, trained)
    assert "already at step 12 of 12" in capsys.readouterr().err
    assert (trained / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_run_goes_on_to_more_steps_as_if_they_had_been_asked_for(tiny, tmp_path):
    experiment.run(tiny | {"num_steps": 24}, tmp_path / "whole")
    experiment.run(tiny, tmp_path / "parts")
    experiment.run(tiny | {"num_steps": 24}, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    "section, change",
    [
        ("model", {"hidden": [25]}),
        ("loss", {"beta": 2.0}),
        ("data", {"batch_size": 128}),
        ("optimizer", {"learning_rate": 1e-4}),
    ],
)
def test_another_run_in_the_workdir_is_refused_with_the_difference(
    trained, tiny, section, change
):
    tiny[section] |= change
    (name,) = change
    with pytest.raises(WorkdirError, match=f"{section}.{name}: .* there, .* here"):
        experiment.run(tiny, trained)


def test_a_run_without_a_checkpoint_may_begin_again_as_another(tiny, tmp_path):
    """Its rows go, and a config.json that is damaged is no obstacle."""
    experiment.run(tiny | {"num_steps": 0}, tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "split": "train"}\n')
    experiment.run(tiny | {"seed": 1, "num_steps": 0}, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    assert not metrics(tmp_path)
    (tmp_path / "config.json").write_text("{")
    experiment.run(tiny | {"seed": 2, "num_steps": 0}, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2


@pytest.mark.parametrize("remains", ["checkpoints/4", "best/4.damaged"])
def test_what_may_be_a_checkpoint_keeps_its_config(tiny, tmp_path, remains):
    experiment.run(tiny | {"num_steps": 0}, tmp_path)
    before = (tmp_path / "config.json").read_text()
    (tmp_path / remains).mkdir(parents=True)
    with pytest.raises(WorkdirError, match="seed: 0 there, 1 here"):
        experiment.run(tiny | {"seed": 1}, tmp_path)
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.slow
def test_a_data_set_of_another_size_is_refused_with_both(tiny, tmp_path):
    """The order of the data depends on its size, so the run would not be the same."""
    rows = np.zeros((300, 8, 8, 1), np.uint8)
    files = {"train_images": rows, "test_images": rows[:64]}
    np.savez(tmp_path / "data.npz", **files)
    tiny["data"] |= {"name": "npz", "path": str(tmp_path / "data.npz")}
    experiment.run(tiny | {"num_steps": 4}, tmp_path / "run")
    np.savez(tmp_path / "data.npz", **{**files, "train_images": rows[:299]})
    with pytest.raises(WorkdirError, match="220 training examples there, 219 here"):
        experiment.run(tiny, tmp_path / "run")


@pytest.mark.slow
def other_digits(monkeypatch, seed):
    """Makes the data set 'digits' one of as many other images."""

    def shuffled():
        splits = digits()
        arrays = dict(splits.train.arrays)
        order = np.random.default_rng(seed).permutation(len(splits.train))
        arrays = {name: array[order] for name, array in arrays.items()}
        return dataclasses.replace(splits, train=ArraySource(arrays))

    monkeypatch.setitem(datasets.DATASETS, "digits", shuffled)


def test_as_many_other_examples_are_refused(tiny, trained, tmp_path, monkeypatch):
    copied = shutil.copytree(trained, tmp_path / "run")
    other_digits(monkeypatch, seed=0)
    with pytest.raises(WorkdirError, match="it has as many examples, and others"):
        experiment.run(tiny | {"num_steps": 14}, copied)


@pytest.mark.slow
def test_a_checkpoint_without_digest_compares_sizes_and_warns_once(
    tiny, trained, tmp_path, monkeypatch, caplog
):
    copied = shutil.copytree(trained, tmp_path / "run")
    for file in copied.glob("*/*/meta/metadata"):
        meta = json.loads(file.read_text())
        del meta["data_digest"]
        file.write_text(json.dumps(meta | {"digest": metadata.digest(meta)}))
    with caplog.at_level(logging.WARNING, "jvae"):
        experiment.run(tiny | {"num_steps": 14}, copied)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "jvae"]
    assert "only the number of examples is compared" in line
    other_digits(monkeypatch, seed=0)
    with pytest.raises(WorkdirError, match="it has as many examples, and others"):
        experiment.run(tiny | {"num_steps": 16}, copied)  # which step 14 has stored


@pytest.mark.parametrize("step", others_slow([6, 12], 6))
def test_a_signal_in_a_validation_saves_and_it_is_made_up_for(
    trained, tiny, tmp_path, monkeypatch, step
):
    """Step 12 is the last: the next start has nothing to train, and evaluates."""
    validate = validation.validate
    calls = []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == step // 6:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return validate(*arguments)

    monkeypatch.setattr(validation, "validate", stopped)
    began = time.monotonic()
    with pytest.raises(StoppedError, match=f"SIGTERM at step {step}, checkpoint saved"):
        experiment.run(tiny, tmp_path / "run")
    assert time.monotonic() - began < 60
    assert metrics(tmp_path / "run")[-1]["split"] == "train"
    experiment.run(tiny, tmp_path / "run")
    assert_same_run(trained, tmp_path / "run")
    assert steps(tmp_path / "run", "best") == steps(trained, "best")


def test_a_first_checkpoint_that_cannot_be_read_back_ends_the_run(
    tiny, tmp_path, monkeypatch
):
    read = []

    def unreadable(self, step, like):
        read.append(step)
        raise self._damaged(step, "a data file is missing")

    monkeypatch.setattr(Checkpoints, "restore", unreadable)
    with pytest.raises(WorkdirError, match="checkpoint 4 is damaged") as caught:
        experiment.run(tiny, tmp_path / "run")
    assert caught.value.exit_code == 4 and read == [4]


@pytest.mark.slow
def test_only_the_first_checkpoint_of_a_run_is_read_back(tiny, tmp_path, monkeypatch):
    read = []
    restore = Checkpoints.restore

    def counted(self, step, like):
        read.append(step)
        return restore(self, step, like)

    monkeypatch.setattr(Checkpoints, "restore", counted)
    experiment.run(tiny | {"num_steps": 8}, tmp_path / "run")
    assert read == [4]
    experiment.run(tiny, tmp_path / "run")
    assert read == [4, 8]  # which it went on from


@pytest.mark.parametrize("what", ["renamed", "removed", "replaced"])
def test_a_folder_that_is_no_longer_the_runs_is_noticed_and_nothing_made_in_its_place(
    tiny, tmp_path, monkeypatch, what
):
    """At the next row, here that of step 4."""
    workdir = tmp_path / "run"
    write = writers.MetricsWriter.write

    def meddled(self, step, split, metrics):
        write(self, step, split, metrics)
        if step == 2:
            if what == "removed":
                shutil.rmtree(workdir)
            else:
                workdir.rename(tmp_path / "elsewhere")
            if what == "replaced":
                workdir.mkdir()
                (workdir / ".lock").write_text("{}")

    monkeypatch.setattr(writers.MetricsWriter, "write", meddled)
    with pytest.raises(WorkdirError, match="renamed, removed or taken over") as caught:
        experiment.run(tiny, workdir)
    assert caught.value.exit_code == 4
    left = sorted(p.name for p in workdir.rglob("*")) if workdir.exists() else []
    assert left == ([".lock"] if what == "replaced" else [])


@pytest.mark.parametrize("name", ["run[1]", "a*b", "what?", "back\\slash", "x/[y]/z"])
def test_a_name_that_checkpoints_cannot_be_read_from_is_refused_at_once(
    tiny, tmp_path, name
):
    with pytest.raises(WorkdirError, match="could not be read again") as caught:
        experiment.run(tiny, tmp_path / name)
    assert caught.value.exit_code == 4 and list(tmp_path.iterdir()) == []


def test_processes_that_differ_are_told_in_which_fields(monkeypatch):
    mine = {"jvae": "1", "optimizer": {"learning_rate": 0.1}, "seed": 0}
    other = {"jvae": "1", "optimizer": {"learning_rate": 0.2}, "seed": 0}
    monkeypatch.setattr(distributed, "gathered", lambda value: [value, mine, other])
    with pytest.raises(ConfigError, match="process 2 .*learning_rate: 0.2 there, 0.1"):
        check_agreement(mine)
    monkeypatch.setattr(distributed, "gathered", lambda value: [value, mine])
    check_agreement(mine)


def test_a_half_written_last_line_of_metrics_is_mended(trained, tiny, tmp_path):
    experiment.run(tiny | {"num_steps": 8}, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "spl')
    experiment.run(tiny, tmp_path)
    assert [r for r in metrics(tmp_path) if r["split"] == "train"] == [
        r for r in metrics(trained) if r["split"] == "train"
    ]


@pytest.mark.slow
def test_saving_does_not_disturb_training(trained, tiny, tmp_path):
    experiment.run(tiny | {"checkpoint_every_steps": 1}, tmp_path)
    assert_same_run(trained, tmp_path)


@pytest.mark.slow
def test_the_checkpoint_holds_the_state_of_its_step(tiny, tmp_path):
    tiny["keep_checkpoints"] = 9
    experiment.run(tiny, tmp_path / "long")
    experiment.run(tiny | {"num_steps": 8}, tmp_path / "short")
    long, short = arrays(tmp_path / "long", 8), arrays(tmp_path / "short", 8)
    for path, value in short.items():
        np.testing.assert_array_equal(value, long[path], err_msg=path)


def test_best_is_the_step_with_the_highest_validation_elbo(trained):
    measured = {
        r["step"]: r["elbo"] for r in metrics(trained) if r["split"] == "validation"
    }
    best = restore.restore(trained, step="best")
    assert best.step == max(measured, key=measured.get)


def test_the_best_stays_when_later_checkpoints_push_it_out(tiny, tmp_path, monkeypatch):
    scripted(monkeypatch, [-1.0, -5.0, -9.0])
    tiny |= {"eval_every_steps": 4, "keep_checkpoints": 1}
    experiment.run(tiny, tmp_path)
    assert restore.restore(tmp_path, step="best").step == 4
    assert restore.restore(tmp_path, step="last").step == 12


def scripted(monkeypatch, elbos):
    """Makes the evaluations of training return these ELBOs."""
    values, original = iter(elbos), likelihood.evaluate_elbo

    def evaluate(*args, **options):
        estimates = original(*args, **options)
        estimates["elbo"] = likelihood.Estimate(next(values), None, 1)
        return estimates

    monkeypatch.setattr(likelihood, "evaluate_elbo", evaluate)


@pytest.mark.slow
def test_an_elbo_that_is_not_finite_is_never_the_best(tiny, tmp_path, monkeypatch):
    scripted(monkeypatch, [float("nan"), -5.0, float("inf")])
    experiment.run(tiny | {"eval_every_steps": 4}, tmp_path)
    assert restore.restore(tmp_path, step="best").step == 8


@pytest.mark.slow
def test_a_run_out_of_patience_ends_that_many_evaluations_after_the_best(
    tiny, tmp_path, monkeypatch, capsys
):
    scripted(monkeypatch, [-9.0, -3.0, -4.0, -5.0, -6.0])
    tiny |= {"eval_every_steps": 2, "num_steps": 40, "patience": 3}
    experiment.run(tiny, tmp_path)
    assert max(r["step"] for r in metrics(tmp_path)) == 10
    assert restore.restore(tmp_path, step="best").step == 4
    assert restore.restore(tmp_path, step="last").step == 10
    experiment.run(tiny, tmp_path)
    assert "already at step 10 of 40" in capsys.readouterr().err


@pytest.mark.slow
def test_every_event_of_a_run_happens_as_often_as_the_config_says(
    tiny, tmp_path, monkeypatch, capsys
):
    """Three epochs of 1,362 images in batches of 64: 22 steps each."""
    counts = {"steps": 0, "saves": 0, "evaluations": 0}

    def counted(name, function):
        def call(*args, **options):
            counts[name] += 1
            return function(*args, **options)

        return call

    compiled = train_step.compile_train_step

    def compile_counted(*args, **options):
        return counted("steps", compiled(*args, **options))

    monkeypatch.setattr(train_step, "compile_train_step", compile_counted)
    save, evaluate = Checkpoints.save, loop.TrainingRun.evaluate
    monkeypatch.setattr(Checkpoints, "save", counted("saves", save))
    monkeypatch.setattr(loop.TrainingRun, "evaluate", counted("evaluations", evaluate))
    scripted(monkeypatch, [-3.0, -4.0, -5.0])
    steps = 3 * -(-(1442 - 80) // 64)
    tiny |= {"num_steps": steps, "eval_every_steps": 22, "log_every_steps": 11}
    experiment.run(tiny | {"checkpoint_every_steps": 33}, tmp_path)
    assert counts == {"steps": 66, "saves": 2 + 1, "evaluations": 3}  # 1: the best
    text = capsys.readouterr().err
    assert text.count("new run in") == 1 and text.count("done at step 66") == 1
    assert [r["step"] for r in metrics(tmp_path) if r["split"] == "train"] == [
        *range(11, 67, 11)
    ]


def test_metrics_have_what_the_last_of_their_updates_was_done_with(tiny, tmp_path):
    """In the default tier: no other run of it anneals anything."""
    annealed = {"beta": {"name": "linear", "end": 1.0, "steps": 100}}
    decayed = {"schedule": "cosine", "decay_steps": 100}
    tiny |= {"schedules": annealed, "num_steps": 4, "eval_every_steps": 0}
    tiny["optimizer"] |= decayed
    experiment.run(tiny, tmp_path)
    rows = [row for row in metrics(tmp_path) if row["split"] == "train"]
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        done = row["step"] - 1
        assert row["beta"] == pytest.approx(done / 100)
        rate = 3e-3 * 0.5 * (1.0 + np.cos(np.pi * done / 100))
        assert row["learning_rate"] == pytest.approx(rate)


@pytest.mark.slow
def test_evaluation_changes_nothing_in_the_run(tiny, tmp_path):
    experiment.run(tiny | {"eval_every_steps": 0}, tmp_path / "without")
    experiment.run(tiny | {"eval_every_steps": 2}, tmp_path / "with")
    first, second = arrays(tmp_path / "without"), arrays(tmp_path / "with")
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)


def test_a_run_starts_from_the_parameters_of_another(trained, tiny, tmp_path, capsys):
    tiny["model"]["latent_dim"] = 4
    experiment.run(tiny | {"init_from": str(trained), "num_steps": 0}, tmp_path)
    text = capsys.readouterr().err
    loaded, new = text.split("loaded from")[1].split("; new: ")
    assert "encoder/Dense_0/kernel" in loaded and "posterior_head/kernel" in new


@pytest.mark.slow
def test_nothing_to_start_from_is_an_error(trained, tiny, tmp_path):
    tiny |= {"init_from": str(trained)}
    tiny["model"] |= {"hidden": [7], "latent_dim": 5}
    tiny["model"]["likelihood"] = {"name": "gaussian", "variance": "pixel"}
    with pytest.raises(WorkdirError, match="none of its parameters fits"):
        experiment.run(tiny, tmp_path)


def test_a_dry_run_says_what_it_costs_and_writes_nothing(
    tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    costs = experiment.dry_run(tiny)
    assert costs["parameters"] == 64 * 24 + 24 + 24 * 6 + 6 + 3 * 24 + 24 + 24 * 64 + 64
    assert costs["examples_per_second"] > 0 and costs["bytes"] > 0
    assert "parameters" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="workdir cannot be made"):
        experiment.run(tiny, tmp_path / "file")


def test_a_batch_larger_than_the_data_is_refused(tiny, tmp_path):
    tiny["data"]["batch_size"] = 4096
    with pytest.raises(DataError, match="batch_size 4096 is larger than"):
        experiment.run(tiny, tmp_path)


@pytest.mark.slow
def test_evaluation_writes_its_report_into_the_workdir(trained, capsys):
    results = evaluate_run(trained, num_samples=4, num_examples=64, num_images=16)
    folder = trained / "evaluation" / "test_00000012"
    assert json.loads((folder / "results.json").read_text())["step"] == 12
    assert (folder / "report.html").exists()
    assert results["metrics"]["elbo"]["num_examples"] == 64


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"num_sample": 3}, ConfigError, "Did you mean 'num_samples'"),
        ({"split": "tset"}, ConfigError, "split must be one of"),
        ({"step": 77}, WorkdirError, "There are"),
        ({"params": "mean"}, ConfigError, "params must be 'ema' or 'raw'"),
    ],
)
def test_evaluation_refuses_what_cannot_be(trained, options, error, words):
    with pytest.raises(error, match=words):
        evaluate_run(trained, **options)


def test_averaged_parameters_are_the_ones_that_are_evaluated(trained):
    averaged = restore.restore(trained, step="last")
    raw = restore.restore(trained, step="last", params="raw")
    same = jax.tree.map(lambda a, b: bool((a == b).all()), averaged.params, raw.params)
    assert not any(jax.tree.leaves(same))


@pytest.mark.slow
def test_the_mesh_may_change_when_a_run_goes_on(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(mesh, "MIN_SHARDED_SIZE", 64)
    experiment.run(tiny | {"num_steps": 8}, tmp_path)
    experiment.run(tiny | {"mesh": {"data": 2, "params": 4}}, tmp_path)
    assert restore.restore(tmp_path, step="last").step == 12
