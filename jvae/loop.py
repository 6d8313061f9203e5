"""The loop over training steps: what it logs, evaluates, saves, and when it ends."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jvae import checkpoints as ckpt
from jvae import distributed, parts, pretrained, storage
from jvae.checkpoints import Checkpoints
from jvae.clock import Clock
from jvae.data import Source
from jvae.errors import (
    DamagedError,
    DeviceError,
    DivergedError,
    StoppedError,
    WorkdirError,
)
from jvae.evaluation import likelihood, pictures, samples
from jvae.evaluation.subject import Subject
from jvae.parts import Parts
from jvae.stopping import Stop
from jvae.training import TrainState
from jvae.types import Metrics
from jvae.workdir import check_same_run
from jvae.writers import MetricsWriter, Progress

DIVERGED_FILE = "diverged.json"
MAX_AHEAD = 8
"""Dispatches that the host may be ahead of the devices.

Enough to keep them busy; at 32, XLA's CPU client with several devices in a process and
collectives between processes locks up, all its threads launching and none computing.
"""

logger = logging.getLogger("jvae")


def subject_of(built: Parts, state: TrainState) -> Subject:
    """Returns what evaluation looks at, with averaged parameters if there are any."""
    params = state.params if state.ema is None else state.ema
    return Subject(built.model, params, state.state, built.transform, built.devices)


class Run:
    """One run in one workdir: its state, its files, and the loop over its steps.

    Args:
      built: what the experiment is made of.
      root: the workdir, opened.
      stop: says when somebody wants the run to end.
    """

    def __init__(self, built: Parts, root: epath.Path, stop: Stop):
        self.parts, self.root, self.experiment = built, root, built.experiment
        self.stop, self.report = stop, ""
        keep = self.experiment.keep_checkpoints
        self.checkpoints = Checkpoints(root / ckpt.CHECKPOINTS, keep=keep)
        self.best = Checkpoints(root / ckpt.BEST, keep=1)
        self.state = self._restored() or self._fresh()
        self.start = int(self.state.step)
        is_first = distributed.is_first()
        self.writer = MetricsWriter(root, self.start) if is_first else None
        num_steps = self.experiment.num_steps
        self.progress = Progress(self.start, num_steps, quiet=not is_first)
        self.clock = Clock()
        self._say_start()

    def _fresh(self) -> TrainState:
        state = parts.create_state(self.parts)
        if self.experiment.init_from is None:
            return state
        params, report = pretrained.matching_params(
            state.params, self.experiment.init_from, self.parts.devices
        )
        self.report = report
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(state, params=params, ema=ema)

    def _restored(self) -> TrainState | None:
        """Returns the newest state that is whole, None if nothing was ever saved."""
        for step in reversed(self.checkpoints.steps()):
            state, damage = self._read(step)
            if not distributed.anywhere(damage is not None):
                return state
            self._set_aside(self.checkpoints, step, damage)
        damaged = self.checkpoints.set_asides()
        if damaged:
            raise WorkdirError(
                f"every checkpoint is damaged: {', '.join(damaged)}",
                where=str(self.checkpoints.folder),
                fix="Use another workdir, or remove them to start at step 0 here.",
            )
        return None

    def _read(self, step: int) -> tuple[TrainState | None, DamagedError | None]:
        """Returns the state of a step, or what this process found wrong with it."""
        like = items_of(parts.abstract_state(self.parts))
        try:
            self._check_same_run(self.checkpoints.read_meta(step))
            items = self.checkpoints.restore(step, like)
        except DamagedError as error:
            return None, error
        return TrainState(**items["model"], **items["training"]), None

    def _check_same_run(self, meta: Mapping[str, Any]) -> None:
        """Raises WorkdirError if the checkpoint is of another config or data set."""
        check_same_run(meta["config"], self.experiment.to_dict(), self.root)
        here = len(self.parts.splits.train)
        there = meta.get("num_examples", here)
        if there != here:
            raise WorkdirError(
                f"the data set has changed: {there:,} training examples there, "
                f"{here:,} here",
                where=str(self.root),
                fix="Use the data that the run began with, or another workdir.",
            )

    def _set_aside(
        self, folder: Checkpoints, step: int, error: DamagedError | None
    ) -> None:
        what = f"checkpoint {step} is damaged: another process cannot read its part"
        where = folder.set_aside(step)
        if distributed.is_first():
            what = what if error is None else error.what
            logger.warning("jvae: %s; set aside as %s", what, where)

    def _say_start(self) -> None:
        size = sum(x.size for x in jax.tree.leaves(self.state.params))
        where = f"{self.parts.devices.size} x {jax.devices()[0].device_kind}"
        begin = f"resumed from step {self.start}" if self.start else "new run"
        self.progress.say(f"{begin} in {self.root}: {size:,} parameters on {where}")
        if self.report:
            self.progress.say(self.report)

    def train(self) -> None:
        """Does the steps that are left, then says where the results are.

        Raises:
          StoppedError: the run was asked to stop, and is saved.
          DivergedError: `max_skips` updates in a row were skipped.
          WorkdirError: the last checkpoint could not be written.
        """
        last = self.experiment.num_steps
        if self.start >= last or self._out_of_patience(self.start):
            self.progress.say(f"already at step {self.start} of {last}")
            return
        n = self.experiment.steps_per_dispatch
        step_fn = parts.compile_step(self.parts, self.state)
        feed = parts.batches(self.parts, self.start)
        late: tuple[int, Metrics] | None = None
        ahead: collections.deque[Metrics] = collections.deque()
        for step in range(self.start + n, last + 1, n):
            self.state, metrics = step_fn(self.state, next(feed))
            ahead.append(metrics)
            if len(ahead) > MAX_AHEAD:
                jax.block_until_ready(ahead.popleft())
            # Fetching the step before leaves the device busy with this one.
            if late is not None:
                self._log(*late)
            due = step % self.experiment.log_every_steps == 0 or step == last
            late = (step, metrics) if due else None
            reached = self.checkpoints.reached_preemption
            is_stopped = self.stop.is_requested(step, reached)
            is_due = self._is_due(step, "eval") or self._is_due(step, "checkpoint")
            if is_due or is_stopped:
                if late is not None:
                    self._log(*late)
                    late = None
                self._pause(step, is_stopped)
                if self._out_of_patience(step):
                    self.progress.say(f"no better ELBO since step {self.best.latest()}")
                    break
                if is_stopped and step < last:
                    self._leave(step)
        self._finish()

    def _is_due(self, step: int, what: str) -> bool:
        every = getattr(self.experiment, f"{what}_every_steps")
        return every > 0 and (step % every == 0 or step == self.experiment.num_steps)

    def _out_of_patience(self, step: int) -> bool:
        """Returns whether `patience` evaluations in a row have not been the best."""
        patience, best = self.experiment.patience, self.best.latest()
        if patience is None or best is None or not self._is_due(step, "eval"):
            return False
        return (step - best) // self.experiment.eval_every_steps >= patience

    def _pause(self, step: int, is_stopped: bool) -> None:
        """Evaluates and saves, outside the time that training is measured by."""
        self.clock.stop(self.state.step)
        self._check_divergence(step, int(self.state.guard.in_a_row))
        validation = self.parts.splits.validation
        if self._is_due(step, "eval") and validation is not None:
            self.evaluate(step, validation)
        is_due = self._is_due(step, "checkpoint") or self._out_of_patience(step)
        if is_due or is_stopped:
            # The rows up to a checkpoint are never written again.
            if self.writer is not None:
                self.writer.flush()
            self._save(self.checkpoints, step, items_of(self.state))
        self.clock.go()

    def _log(self, step: int, metrics: Metrics) -> None:
        numbers = {k: _last(v) for k, v in jax.device_get(metrics).items()}
        annealed = self.parts.coefficients(step - 1)
        numbers |= {name: float(value) for name, value in annealed.items()}
        # Updates that were skipped do not count for the schedule.
        done = max(step - 1 - int(numbers["skipped_updates"]), 0)
        numbers["learning_rate"] = float(self.parts.learning_rate(done))
        images = step * self.parts.experiment.data["batch_size"]
        numbers |= self.clock.lap(images)
        if self.writer is not None:
            self.writer.write(step, "train", numbers)
        self.progress.report(step, numbers)
        self._check_divergence(step, int(numbers["skipped_in_a_row"]))

    def _check_divergence(self, step: int, in_a_row: int) -> None:
        """Raises DivergedError if too many updates up to `step` were skipped."""
        if in_a_row < self.experiment.max_skips:
            return
        first = step - in_a_row
        file = self.root / DIVERGED_FILE
        if distributed.is_first():
            batches = parts.example_indices(
                self.parts, first, self.experiment.max_skips
            )
            with contextlib.suppress(OSError):  # of a full disk; the error says more
                storage.write_whole(file, json.dumps(batches, indent=1) + "\n")
        raise DivergedError(
            f"diverged: the {self.experiment.max_skips} updates after step {first} "
            f"were skipped, each not finite or a spike; their examples are in {file}",
            where=f"step {step}",
            fix="Lower the learning rate or clip gradients; the last checkpoint is "
            f"from before ({self.checkpoints.latest()}).",
        )

    def evaluate(self, step: int, source: Source) -> None:
        """Measures the ELBO on validation data, keeps the best, makes pictures."""
        subject = subject_of(self.parts, self.state)
        estimates = likelihood.evaluate_elbo(
            subject,
            source,
            batch_size=self.experiment.data["batch_size"],
            key=self.parts.keys["evaluation"],
            num_examples=self.experiment.eval_examples,
        )
        numbers = {name: e.mean for name, e in estimates.items()}
        elbo, best = numbers["elbo"], self._best_elbo()
        if best is None or elbo > best:
            items = {"model": items_of(self.state)["model"]}
            self._save(self.best, step, items, elbo=elbo)
        grids = training_pictures(subject, source, self.parts)
        if self.writer is not None:
            self.writer.write(step, "validation", numbers)
            self.progress.say(f"step {step}  validation elbo {elbo:.2f} nats")
            self._write_pictures(step, grids)

    def _best_elbo(self) -> float | None:
        """Returns the highest validation ELBO so far; a damaged best is set aside."""
        self.best.settle()
        latest = self.best.latest()
        if latest is None:
            return None
        try:
            return self.best.read_meta(latest)["elbo"]
        except DamagedError as error:
            self._set_aside(self.best, latest, error)
            return None

    def _write_pictures(self, step: int, grids: dict[str, np.ndarray]) -> None:
        folder = self.root / "pictures"
        try:
            folder.mkdir(exist_ok=True)
            for name, image in grids.items():
                pictures.write_png(folder / f"{name}_{step:08d}.png", image)
        except OSError as error:
            logger.warning("jvae: no pictures of step %d: %s", step, error)

    def _save(self, folder: Checkpoints, step: int, items: dict, **meta: Any) -> None:
        if jax.process_count() > 1:
            # Orbax tells the saves of a process apart by counting them: two at once
            # could be counted in another order elsewhere, and wait for ever.
            for each in (self.checkpoints, self.best):
                each.settle()
        size = len(self.parts.splits.train)
        meta |= {"config": self.experiment.to_dict(), "num_examples": size}
        folder.save(step, items, meta)

    def _leave(self, step: int) -> None:
        """Ends a run that was asked to stop, once everything is on disk."""
        self._settle()
        raise StoppedError(
            f"stopped by {self.stop.name} at step {step}, checkpoint saved",
            exit_code=self.stop.exit_code,
        )

    def _settle(self) -> None:
        jax.block_until_ready(self.state)
        self.checkpoints.wait()
        self.best.wait()

    def _finish(self) -> None:
        self._settle()
        self.progress.say(
            f"done at step {int(self.state.step)}. Now: "
            f"python eval.py --workdir={self.root}"
        )

    def __enter__(self) -> Run:
        """Returns the run."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends every file."""
        self.progress.close()
        if self.writer is not None:
            self.writer.close()
        if kind is not None and issubclass(kind, DeviceError):
            return  # a save in flight would wait for a process that is gone
        self.checkpoints.close()
        self.best.close()


