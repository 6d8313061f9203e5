"""Where a run's numbers go: metrics.jsonl (the truth), TensorBoard, and the screen."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from etils import epath

from jvae.runtime import log_filters
from jvae.workdir import files

METRICS_FILE = "metrics.jsonl"
TIMES = ("seconds", "examples_per_second")
"""Fields of a row that differ between two runs of the same config."""

logger = logging.getLogger("jvae")


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the rows of WORKDIR/metrics.jsonl, [] if there is none.

    A last line that was cut short by a crash is left out.
    """
    rows = []
    for line in files.read_lines(files.absolute(workdir) / METRICS_FILE):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


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
        kept = [row for row in read_metrics(workdir) if row["step"] <= start_step]
        self._lines: files.FolderLines | files.BucketLines | None = None
        try:
            self._lines = files.lines_of(self._file, map(_line, kept))
        except OSError as error:
            self._give_up(error)
        self._events: _EventFile | None = None
        if not files.is_bucket(workdir):
            folder = epath.Path(workdir) / "tensorboard"
            self._events = _EventFile(folder, start_step)

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Adds one row.

        Args:
          step: updates done.
          split: 'train', 'validation', ...
          metrics: numbers by name; None or a non-finite number becomes null.
        """
        row = {"step": step, "split": split, **metrics}
        if self._lines is not None:
            try:
                self._lines.append(_line(row))
            except OSError as error:
                self._give_up(error)
        if self._events is not None:
            self._events.write(step, split, metrics)

    def flush(self) -> None:
        """Returns when the rows so far would survive a loss of power."""
        if self._lines is not None:
            try:
                self._lines.flush()
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
        if self._lines is not None:
            try:
                self._lines.close()
            except OSError as error:
                self._give_up(error)
        if self._events is not None:
            self._events.close()


def _line(row: Mapping[str, Any]) -> str:
    finite = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in row.items()
    }
    return json.dumps(finite)


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


def redirect_to_devnull(stream: TextIO) -> None:
    """Sends what is still written to a stream that nobody reads to nowhere.

    For `train.py | head`: the run goes on, and Python's own flush at exit succeeds.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


class Progress:
    """A bar on a terminal, one plain line at every report otherwise.

    Args:
      start_step: the step that the run goes on from.
      num_steps: the step that it goes to.
      quiet: whether to show nothing, as all processes but one do.
    """

    def __init__(self, start_step: int, num_steps: int, quiet: bool = False):
        self._num_steps, self._is_quiet = num_steps, quiet
        self._began, self._first = time.monotonic(), start_step
        self._bar: Any = None
        if sys.stderr.isatty() and not quiet:
            import tqdm

            self._bar = tqdm.tqdm(
                total=num_steps, initial=start_step, unit="step", dynamic_ncols=True
            )

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the numbers of a step: loss and parts, examples/s and the time left."""
        shown = {
            "loss": "loss",
            "elbo": "elbo",
            "kl": "kl",
            "accuracy": "accuracy",
            "examples_per_second": "examples/s",
        }
        parts = {
            label: f"{metrics[name]:,.0f}"
            if label == "examples/s"
            else f"{metrics[name]:.2f}"
            for name, label in shown.items()
            if name in metrics
        }
        if self._bar is not None:
            self._show(lambda: self._move(step, parts))
            return
        done = max(step - self._first, 1)
        left = (time.monotonic() - self._began) * (self._num_steps - step) / done
        text = "  ".join(f"{label} {value}" for label, value in parts.items())
        self.say(f"step {step}/{self._num_steps}  {text}  {left:.0f} s left")

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._show(lambda: self._bar.write(text, file=sys.stderr))
        elif not self._is_quiet:
            self._show(lambda: print(text, file=sys.stderr, flush=True))

    def _move(self, step: int, parts: Mapping[str, str]) -> None:
        self._bar.set_postfix(parts, refresh=False)
        self._bar.update(step - self._bar.n)

    def _show(self, write: Callable[[], Any]) -> None:
        """Calls `write`; a terminal that is gone is no reason to stop."""
        try:
            write()
        except OSError:
            redirect_to_devnull(sys.stderr)
            self._bar, self._is_quiet = None, True

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
