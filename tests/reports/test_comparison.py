"""Runs beside each other: what is best, what cannot be compared, what differs."""

import json
import re

import pytest
from etils import epath

from jvae.errors import ConfigError, WorkdirError
from jvae.reports import comparison
from jvae.reports.comparison import (
    EvaluatedRun,
    config_differences,
    read_results,
    rows_of,
)

PNG = b"\x89PNG\r\n\x1a\n"
CONFIG = {"data": {"name": "digits", "transform": "binarize"}, "seed": 0}


def measure(value, error=0.1, unit="nats", kind="bound", size=(100, 10)):
    return {
        "label": "a measure",
        "value": value,
        "standard_error": error,
        "unit": unit,
        "kind": kind,
        "meaning": "",
        "num_examples": size[0],
        "num_samples": size[1],
    }


def run(name, folder="nowhere", config=CONFIG, history=(), **metrics):
    results = {
        "metrics": metrics,
        "step": 7,
        "split": "test",
        "num_examples": 100,
        "config": config,
        "pictures": {"map.png": "a map"},
        "versions": {"jax": "1"},
        "settings": {"num_samples": 10},
        "checksums": {"parameters": f"digest of {name}"},
        "kl_per_group": [1.0, None],
    }
    return EvaluatedRun(name, results, epath.Path(folder), history)


def results(**changes):
    """The text of results.json, other entries in it."""
    return json.dumps({**run("a").results, **changes})


def row(name, *cells, **options):
    """The row of one measure of as many runs; None for a run that lacks it."""
    runs = [
        run(str(i), **({} if cell is None else {name: cell}), **options)
        for i, cell in enumerate(cells)
    ]
    (found,) = rows_of(runs)
    return found


@pytest.mark.parametrize(
    ("name", "values", "best"),
    [
        ("elbo", (-3.0, -2.0), 1),
        ("nll", (3.0, 2.0), 1),
        ("nll", (2.0, 3.0, 4.0), 0),
        ("accuracy", (0.1, 0.9), 1),
        ("probe_linear", (9.0, 1.0), 0),
        ("kl", (3.0, 2.0), None),  # neither is better
        ("mutual_info", (3.0, 2.0), None),
    ],
)
def test_the_best_is_known_where_more_or_less_is_better(name, values, best):
    assert row(name, *map(measure, values)).best == best


@pytest.mark.parametrize(("gap", "best"), [(0.27, None), (0.29, 1)])
def test_the_best_is_ahead_by_two_standard_errors(gap, best):
    """Of the difference: sqrt(0.1^2 + 0.1^2) = 0.1414."""
    assert row("elbo", measure(-2.0), measure(-2.0 + gap)).best == best


def test_who_is_ahead_must_be_ahead_of_all():
    cells = [measure(-1.0), measure(-1.1), measure(-9.0)]
    assert row("elbo", *cells).best is None


def test_numbers_that_are_missing_or_not_finite_win_nothing():
    assert row("elbo", measure(None), measure(-2.0)).best is None
    assert row("elbo", None, measure(-2.0)).best is None
    assert row("elbo", measure(-5.0), None, measure(-2.0)).best == 2


@pytest.mark.parametrize(
    ("other", "note"),
    [
        ({"size": (50, 10)}, "other examples or draws"),
        ({"size": (100, 20)}, "other examples or draws"),
        ({"unit": "bits"}, "other units"),
    ],
)
def test_numbers_of_other_examples_or_units_are_not_compared(other, note):
    found = row("elbo", measure(-2.0), measure(-1.0, **other))
    assert (found.note, found.best) == (note, None)


@pytest.mark.parametrize("field", ["name", "transform", "num_bits", "padding"])
def test_bounds_of_other_data_are_not_compared_but_rates_are(field):
    other = {**CONFIG, "data": CONFIG["data"] | {field: "another"}}
    bounds = {"elbo": measure(-1.0), "mig": measure(0.1)}
    runs = [run("a", **bounds), run("b", config=other, **bounds)]
    elbo, mig = rows_of(runs)
    assert (elbo.note, mig.note) == ("other data", "")