def items_of(state: TrainState) -> dict[str, Any]:
    """Returns the state as the two items of a checkpoint."""
    model = {"params": state.params, "ema": state.ema, "state": state.state}
    return {
        "model": model,
        "training": {
            "step": state.step,
            "opt_state": state.opt_state,
            "guard": state.guard,
        },
    }


def _last(value: np.ndarray) -> float:
    """Returns the metric of the last step of a dispatch."""
    return float(value.reshape(-1)[-1])


def training_pictures(
    subject: Subject, source: Source, built: Parts
) -> dict[str, np.ndarray]:
    """Returns the grids that training shows: reconstructions and samples."""
    key = built.keys["evaluation"]
    n = min(32, len(source))
    raw = source.read(np.arange(n))["image"]
    # NumPy in between: with many processes some arrays are global and some are not.
    image = np.asarray(subject.prepare(raw, key))
    again = samples.reconstructions(
        subject, image, key, "mean" if samples.has_codes(subject) else "sample"
    )
    show = built.transform.to_unit
    pairs = jnp.stack(
        [show(jnp.asarray(x)) for x in (image, np.asarray(again))], axis=1
    )
    drawn = jnp.asarray(samples.prior_samples(subject, key, 64, 1.0))
    return {
        "reconstructions": pictures.grid(
            np.asarray(pairs.reshape(-1, *pairs.shape[2:])), columns=8
        ),
        "samples": pictures.grid(np.asarray(show(drawn)), columns=8),
    }
