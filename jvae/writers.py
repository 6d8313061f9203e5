"""Where a run's numbers go: metrics.jsonl (the truth), TensorBoard, and the screen."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

METRICS_FILE = "metrics.jsonl"
TIMES = ("seconds", "images_per_second")
"""Fields of a row that differ between two runs of the same config."""

logger = logging.getLogger("jvae")


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the rows of WORKDIR/metrics.jsonl, [] if there is none.

    A last line that was cut short by a crash is left out.
    """
    file = epath.Path(workdir) / METRICS_FILE
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class MetricsWriter:
    """Appends rows {'step', 'split', names: numbers} to metrics.jsonl and TensorBoard.

    An error of the disk is one warning and ends that writer; training goes on.

    Args:
      workdir: the run's folder.
      start_step: the step that the run goes on from; rows after it are dropped, as
        the run will write them again.
    """

    def __init__(self, workdir: epath.PathLike, start_step: int):
        self._file = epath.Path(workdir) / METRICS_FILE
        kept = [row for row in read_metrics(workdir) if row["step"] <= start_step]
        self._file.write_text("".join(_line(row) for row in kept))
        self._handle: Any = self._file.open("a")
        self._events = _EventFile(epath.Path(workdir) / "tensorboard", start_step)

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Appends one row.

        Args:
          step: updates done.
          split: 'train', 'validation', ...
          metrics: numbers by name; None or a non-finite number becomes null.
        """
        row = {"step": step, "split": split, **metrics}
        if self._handle is not None:
            try:
                self._handle.write(_line(row))
                self._handle.flush()
            except OSError as error:
                logger.warning("jvae: %s is no longer written: %s", self._file, error)
                self._handle = None
        self._events.write(step, split, metrics)

    def close(self) -> None:
        """Closes the files."""
        if self._handle is not None:
            self._handle.close()
        self._events.close()


def _line(row: Mapping[str, Any]) -> str:
    finite = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in row.items()
    }
    return json.dumps(finite) + "\n"


class _EventFile:
    """TensorBoard scalars, written without TensorFlow."""

    def __init__(self, folder: epath.Path, start_step: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._scalar = Event, scalar_pb
        self._writer: Any = EventFileWriter(str(folder))
        # Tells TensorBoard to forget what an interrupted run wrote after this step.
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(
            Event(session_log=start, step=start_step + 1, wall_time=time.time())
        )

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Adds one scalar per metric, under split/name."""
        if self._writer is None:
            return
        now = time.time()
        try:
            for name, value in metrics.items():
                if isinstance(value, int | float):
                    summary = self._scalar(f"{split}/{name}", value)
                    event = self._event(step=step, wall_time=now, summary=summary)
                    self._writer.add_event(event)
        except OSError as error:
            logger.warning("jvae: TensorBoard files are no longer written: %s", error)
            self._writer = None

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._writer is not None:
            self._writer.close()


class Progress:
    """A bar on a terminal, one plain line at every report otherwise.

    Args:
      start_step: the step that the run goes on from.
      num_steps: the step that it goes to.
    """

    def __init__(self, start_step: int, num_steps: int):
        self._num_steps = num_steps
        self._began, self._first = time.monotonic(), start_step
        self._bar: Any = None
        if sys.stderr.isatty():
            import tqdm

            self._bar = tqdm.tqdm(
                total=num_steps, initial=start_step, unit="step", dynamic_ncols=True
            )

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the numbers of a step: loss, ELBO, KL, images/s and the time left."""
        shown = {
            "loss": "loss",
            "elbo": "elbo",
            "kl": "kl",
            "images_per_second": "images/s",
        }
        parts = {
            label: f"{metrics[name]:,.0f}"
            if label == "images/s"
            else f"{metrics[name]:.2f}"
            for name, label in shown.items()
            if name in metrics
        }
        if self._bar is not None:
            self._bar.set_postfix(parts, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        done = max(step - self._first, 1)
        left = (time.monotonic() - self._began) * (self._num_steps - step) / done
        text = "  ".join(f"{label} {value}" for label, value in parts.items())
        self.say(f"step {step}/{self._num_steps}  {text}  {left:.0f} s left")

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
