"""Evaluations of several runs beside each other, on one page."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from jvae import registry
from jvae.errors import WorkdirError, require
from jvae.pretrained import image_grid
from jvae.reports import html, latent_plots, plots
from jvae.reports.report import flat_fields
from jvae.workdir import renamed
from jvae.workdir.files import is_own, read_own

HIGHER = frozenset(
    "elbo accuracy accuracy_of_draws label_information label_information_bits "
    "majority_accuracy matched_accuracy normalized_mutual_info adjusted_rand_index "
    "mig sap psnr ssim disentanglement completeness informativeness factor_vae".split()
)
LOWER = frozenset(
    "elbo_bits nll nll_bits nll_per_symbol perplexity cross_entropy "
    "cross_entropy_bits mse".split()
)
"""Measures of which more, or less, is better; of others neither is."""
OF_DATA = frozenset(
    "elbo elbo_bits nll nll_bits nll_per_symbol perplexity mse psnr ssim".split()
)
"""Those that say something only beside others of the same data."""
ERRORS = 2.0
"""Standard errors of a difference that the best is ahead by, at least."""
Numbers = Sequence[float | None]
NEEDED: dict[str, Any] = {
    "metrics": Mapping,
    "step": int,
    "split": str,
    "config": Mapping,
    "pictures": Mapping,
    "num_examples": int,
}
"""Entries of results.json and their types."""
OPTIONAL: dict[str, Any] = dict.fromkeys(
    ("likelihood", "settings", "versions", "checksums"), Mapping | None
) | {"kl_per_group": Numbers}
CELL: dict[str, Any] = {
    "label": str,
    "unit": str,
    "value": float | None,
    "standard_error": float | None,
    "num_examples": int,
    "num_samples": int | None,
}
"""Entries of each of its metrics."""
COMPARED = ("config", "settings", "versions")
SAME_DATA = ("data.name", "data.transform", "data.num_bits", "data.padding")


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """An evaluation.

    Attributes:
      name: what the page calls it.
      results: what results.json says.
      folder: where it lies, with its pictures.
      history: rows of metrics.jsonl; none if it is not known.
    """

    name: str
    results: Mapping[str, Any]
    folder: epath.Path
    history: Sequence[Mapping[str, Any]] = ()

    def fields(self, name: str) -> dict[str, Any]:
        """Returns a dict of results.json by 'section.field', {} if it is missing.

        A config is as it is named now.
        """
        entry = self.results.get(name) or {}
        return dict(flat_fields(renamed.current(entry) if name == "config" else entry))


@dataclasses.dataclass(frozen=True)
class ComparedMetric:
    """A measure of all runs.

    Attributes:
      label: its name for people.
      unit: of all.
      cells: what results.json says of each; None of a run that lacks it.
      best: the run that is ahead of all others, None if none is or none can be.
      note: why they cannot be compared, '' if they can.
    """

    label: str
    unit: str
    cells: tuple[Mapping[str, Any] | None, ...]
    best: int | None
    note: str


def read_results(folder: epath.Path) -> dict[str, Any]:
    """Returns what FOLDER/results.json says.

    Raises:
      WorkdirError: no such file, or one that no evaluation of this release wrote.
    """
    file = folder / "results.json"
    about = {"where": str(file), "fix": "Evaluate the run again."}
    try:
        results = json.loads(read_own(file))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"results cannot be read: {error}", **about) from error
    wrong = _wrong_entries(results, NEEDED)
    if not wrong:
        there = {name: kind for name, kind in OPTIONAL.items() if name in results}
        wrong = _wrong_entries(results, there)
        for name, cell in results["metrics"].items():
            wrong += [f"{name}.{entry}" for entry in _wrong_entries(cell, CELL)]
    if wrong:
        entries = ", ".join(wrong)
        raise WorkdirError(f"entries missing or of another type: {entries}", **about)
    return results


def _wrong_entries(entries: Any, kinds: Mapping[str, Any]) -> list[str]:
    """Returns the names of entries that are missing or of another type."""
    if not isinstance(entries, Mapping):
        return list(kinds)
    return [
        name
        for name, kind in kinds.items()
        if name not in entries or not registry.accepts(kind, entries[name])
    ]


def rows_of(runs: Sequence[EvaluatedRun]) -> list[ComparedMetric]:
    """Returns every measure that a run has, in the order of the first that has it."""
    names = dict.fromkeys(n for run in runs for n in run.results["metrics"])
    return [_row(name, runs) for name in names]


def _row(name: str, runs: Sequence[EvaluatedRun]) -> ComparedMetric:
    cells = tuple(run.results["metrics"].get(name) for run in runs)
    there = [cell for cell in cells if cell is not None]
    note = ""
    sizes = {(cell["num_examples"], cell["num_samples"]) for cell in there}
    units = {cell["unit"] for cell in there}
    if len(sizes) > 1:
        note = "other examples or draws"
    elif len(units) > 1:
        note = "other units"
    elif name in OF_DATA and not _same_data(runs):
        note = "other data"
    unit = there[0]["unit"] if len(units) == 1 else ""
    best = None if note or len(there) < 2 else _best(name, cells)
    return ComparedMetric(there[0]["label"], unit, cells, best, note)


def _same_data(runs: Sequence[EvaluatedRun]) -> bool:
    """Returns whether log p(x) of all runs is of the same x and of the same kind."""
    fields = ("is_likelihood", "is_discrete", "given", "bin_bits", "num_dims")

    def kind(run: EvaluatedRun) -> list[Any]:
        said = run.results.get("likelihood") or {}
        config = run.fields("config")
        sections = [config.get(name) for name in SAME_DATA]
        return sections + [said.get(field) for field in fields]

    return all(kind(run) == kind(runs[0]) for run in runs)


def _best(name: str, cells: Sequence[Mapping[str, Any] | None]) -> int | None:
    """Returns the run that is ahead of every other by more than two standard errors.

    Of the difference of two means of independent examples: that of the same examples
    is smaller, so that what is marked is ahead, and more may be.
    """
    sign = (name in HIGHER or name.startswith("probe_")) - (name in LOWER)
    there = {
        i: (sign * cell["value"], cell["standard_error"] or 0.0)
        for i, cell in enumerate(cells)
        if cell is not None and cell["value"] is not None
    }
    if not sign or len(there) < 2:
        return None
    first = max(there, key=lambda i: there[i][0])
    value, error = there.pop(first)
    ahead = all(v < value - ERRORS * math.hypot(error, e) for v, e in there.values())
    return first if ahead else None


def config_differences(
    runs: Sequence[EvaluatedRun], field: str
) -> dict[str, list[Any]]:
    """Returns {name: the value of each run} where they differ.

    Args:
      runs: of which one lacks a name, its value is None.
      field: of results.json, a dict: 'config', 'versions', 'settings'.
    """
    each = [run.fields(field) for run in runs]
    names = dict.fromkeys(name for values in each for name in values)
    table = {name: [values.get(name) for values in each] for name in names}
    return {n: v for n, v in table.items() if any(value != v[0] for value in v[1:])}


def render_comparison(runs: Sequence[EvaluatedRun]) -> str:
    """Returns the page, one file without any other.

    Args:
      runs: at least two, with names of their own.
    """
    require(len(runs) >= 2, "runs", "be at least 2", len(runs))
    return html.render_template(
        "comparison.html",
        runs=runs,
        rows=rows_of(runs),
        figures=list(_figures(runs)),
        pictures=_pictures(runs),
        **{field: config_differences(runs, field) for field in COMPARED},
        checksums={run.name: run.results.get("checksums") or {} for run in runs},
    )


def _figures(runs: Sequence[EvaluatedRun]) -> list[tuple[str, str, str]]:
    """Returns (title, caption, data URI) of the figures that show all runs."""
    figures = []
    places = [plots.Point.of(run.name, run.results["metrics"]) for run in runs]
    points = [place for place in places if place is not None]
    if points:
        text = "Runs on one line have the same ELBO. " + "; ".join(
            f"{p.name}: rate {p.rate:.4g}, distortion {p.distortion:.4g} nats"
            for p in points
        )
        figures.append(("Rate and distortion", text, plots.rate_distortion(points)))
    kl = {run.name: run.results.get("kl_per_group") or [] for run in runs}
    finite = {n: [v for v in kl[n] if v is not None] for n in kl if kl[n]}
    if finite:
        text = "Mean KL of every group of latents to the prior, sorted in each run."
        figures.append(("KL of the latents", text, latent_plots.kl_lines(finite)))
    curves = plots.compared_curves({run.name: run.history for run in runs})
    if curves is not None:
        text = "On validation data, or of training batches where there is none."
        figures.append(("Training", text, curves))
    return [(title, text, image_grid.data_uri(png)) for title, text, png in figures]


def _pictures(runs: Sequence[EvaluatedRun]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns (file, [(run, data URI)]) of the images that two runs or more have."""
    files = dict.fromkeys(f for run in runs for f in run.results["pictures"])
    table = []
    for file in files:
        paths = {run.name: run.folder / file for run in runs}
        have = [(name, path) for name, path in paths.items() if is_own(path)]
        if len(have) > 1 and "/" not in file:
            uris = [(name, image_grid.data_uri(p.read_bytes())) for name, p in have]
            table.append((file, uris))
    return table
