"""The loop over training steps: what it logs, evaluates, saves, and when it ends."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jvae import checkpoints as ckpt
from jvae import parts, pretrained
from jvae.checkpoints import Checkpoints
from jvae.data import Source
from jvae.evaluation import likelihood, pictures, samples
from jvae.evaluation.subject import Subject
from jvae.parts import Parts
from jvae.training import TrainState
from jvae.types import Metrics
from jvae.workdir import check_same_run
from jvae.writers import MetricsWriter, Progress


def subject_of(built: Parts, state: TrainState) -> Subject:
    """Returns what evaluation looks at, with averaged parameters if there are any."""
    params = state.params if state.ema is None else state.ema
    return Subject(built.model, params, state.state, built.transform, built.devices)


class Run:
    """One run in one workdir: its state, its files, and the loop over its steps."""

    def __init__(self, built: Parts, root: epath.Path):
        self.parts, self.root, self.experiment = built, root, built.experiment
        self.report = ""
        keep = self.experiment.keep_checkpoints
        self.checkpoints = Checkpoints(root / ckpt.CHECKPOINTS, keep=keep)
        self.best = Checkpoints(root / ckpt.BEST, keep=1)
        self.state = self._restored() or self._fresh()
        self.start = int(self.state.step)
        self.writer = MetricsWriter(root, self.start)
        self.progress = Progress(self.start, self.experiment.num_steps)
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
        step = self.checkpoints.latest()
        if step is None:
            return None
        stored = self.checkpoints.read_meta(step)["config"]
        check_same_run(stored, self.experiment.to_dict(), self.root)
        items = self.checkpoints.restore(
            step, items_of(parts.abstract_state(self.parts))
        )
        return TrainState(**items["model"], **items["training"])

    def _say_start(self) -> None:
        size = sum(x.size for x in jax.tree.leaves(self.state.params))
        where = f"{self.parts.devices.size} x {jax.devices()[0].device_kind}"
        begin = f"resumed from step {self.start}" if self.start else "new run"
        self.progress.say(f"{begin} in {self.root}: {size:,} parameters on {where}")
        if self.report:
            self.progress.say(self.report)

    def train(self) -> None:
        """Does the steps that are left, then says where the results are."""
        last = self.experiment.num_steps
        if self.start >= last or self._out_of_patience(self.start):
            self.progress.say(f"already at step {self.start} of {last}")
            return
        n = self.experiment.steps_per_dispatch
        step_fn = parts.compile_step(self.parts, self.state)
        feed = parts.batches(self.parts, self.start)
        late: tuple[int, Metrics] | None = None
        for step in range(self.start + n, last + 1, n):
            self.state, metrics = step_fn(self.state, next(feed))
            # Fetching the step before leaves the device busy with this one.
            if late is not None:
                self._log(*late)
            due = step % self.experiment.log_every_steps == 0 or step == last
            late = (step, metrics) if due else None
            if self._is_due(step, "eval") or self._is_due(step, "checkpoint"):
                if late is not None:
                    self._log(*late)
                    late = None
                self._pause(step)
                if self._out_of_patience(step):
                    self.progress.say(f"no better ELBO since step {self.best.latest()}")
                    break
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

    def _pause(self, step: int) -> None:
        """Evaluates and saves, outside the time that training is measured by."""
        self.clock.stop(self.state)
        validation = self.parts.splits.validation
        if self._is_due(step, "eval") and validation is not None:
            self.evaluate(step, validation)
        if self._is_due(step, "checkpoint") or self._out_of_patience(step):
            self.checkpoints.save(step, items_of(self.state), self._meta())
        self.clock.go()

    def _log(self, step: int, metrics: Metrics) -> None:
        numbers = {k: _last(v) for k, v in jax.device_get(metrics).items()}
        if step % self.experiment.log_every_steps:  # the last step of a run, not due
            del numbers["gradient_norm"]
        annealed = self.parts.coefficients(step - 1)
        numbers |= {name: float(value) for name, value in annealed.items()}
        numbers["learning_rate"] = float(self.parts.learning_rate(step - 1))
        images = step * self.parts.experiment.data["batch_size"]
        numbers |= self.clock.lap(images)
        if jax.process_index() == 0:
            self.writer.write(step, "train", numbers)
            self.progress.report(step, numbers)

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
        elbo = numbers["elbo"]
        latest = self.best.latest()
        best = None if latest is None else self.best.read_meta(latest)["elbo"]
        if best is None or elbo > best:
            items = {"model": items_of(self.state)["model"]}
            self.best.save(step, items, {**self._meta(), "elbo": elbo})
        grids = training_pictures(subject, source, self.parts)
        if jax.process_index() == 0:
            self.writer.write(step, "validation", numbers)
            self.progress.say(f"step {step}  validation elbo {elbo:.2f} nats")
            for name, image in grids.items():
                (self.root / "pictures").mkdir(exist_ok=True)
                pictures.write_png(
                    self.root / "pictures" / f"{name}_{step:08d}.png", image
                )

    def _meta(self) -> dict[str, Any]:
        return {"config": self.experiment.to_dict()}

    def _finish(self) -> None:
        jax.block_until_ready(self.state)
        self.checkpoints.wait()
        self.best.wait()
        self.progress.say(
            f"done at step {int(self.state.step)}. Now: "
            f"python eval.py --workdir={self.root}"
        )

    def close(self) -> None:
        """Ends every file."""
        self.progress.close()
        self.writer.close()
        self.checkpoints.close()
        self.best.close()


class Clock:
    """Counts the seconds and images of training, without its pauses."""

    def __init__(self):
        self._seconds, self._since = 0.0, time.monotonic()
        self._lap: tuple[int, float] | None = None

    def stop(self, state: TrainState) -> None:
        """Begins a pause, once the device has caught up."""
        jax.block_until_ready(state.step)
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
        return {"seconds": now, "images_per_second": rate}


def items_of(state: TrainState) -> dict[str, Any]:
    """Returns the state as the two items of a checkpoint."""
    model = {"params": state.params, "ema": state.ema, "state": state.state}
    return {
        "model": model,
        "training": {"step": state.step, "opt_state": state.opt_state},
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
    raw = jnp.asarray(source.read(np.arange(n))["image"])
    image = subject.prepare(raw, key)
    again = samples.reconstructions(
        subject, image, key, "mean" if samples.has_codes(subject) else "sample"
    )
    show = built.transform.to_unit
    pairs = jnp.stack([show(image), show(again)], axis=1)
    drawn = jnp.asarray(samples.prior_samples(subject, key, 64, 1.0))
    return {
        "reconstructions": pictures.grid(
            np.asarray(pairs.reshape(-1, *pairs.shape[2:])), columns=8
        ),
        "samples": pictures.grid(np.asarray(show(drawn)), columns=8),
    }