def test_bounds_of_densities_and_of_probabilities_are_not_compared():
    runs = [run("a", elbo=measure(-2.0)), run("b", elbo=measure(1.0))]
    runs[0].results["likelihood"] = {"is_discrete": True}
    runs[1].results["likelihood"] = {"is_discrete": False}
    assert rows_of(runs)[0].note == "other data"


def test_configs_are_told_where_they_differ():
    other = {"data": CONFIG["data"] | {"name": "mnist"}, "seed": 0, "loss": {"beta": 4}}
    found = config_differences([run("a"), run("b", config=other)], "config")
    assert found == {"data.name": ["digits", "mnist"], "loss.beta": [None, 4]}
    assert config_differences([run("a"), run("b")], "config") == {}


def test_the_page_is_one_file_that_tells_runs_apart(tmp_path):
    folders = [tmp_path / n for n in "ab"]
    for folder in folders:
        folder.mkdir()
        (folder / "map.png").write_bytes(PNG + folder.name.encode())
    history = [{"step": s, "split": "validation", "elbo": -s} for s in (1, 2, 3)]
    numbers = {"elbo": measure(-22.5), "kl": measure(5.0)}
    numbers["log_likelihood"] = measure(-17.5)
    runs = [run(f"<b>{f.name}</b>", f, history=history, **numbers) for f in folders]
    page = comparison.render_comparison(runs)
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert "<b>a</b>" not in page and "&lt;b&gt;a&lt;/b&gt;" in page
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 2 + 3  # the maps; rate and distortion, KL, training
    assert all('src="data:image/png;base64,' in image for image in images)
    assert all(len(re.search('alt="(.*?)"', image)[1]) > 5 for image in images)
    assert "digest of" in page and "−22.50 ± 0.10" in page


def test_a_flow_has_a_distortion_of_zero_and_not_of_minus_zero():
    numbers = {"kl": measure(190.0), "log_likelihood": measure(0.0, error=0.0)}
    page = comparison.render_comparison([run(n, **numbers) for n in "ab"])
    assert "distortion 0 nats" in page and "-0 nats" not in page


def test_runs_without_latents_or_pictures_can_be_compared():
    runs = [run(n, accuracy=measure(0.5, kind="metric")) for n in "ab"]
    for each in runs:
        del each.results["kl_per_group"], each.results["versions"]
    assert "a measure" in comparison.render_comparison(runs)


def test_pictures_of_one_run_alone_or_outside_the_folder_are_left_out(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(PNG)
    runs = [run("a", tmp_path / "a"), run("b", tmp_path / "a" / "b")]
    for each in runs:
        each.results["pictures"] = {"../secret.png": ""}
    (tmp_path / "a" / "secret.png").write_bytes(PNG)
    assert "secret" not in comparison.render_comparison(runs)


def test_one_run_is_no_comparison():
    with pytest.raises(ConfigError, match="runs must be at least 2"):
        comparison.render_comparison([run("a")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "another type: metrics"),
        (
            json.dumps({"metrics": {}, "step": 1}),
            "another type: split, config",
        ),
        ("[" * 100_000, "cannot be read"),
        (results(step="x", config=3), "another type: step, config"),
        (results(metrics=[1]), "another type: metrics"),
        (
            results(metrics={"elbo": {}}),
            "another type: elbo.label, elbo.unit, elbo.value",
        ),
        (
            results(metrics={"elbo": measure("<b>")}),
            "another type: elbo.value",
        ),
        (results(kl_per_group=["a"]), "another type: kl_per_group"),
        (results(versions=3), "another type: versions"),
    ],
)
def test_results_that_are_none_are_one_line(tmp_path, text, words):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(WorkdirError, match=words) as error:
        read_results(epath.Path(tmp_path))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
