"""What a run tells its user: progress, and the time of its steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jvae.runtime.log_filters import redirect_to_devnull
from jvae.types import Array


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
        names = [n for n in ("loss", "elbo", "kl", "accuracy") if n in metrics]
        parts = {name: f"{metrics[name]:.2f}" for name in names}
        if "examples_per_second" in metrics:
            parts["examples/s"] = f"{metrics['examples_per_second']:,.0f}"
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


class StepTimer:
    """Counts the seconds and images of training, without its pauses."""

    def __init__(self):
        self._seconds, self._since = 0.0, time.monotonic()
        self._lap: tuple[int, float] | None = None

    def stop(self, step: Array) -> None:
        """Begins a pause, once the device has come to this step."""
        jax.block_until_ready(step)
        self._seconds += time.monotonic() - self._since

    def go(self) -> None:
        """Ends a pause."""
        self._since = time.monotonic()

    def lap(self, images: int) -> dict[str, float]:
        """Returns the seconds so far, and the images per second since the last lap."""
        now = self._seconds + time.monotonic() - self._since
        before, self._lap = self._lap, (images, now)
        if before is None or now <= before[1]:
            return {"seconds": now}
        rate = (images - before[0]) / (now - before[1])
        return {"seconds": now, "examples_per_second": rate}
