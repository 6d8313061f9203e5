"""The loop over training steps: what it logs, evaluates, saves, and when it ends."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import logging
import shlex

import jax
import jax.numpy as jnp
import numpy as np

from jvae import registry
from jvae.errors import AloneError, DeviceError, DivergedError, StoppedError
from jvae.pretrained import image_grid
from jvae.pretrained.trained_model import TrainedModel
from jvae.runtime import distributed
from jvae.runtime.preemption import StopSignal
from jvae.training import batches, init_from, validation
from jvae.training.components import Components
from jvae.training.progress import Progress, StepTimer
from jvae.training.run_checkpoints import RunCheckpoints
from jvae.training.train_step import TrainState
from jvae.types import Metrics
from jvae.workdir import files
from jvae.workdir.metrics import MetricsWriter, read_metrics
from jvae.workdir.run_folder import RunFolder

DIVERGED_FILE = "diverged.json"
MAX_IN_FLIGHT = 8
"""Dispatches that the host may be ahead of the devices.

Enough to keep them busy; at 32, XLA's CPU client with several devices in a process and
collectives between processes locks up, all its threads launching and none computing.
"""

logger = logging.getLogger("jvae")


def trained_model_of(components: Components, state: TrainState) -> TrainedModel:
    """Returns what evaluation looks at, with averaged parameters if there are any."""
    params = state.params if state.ema is None else state.ema
    return TrainedModel(
        components.model,
        params,
        state.state,
        components.transform,
        components.devices,
        components.splits.vocabulary,
    )


class TrainingRun:
    """One run in one workdir: its state, its files, and the loop over its steps.

    Args:
      components: what the experiment is made of.
      folder: the workdir, opened.
      stop: says when somebody wants the run to end.
    """

    def __init__(self, components: Components, folder: RunFolder, stop: StopSignal):
        self.components, self.experiment = components, components.experiment
        self.folder, self.root = folder, folder.root
        self.stop, self.report = stop, ""

        self.checkpoints = RunCheckpoints(
            self.root,
            self.experiment.to_dict(),
            len(components.splits.train),
            self.experiment.keep_checkpoints,
            vocabulary=components.splits.vocabulary,
            data_digest=components.data_digest,
        )

        like = components.abstract_state()
        self.state = self.checkpoints.restored(like) or self._fresh()
        self.start = int(self.state.step)

        is_first = distributed.is_first()
        self.writer = MetricsWriter(self.root, self.start) if is_first else None
        num_steps = self.experiment.num_steps
        self.progress = Progress(self.start, num_steps, quiet=not is_first)
        self.clock = StepTimer()
        self._say_start()

    def _fresh(self) -> TrainState:
        state, loaded = self.components.create_state(), frozenset[str]()
        if self.experiment.init_from is not None:
            params, loaded, self.report = init_from.matching_params(
                state.params,
                self.experiment.init_from,
                self.components.devices,
                self.components.splits.vocabulary,
            )
            ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
            state = dataclasses.replace(state, params=params, ema=ema)
        return self.components.data_dependent_init(state, loaded)

    def _say_start(self) -> None:
        size = sum(x.size for x in jax.tree.leaves(self.state.params))
        where = f"{self.components.devices.size} x {jax.devices()[0].device_kind}"
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
        if self._lacks_evaluation() and not self.evaluate(self.start):
            self._leave(self.start)

        if self.start >= last or self._out_of_patience(self.start):
            self.progress.say(f"already at step {self.start} of {last}")
            return

        n, best = self.experiment.steps_per_dispatch, self.checkpoints.best
        step_fn = self.components.compile_step(self.state)
        train_batches = batches.training_batches(self.components, self.start)
        pending_metrics: tuple[int, Metrics] | None = None
        in_flight: collections.deque[Metrics] = collections.deque()

        for step in range(self.start + n, last + 1, n):
            self.state, metrics = step_fn(self.state, next(train_batches))
            in_flight.append(metrics)
            if len(in_flight) > MAX_IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())

            # Fetching the step before leaves the device busy with this one.
            if pending_metrics is not None:
                self._log(*pending_metrics)
            due = step % self.experiment.log_every_steps == 0 or step == last
            pending_metrics = (step, metrics) if due else None

            is_stopped = self._is_stopped()
            is_due = self._is_due(step, "eval") or self._is_due(step, "checkpoint")

            if is_due or is_stopped:
                if pending_metrics is not None:
                    self._log(*pending_metrics)
                    pending_metrics = None
                if not self._pause(step, is_stopped):
                    self._leave(step)
                if self._out_of_patience(step):
                    self.progress.say(f"no better model since step {best.latest()}")
                    break
                if is_stopped and step < last:
                    self._leave(step)

        self._settle()
        self.progress.say(
            f"done at step {int(self.state.step)}. "
            f"Now: jvae eval --workdir={shlex.quote(str(self.root))}"
        )

    def _is_stopped(self) -> bool:
        return self.stop.is_requested(self.checkpoints.states.reached_preemption)

    def _is_due(self, step: int, what: str) -> bool:
        every = registry.values(self.experiment)[f"{what}_every_steps"]
        return every > 0 and (step % every == 0 or step == self.experiment.num_steps)

    def _out_of_patience(self, step: int) -> bool:
        """Returns whether `patience` evaluations in a row have not been the best."""
        patience, best = self.experiment.patience, self.checkpoints.best.latest()
        if patience is None or best is None or not self._is_due(step, "eval"):
            return False
        return (step - best) // self.experiment.eval_every_steps >= patience

    def _lacks_evaluation(self) -> bool:
        """Returns whether the run was stopped in the evaluation of where it goes on."""
        if self.start == 0 or not self._is_due(self.start, "eval"):
            return False
        row = (self.start, "validation")

        def is_missing() -> bool:
            return row not in {
                (r["step"], r.get("split")) for r in read_metrics(self.root)
            }

        return distributed.from_first(is_missing)

    def _pause(self, step: int, is_stopped: bool) -> bool:
        """Evaluates and saves, outside the time that training is measured by.

        Returns:
          False if a signal came before the evaluation was done; all else is saved.
        """
        self.clock.stop(self.state.step)
        self.folder.check()
        self._check_divergence(step, int(self.state.guard.in_a_row))
        is_evaluated = not self._is_due(step, "eval") or self.evaluate(step)
        is_due = self._is_due(step, "checkpoint") or self._out_of_patience(step)
        if is_due or is_stopped or not is_evaluated:
            # The rows up to a checkpoint are never written again.
            if self.writer is not None:
                self.writer.flush()
            self.checkpoints.states.settle()  # it may be long, and the folder gone
            self.folder.check()
            self.checkpoints.save(step, self.state)
        self.clock.go()
        return is_evaluated

    def _log(self, step: int, metrics: Metrics) -> None:
        if jax.process_count() == 1:  # of more they look together, when they save
            self.folder.check()
        # Of a dispatch of several steps those of the last.
        fetched = jax.device_get(metrics)
        numbers = {k: float(v.reshape(-1)[-1]) for k, v in fetched.items()}
        annealed = self.components.coefficients(step - 1)
        numbers |= {name: float(value) for name, value in annealed.items()}
        # Updates that were skipped do not count for the schedule.
        done = max(step - 1 - int(numbers["skipped_updates"]), 0)
        numbers["learning_rate"] = float(self.components.learning_rate(done))
        numbers |= self.clock.lap(step * self.experiment.data["batch_size"])
        if self.writer is not None:
            self.writer.write(step, "train", numbers)
        self.progress.report(step, numbers)
        self._check_divergence(step, int(numbers["skipped_in_a_row"]))

    def _check_divergence(self, step: int, in_a_row: int) -> None:
        """Raises DivergedError if too many updates up to `step` were skipped."""
        if in_a_row < self.experiment.max_skips:
            return
        first, most = step - in_a_row, self.experiment.max_skips
        file = self.root / DIVERGED_FILE
        if distributed.is_first():
            examples = batches.example_indices(self.components, first, most)
            with contextlib.suppress(OSError):  # of a full disk; the error says more
                files.write_whole(file, json.dumps(examples, indent=1) + "\n")
        raise DivergedError(
            f"diverged: the {most} updates after step {first} "
            f"were skipped, each not finite or a spike; their examples are in {file}",
            where=f"step {step}",
            fix="Lower the learning rate or clip gradients; the last checkpoint is "
            f"from before ({self.checkpoints.states.latest()}).",
        )

    def evaluate(self, step: int) -> bool:
        """Measures the model on held-out data, keeps the best, makes pictures.

        Returns:
          False if a signal came before it was measured; then nothing is kept.
        """
        source = self.components.splits.validation
        if source is None:
            return True
        trained = trained_model_of(self.components, self.state)
        trained = dataclasses.replace(trained, before_batch=self._end_if_stopped)
        examples = self.experiment.eval_examples
        try:
            with self.stop.at_once():
                scores = validation.validate(self.components, trained, source, examples)
                grids = validation.training_pictures(self.components, trained, source)
        except StoppedError:
            return False
        self.folder.check()  # it may have been long
        self.checkpoints.save_if_best(step, self.state, scores.score)
        if self.writer is not None:
            self.writer.write(step, "validation", scores.numbers)
            self.progress.say(f"step {step}  {scores.sentence}")
            self._write_pictures(step, grids)
        return True

    def _end_if_stopped(self) -> None:
        """Ends what has nothing to save, in all processes at the same batch."""
        if self._is_stopped():
            raise StoppedError("stopped", exit_code=self.stop.exit_code)

    def _write_pictures(self, step: int, grids: dict[str, np.ndarray]) -> None:
        folder = self.root / "pictures"
        try:
            folder.mkdir(exist_ok=True)
            for name, image in grids.items():
                image_grid.write_png(folder / f"{name}_{step:08d}.png", image)
        except OSError as error:
            logger.warning("jvae: no pictures of step %d: %s", step, error)

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

    def __enter__(self) -> TrainingRun:
        """Returns the run."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends every file."""
        self.progress.close()
        if self.writer is not None:
            self.writer.close()
        if kind is not None and issubclass(kind, DeviceError | AloneError):
            return  # a save in flight would wait for a process that is gone
        self.checkpoints.close()
