"""How far the numbers of runs spread over seeds, as one table in three formats."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jvae.workdir import files

STATISTICS = ("median", "lower_quartile", "upper_quartile", "min", "max")
_FRACTIONS = (0.5, 0.25, 0.75, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric at one combination of values.

    Attributes:
      values: {field of the config: its value}.
      metric: its name in results.json.
      unit: as there, '' if no run has it.
      kind: 'bound', 'estimate' or 'metric'; '' if no run has it.
      meaning: what it is, in one line.
      by_seed: {seed: the number} of the runs that have it.
      num_seeds: seeds that were asked for.
    """

    values: Mapping[str, Any]
    metric: str
    unit: str
    kind: str
    meaning: str
    by_seed: Mapping[int, float]
    num_seeds: int

    @property
    def statistics(self) -> dict[str, float | None]:
        """Median, quartiles (linear between two seeds) and range; None without runs."""
        numbers = list(self.by_seed.values())
        if not numbers:
            return dict.fromkeys(STATISTICS)
        quantiles = np.quantile(np.asarray(numbers, np.float64), _FRACTIONS)
        return dict(zip(STATISTICS, quantiles.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Returns what table.json says of it."""
        by_seed = {str(seed): number for seed, number in self.by_seed.items()}
        fields = dataclasses.asdict(self) | {"by_seed": by_seed}
        return {**fields, "seeds": len(by_seed), **self.statistics}


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a sweep, those of a metric together.

    Attributes:
      fields: of the config that differ between rows.
      rows: see `Row`.
      caption: what was run and evaluated, a line.
      failures: a line for every run that has ended without results.
      num_waiting: runs that have not ended yet.
    """

    fields: Sequence[str]
    rows: Sequence[Row]
    caption: str
    failures: Sequence[str]
    num_waiting: int

    @property
    def markdown(self) -> str:
        """The table for people: five significant digits, and what is missing."""
        head = ["metric", "unit", "kind", *self.fields, "seeds"]
        head += ["median", "quartiles", "min", "max"]
        lines = [f"{self.caption}.", "", _line(head), _line(["---"] * len(head))]
        lines += [_line(self._cells(row)) for row in self.rows]
        if self.num_waiting:
            lines += ["", f"Not finished yet: {self.num_waiting} runs."]
        if self.failures:
            lines += ["", "Without results:", ""]
            lines += [f"- {text}" for text in self.failures]
        return "\n".join(lines) + "\n"

    def _cells(self, row: Row) -> list[str]:
        seeds = f"{len(row.by_seed)} of {row.num_seeds}"
        median, lower, upper, least, most = map(_digits, row.statistics.values())
        numbers = [median, f"{lower} to {upper}", least, most]
        return [*self._place(row), seeds, *numbers]

    def _place(self, row: Row) -> list[str]:
        values = [format_value(row.values[name]) for name in self.fields]
        return [row.metric, row.unit, row.kind, *values]

    @property
    def json(self) -> str:
        """Everything, with the number of every seed."""
        fields = dataclasses.asdict(self) | {"rows": [r.to_dict() for r in self.rows]}
        return json.dumps(fields, indent=2, allow_nan=False) + "\n"

    @property
    def csv(self) -> str:
        """The rows for other programs, numbers whole; empty where there are none."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        head = ["metric", "unit", "kind", *self.fields]
        writer.writerow([*head, "seeds", "seeds_asked_for", *STATISTICS])
        for row in self.rows:
            seeds = [len(row.by_seed), row.num_seeds]
            writer.writerow([*self._place(row), *seeds, *row.statistics.values()])
        return text.getvalue()

    def write(self, folder: epath.Path) -> None:
        """Writes table.md, table.json and table.csv, each whole.

        Args:
          folder: where; it exists.
        """
        files.write_whole(folder / "table.md", self.markdown)
        files.write_whole(folder / "table.json", self.json)
        files.write_whole(folder / "table.csv", self.csv)


def format_value(value: Any) -> str:
    """Returns the value of a field as it would be typed: 0.1, 4, (32, 16), adam."""
    if isinstance(value, list | tuple):
        return f"({', '.join(map(format_value, value))})"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def _digits(number: float | None) -> str:
    return "none" if number is None else f"{number:.5g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
