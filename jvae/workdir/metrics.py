"""Where a run's numbers go: metrics.jsonl (the truth), and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from etils import epath

from jvae.runtime import log_filters
from jvae.workdir import files

METRICS_FILE = "metrics.jsonl"
TIMES = ("seconds", "examples_per_second")
"""Fields of a row that differ between two runs of the same config."""

logger = logging.getLogger("jvae")


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the rows of WORKDIR/metrics.jsonl, [] if there is none.

    Lines that are no rows are left out: the last may have been cut short by a crash.
    """
    return _read(files.absolute(workdir) / METRICS_FILE)[0]


def _read(file: epath.Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns (rows, the numbers of lines that are none but for the last)."""
    lines, rows, bad = files.read_lines(file), [], []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and _is_row(row):
            rows.append(row)
        elif number < len(lines):
            bad.append(number)
    return rows, bad


def _is_row(entries: dict[str, Any]) -> bool:
    step, split = entries.get("step"), entries.get("split")
    return isinstance(step, int) and isinstance(split, str)


class MetricsWriter:
    """Adds rows {'step', 'split', names: numbers} to metrics.jsonl and TensorBoard.

    An error of the disk is one warning and ends that writer; training goes on. In a
    bucket there are no TensorBoard files, which grow by appending.

    Args:
      workdir: the run's folder.
      start_step: the step that the run goes on from; rows after it are dropped, as
        the run will write them again.
    """

    def __init__(self, workdir: epath.PathLike, start_step: int):
        self._file = epath.Path(workdir) / METRICS_FILE
        stored, bad = _read(files.absolute(self._file))
        if bad:
            self._keep(bad)
        rows = [row for row in stored if row["step"] <= start_step]
        self._lines: files.Lines | None = None
        try:
            self._lines = files.lines_of(self._file, map(_line, rows))
        except OSError as error:
            self._give_up(error)
        self._events: _EventFile | None = None
        if not files.is_bucket(workdir):
            folder = epath.Path(workdir) / "tensorboard"
            self._events = _EventFile(folder, start_step)

    def _keep(self, bad: list[int]) -> None:
        """Keeps a file of whose lines some are no rows beside the new one."""
        text = "".join(f"{line}\n" for line in files.read_lines(self._file))
        kept = self._file.parent / f"{METRICS_FILE}.damaged"
        with contextlib.suppress(OSError):
            files.write_whole(kept, text)
        logger.warning(
            "jvae: %s: left out what is no row, of line %s; the file is kept as %s",
            self._file,
            ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else ""),
            kept.name,
        )

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Adds one row.

        Args:
          step: updates done.
          split: 'train', 'validation', ...
          metrics: numbers by name; None or a non-finite number becomes null.
        """
        row = {"step": step, "split": split, **metrics}
        self._do(lambda lines: lines.append(_line(row)))
        if self._events is not None:
            self._events.write(step, split, metrics)

    def flush(self) -> None:
        """Returns when the rows so far would survive a loss of power."""
        self._do(lambda lines: lines.flush())

    def _do(self, action: Callable[[files.Lines], None]) -> None:
        """Does something to the file of rows, while there is one."""
        if self._lines is not None:
            try:
                action(self._lines)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning("jvae: %s is no longer written: %s", self._file, error)
        lines, self._lines = self._lines, None
        with contextlib.suppress(OSError):  # it would write what is left
            if lines is not None:
                lines.close()

    def close(self) -> None:
        """Closes the files."""
        self._do(lambda lines: lines.close())
        if self._events is not None:
            self._events.close()


def _line(row: Mapping[str, Any]) -> str:
    bad = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    return json.dumps({**row, **dict.fromkeys(bad)})


class _EventFile:
    """TensorBoard scalars, written without TensorFlow."""

    def __init__(self, folder: epath.Path, start_step: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        log_filters.background_failures()
        self._event, self._scalar = Event, scalar_pb
        self._writer: Any = None
        # Tells TensorBoard to forget what an interrupted run wrote after this step.
        start = SessionLog(status=SessionLog.START)
        try:
            self._writer = EventFileWriter(str(folder))
            self._add([Event(session_log=start, step=start_step + 1)])
        except OSError as error:
            self._give_up(error)

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Adds one scalar per metric, under split/name."""
        self._add(
            self._event(step=step, summary=self._scalar(f"{split}/{name}", value))
            for name, value in metrics.items()
            if isinstance(value, int | float)
        )

    def _add(self, events: Iterable[Any]) -> None:
        if self._writer is None:
            return
        now = time.time()
        try:
            for event in events:
                event.wall_time = now
                self._writer.add_event(event)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning("jvae: TensorBoard files are no longer written: %s", error)
        self._writer = None

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)
