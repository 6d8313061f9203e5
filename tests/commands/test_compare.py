"""jvae compare: which evaluations, under which names, into which file."""

import json

import pytest

from jvae.commands import compare
from jvae.errors import ConfigError, WorkdirError
from tests.reports.test_comparison import measure, run


def evaluated(folder, step=7, split="test", **metrics):
    """A workdir with an evaluation."""
    place = folder / "evaluation" / f"{split}_{step:08d}"
    place.mkdir(parents=True, exist_ok=True)
    results = run("x", **metrics).results | {"step": step, "split": split}
    (place / "results.json").write_text(json.dumps(results))
    row = {"step": 1, "split": "train", "elbo": -1.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return place


def test_the_latest_evaluation_of_the_split_is_taken(tmp_path):
    evaluated(tmp_path, 900)
    evaluated(tmp_path, 10000)
    evaluated(tmp_path, 99999, "validation")
    assert compare.read_run(str(tmp_path), "test").results["step"] == 10000
    assert compare.read_run(str(tmp_path), "validation").results["step"] == 99999


def test_an_evaluation_can_be_named_itself(tmp_path):
    place = evaluated(tmp_path, 900)
    evaluated(tmp_path, 10000)
    found = compare.read_run(str(place), "test")
    assert found.results["step"] == 900 and len(found.history) == 1


def test_a_run_without_an_evaluation_says_how_to_get_one(tmp_path):
    evaluated(tmp_path)
    with pytest.raises(
        WorkdirError, match="no evaluation of the validation split"
    ) as e:
        compare.read_run(str(tmp_path), "validation")
    assert f"jvae eval --workdir={tmp_path} --split=validation" in str(e.value)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/run", "y/run"], ["x/run", "y/run"]),
        (["x/1/run", "y/1/run/"], ["x/1/run", "y/1/run"]),
        (["run", "other/run"], ["run", "other/run"]),
    ],
)
def test_runs_have_the_shortest_names_that_differ(paths, names):
    assert compare.short_names(paths) == names


def test_a_run_that_is_named_twice_is_refused():
    with pytest.raises(ConfigError, match="named twice"):
        compare.short_names(["runs/a", "runs/a"])


def test_a_comparison_is_replaced_and_any_other_file_is_kept(tmp_path, capsys):
    runs = [tmp_path / name for name in "ab"]
    for folder in runs:
        evaluated(folder, elbo=measure(-1.0))
    out = tmp_path / "page.html"
    arguments = [*map(str, runs), f"--out={out}"]
    compare.command(arguments)
    assert "2 runs" in out.read_text() and str(out) in capsys.readouterr().out
    compare.command(arguments)
    old = out.read_text().replace("jvae compare", "jvae.report", 1)
    out.write_text(old)  # of a release before this one
    compare.command(arguments)
    assert out.read_text() != old
    for other in (b"my notes", b"\xff\xfe\x00"):
        out.write_bytes(other)
        with pytest.raises(WorkdirError) as error:
            compare.command(arguments)
        assert "--out" in str(error.value) and out.read_bytes() == other


@pytest.mark.parametrize("runs", [[], ["a"]])
def test_fewer_than_two_runs_are_refused(runs):
    with pytest.raises(ConfigError, match="two runs or more"):
        compare.command(runs)
