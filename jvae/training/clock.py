"""The time that training takes, without its pauses."""

from __future__ import annotations

import time

import jax

from jvae.types import Array


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
