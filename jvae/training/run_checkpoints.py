"""What a run keeps: its newest states, and the best model so far."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import uuid
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from jvae.errors import DamagedError, WorkdirError
from jvae.runtime import distributed
from jvae.training.identity import check_same_run
from jvae.training.train_step import Guard, TrainState
from jvae.workdir.checkpoints import BEST, CHECKPOINTS, Checkpoints, check_one_run

logger = logging.getLogger("jvae")

GUARD = "training/guard/"
"""Arrays that the checkpoints of release 0.1.0 do not have."""
COMPARED = {
    "num_examples": "{there:,} training examples there, {here:,} here",
    "vocabulary": "it has another vocabulary",
    "data_digest": "it has as many examples, and others",
}
"""What checkpoints say of the data set, and what to say where that differs.

Those of release 0.1.0 have no digest.
"""


class RunCheckpoints:
    """The checkpoints of one run, in WORKDIR/checkpoints and WORKDIR/best.

    Args:
      root: the workdir, opened.
      config: of the run, stored with every checkpoint and compared with it.
      num_examples: of training; the order of the data depends on it.
      keep: how many of the newest states stay.
      vocabulary: of a model of sentences, stored and compared too; None of others.
      data_digest: of the data set, see `jvae.data.digest`; stored and compared too.
    """

    def __init__(
        self,
        root: epath.Path,
        config: Mapping[str, Any],
        num_examples: int,
        keep: int,
        vocabulary: Any = None,
        data_digest: str | None = None,
    ):
        self._root = root
        self._is_proven = False
        self._labels: dict[str, Any] = {"config": config, "num_examples": num_examples}
        if vocabulary is not None:
            self._labels |= vocabulary.labels
        if data_digest is not None:
            self._labels["data_digest"] = data_digest
        self.states = Checkpoints(root / CHECKPOINTS, keep=keep)
        self.best = Checkpoints(root / BEST, keep=1)

    def restored(self, like: TrainState) -> TrainState | None:
        """Returns the newest state that is whole, None if nothing was ever saved.

        Damaged ones are set aside, with a warning.

        Args:
          like: shapes and places of the state.

        Raises:
          WorkdirError: the run there is another, or none of its states is whole.
        """
        self.states.recover(lambda step: self._read(step, like))
        item = {"model": items_of(like)["model"]}
        self.best.recover(lambda step: self.best.restore(step, item))
        state = self._newest(like)
        self._identify()
        return state

    def _newest(self, like: TrainState) -> TrainState | None:
        """Returns the newest state that is whole; see `restored`."""
        for step in reversed(self.states.steps()):
            state, damage = None, None
            try:
                state = self._read(step, like)
            except DamagedError as error:
                damage = error
            # Of many processes one may have read the part that is damaged.
            if not distributed.anywhere(damage is not None):
                self._is_proven = True
                return state
            self.states.set_aside(step, damage)
        damaged = self.states.set_asides()
        if damaged:
            raise WorkdirError(
                f"every checkpoint is damaged: {', '.join(damaged)}",
                where=str(self.states.folder),
                fix="Use another workdir, or remove them to start at step 0 here.",
            )
        return None

    def _read(self, step: int, like: TrainState) -> TrainState:
        """Returns the state of a step; raises DamagedError if it is not whole."""
        expected, meta = items_of(like), self.states.read_meta(step)
        self._check_same_run(meta, self._root)
        if "data_digest" in self._labels and "data_digest" not in meta:
            _warn_of_sizes(self._root)
        has_guard = any(name.startswith(GUARD) for name in meta["shapes"])
        if not has_guard:
            del expected["training"]["guard"]
        items = self.states.restore(step, expected)
        if not has_guard:
            items["training"]["guard"] = _new_guard(like.guard)
        if "run" in meta:  # since release 0.2.0
            self._labels["run"] = meta["run"]
        return TrainState(**items["model"], **items["training"])

    def _identify(self) -> None:
        """Gives the run its identity: that of its checkpoints, or a new one.

        Raises:
          WorkdirError: the best model there is of another run.
        """
        latest, theirs = self.best.latest(), None
        if latest is not None:
            where = self.best.folder / str(latest)
            with contextlib.suppress(DamagedError):  # which is not compared with
                meta = self.best.read_meta(latest)
                self._check_same_run(meta, where)
                theirs = meta.get("run")
                check_one_run(self._labels.get("run"), theirs, where)
        fresh = distributed.from_first(lambda: uuid.uuid4().hex)
        self._labels.setdefault("run", theirs or fresh)

    def _check_same_run(self, stored: Mapping[str, Any], where: epath.Path) -> None:
        """Raises WorkdirError if a checkpoint is of another config or data set."""
        check_same_run(stored["config"], self._labels["config"], where)
        for label, text in COMPARED.items():
            here = self._labels.get(label)
            there = stored.get(label, None if label == "vocabulary" else here)
            if there != here:
                changed = text.format(there=there, here=here)
                raise WorkdirError(
                    f"the data set has changed: {changed}",
                    where=str(where),
                    fix="Use the data that the run began with, or another workdir.",
                )

    def save(self, step: int, state: TrainState) -> None:
        """Begins to save a state, see `Checkpoints.save`.

        The first one of a run is read back before the run relies on it.

        Raises:
          WorkdirError: what was written cannot be read.
        """
        self._begin(self.states, step, items_of(state))
        if not self._is_proven:
            self.states.settle()
            if step in self.states.steps():  # else it failed, and the next one counts
                distributed.together(lambda: self._prove(step, state))

    def _prove(self, step: int, state: TrainState) -> None:
        try:
            self.states.restore(step, items_of(state))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):  # no room for a second state
                raise
        self._is_proven = True

    def save_if_best(self, step: int, state: TrainState, score: float) -> None:
        """Begins to save a model if no other had as high a score.

        Args:
          step: updates it was trained for.
          state: of which parameters, their average and collections are saved.
          score: of `jvae.training.validation`; not finite, it is never the best.
        """
        best = self._best_score()
        there = self.best.latest()
        # After a fallback a best model may be of a later step of this very run.
        is_later = there is None or step > there
        if math.isfinite(score) and is_later and (best is None or score > best):
            items = {"model": items_of(state)["model"]}
            self._begin(self.best, step, items, score=score)

    def _best_score(self) -> float | None:
        """Returns the highest score so far; a damaged best is set aside."""
        self.best.settle()
        latest = self.best.latest()
        if latest is None:
            return None
        try:
            score = self.best.read_meta(latest).get("score")
            return score if isinstance(score, float) else None
        except DamagedError as damage:
            self.best.set_aside(latest, damage)
            return None

    def _begin(
        self, folder: Checkpoints, step: int, items: Mapping[str, Any], **more: Any
    ) -> None:
        if jax.process_count() > 1:
            # Orbax tells the saves of a process apart by counting them: two at once
            # could be counted in another order elsewhere, and wait for ever.
            for each in (self.states, self.best):
                each.settle()
        folder.save(step, items, {**self._labels, **more})

    def wait(self) -> None:
        """Returns when everything begun is on disk.

        Raises:
          WorkdirError: the last save of a state, or of the best model, failed.
        """
        self.states.wait()
        self.best.wait()

    def close(self) -> None:
        """Waits and lets go of the folders."""
        self.states.close()
        self.best.close()


@functools.cache
def _warn_of_sizes(where: epath.Path) -> None:
    logger.warning(
        "jvae: the checkpoints in %s are of a release that stored no digest of data; "
        "only the number of examples is compared",
        where,
    )


def items_of(state: TrainState) -> dict[str, Any]:
    """Returns a state as the two items of a checkpoint."""
    model = {"params": state.params, "ema": state.ema, "state": state.state}
    training = {"step": state.step, "opt_state": state.opt_state, "guard": state.guard}
    return {"model": model, "training": training}


def _new_guard(like: Guard) -> Guard:
    """Returns a guard that has skipped nothing, placed as `like`."""
    spike_factor = None if like.norms is None else 1.0
    places = jax.tree.map(lambda s: s.sharding, like)
    # Compiled, as a buffer that two fields share could not be donated.
    return jax.jit(lambda: Guard.new(spike_factor), out_shardings=places)()
