"""Runs an experiment at several values and seeds, and says how far results spread.

jvae sweep --config=configs/digits.py --workdir=DIR --seeds=5 \
    --set loss.beta=0.1,1,4

Every run is one of `jvae.training.experiment` in a folder of its own: it can be
stopped, goes on bit for bit, and can be looked at with `jvae eval` and `jvae.restore`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from jvae import import_paths, registry
from jvae.errors import (
    ConfigError,
    DivergedError,
    JvaeError,
    StoppedError,
    WorkdirError,
    nearest,
    require,
)
from jvae.runtime.preemption import StopSignal
from jvae.sweeps import table as tables
from jvae.sweeps.grid import Trial
from jvae.training.identity import check_same_run, with_later_fields, with_rule
from jvae.workdir import files
from jvae.workdir.run_folder import CONFIG_FILE, locked, read_config

OUTCOME_FILE = "outcome.json"
WHAT = {"step": "best", "params": "ema", "split": "test"}
"""What is evaluated of a run, if nothing else is asked for."""
PARAMS = ("ema", "raw")
FINAL = ("done", "diverged")
"""How a run has ended that would end so again."""

logger = logging.getLogger("jvae")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run has ended, as WORKDIR/RUN/outcome.json has it.

    Attributes:
      status: 'done', 'diverged' or 'failed'.
      asked: the config and the evaluation that it is about.
      metrics: those of results.json; {} unless it is done.
      error: one line; '' if it is done.
      exit_code: what `jvae train` or `jvae eval` would have ended with.
    """

    status: str
    asked: Mapping[str, Any]
    metrics: Mapping[str, Any]
    error: str
    exit_code: int


class Sweep:
    """The runs of a sweep in one folder.

    Args:
      trials: from `jvae.sweeps.grid.plan`.
      workdir: the folder; every run has its own in it.
      metrics: names of results.json for the table; () for all.
      **evaluation: arguments of `jvae.reports.run.evaluate_run`: step, params, split
        and the fields of `jvae.evaluation.settings.Settings`.

    Raises:
      ConfigError: an unknown or impossible setting of the evaluation.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        workdir: epath.PathLike,
        *,
        metrics: Sequence[str] = (),
        **evaluation: Any,
    ):
        from jvae.data import datasets
        from jvae.evaluation.settings import Settings
        from jvae.reports import report

        self.trials, self.metrics = trials, metrics
        self.root = files.absolute(workdir)
        self.outcomes: dict[str, Outcome] = {}
        what = {name: evaluation.pop(name, value) for name, value in WHAT.items()}
        for name, known in (("params", PARAMS), ("split", datasets.SPLITS)):
            rule = f"be one of {', '.join(known)}"
            require(what[name] in known, name, rule, what[name])
        registry.check(Settings, evaluation, "eval")
        self._evaluation = what | dataclasses.asdict(Settings(**evaluation))
        self._asked = report.strict_json(self._evaluation)

    def run(self) -> tables.Table:
        """Does what is left of every run, and returns the table, written too.

        A run that fails is noted, and the next one begins. One that is done or has
        diverged is not begun again; an evaluation alone is, if it was another.

        Raises:
          ConfigError: a metric that no run has.
          WorkdirError: the folder cannot be used, or holds a run of another config.
          StoppedError: SIGTERM or Ctrl-C has stopped it; all runs are saved.
        """
        lock = locked(self.root)
        try:
            self._check_folders()
            stored = {trial.name: self._stored(trial) for trial in self.trials}
            self.outcomes = {name: o for name, o in stored.items() if o is not None}
            with StopSignal() as stop:
                self._run_all(stop)
        finally:
            lock.release()
        return self.table

    def _check_folders(self) -> None:
        if (self.root / CONFIG_FILE).exists():
            raise WorkdirError(
                "workdir is that of a single run",
                where=str(self.root),
                fix="Name another folder for the sweep.",
            )
        for trial in self.trials:
            folder = self.root / trial.name
            if (folder / CONFIG_FILE).exists():
                check_same_run(read_config(folder), trial.config, folder)

    def _asked_of(self, trial: Trial) -> dict[str, Any]:
        return {"config": trial.config, "evaluation": self._asked}

    def _stored(self, trial: Trial) -> Outcome | None:
        """Returns how a run ended that need not run again."""
        try:
            text = files.read_own(self.root / trial.name / OUTCOME_FILE)
            outcome = Outcome(**json.loads(text))
            config = with_later_fields(dict(outcome.asked["config"]), trial.config)
            asked = self._asked_of(trial) | {"config": with_rule(trial.config, config)}
            same = {**outcome.asked, "config": config} == asked
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return outcome if same and outcome.status in FINAL else None

    def _run_all(self, stop: StopSignal) -> None:
        for number, trial in enumerate(self.trials, 1):
            stop.check()
            place = f"[{number}/{len(self.trials)}] {trial.name}"
            if trial.name not in self.outcomes:
                logger.info("%s", place)
                self.outcomes[trial.name] = self._outcome(trial, stop)
                # Compiled programs would stay, some 75 MB for a run of an MLP; the
                # next run with the same shapes finds them in the cache on disk.
                jax.clear_caches()
            outcome = self.outcomes[trial.name]
            logger.info("%s", f"{place}: {outcome.status}. {outcome.error}".strip())
            self._save(trial, outcome)
            self._check_metrics()

    def _outcome(self, trial: Trial, stop: StopSignal) -> Outcome:
        """Trains and evaluates a run, from wherever it is."""
        from jvae.reports.run import evaluate_run
        from jvae.training import experiment

        folder, asked = self.root / trial.name, self._asked_of(trial)
        try:
            experiment.run(trial.config, folder, stop)
            # What the caller's own config names may be imported, and nothing else that
            # a checkpoint in the folder may name.
            paths = import_paths.named(trial.config)
            with stop.at_once(), contextlib.redirect_stdout(io.StringIO()):
                results = evaluate_run(folder, allow_imports=paths, **self._evaluation)
        except StoppedError:
            raise
        except JvaeError as error:
            status = "diverged" if isinstance(error, DivergedError) else "failed"
            return Outcome(status, asked, {}, str(error), error.exit_code)
        return Outcome("done", asked, results["metrics"], "", 0)

    def _save(self, trial: Trial, outcome: Outcome) -> None:
        folder = self.root / trial.name
        text = json.dumps(dataclasses.asdict(outcome), indent=2) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files.write_whole(folder / OUTCOME_FILE, text)
            self.table.write(self.root)
        except OSError as error:
            raise WorkdirError(
                f"the table cannot be written: {error.strerror or error}",
                where=str(self.root),
                fix="Mend it and run the same command; no finished run is repeated.",
            ) from error

    def _done(self) -> list[Outcome]:
        return [o for o in self.outcomes.values() if o.status == "done"]

    def _check_metrics(self) -> None:
        """Raises ConfigError for a metric that is none, once every value was tried."""
        first = self.trials[0].seed
        tried = all(t.name in self.outcomes for t in self.trials if t.seed == first)
        known = {name for outcome in self._done() for name in outcome.metrics}
        for name in self.metrics:
            if tried and known and name not in known:
                raise ConfigError(
                    f"metric {name!r} is unknown", fix=nearest(name, known)
                )

    @property
    def failed(self) -> list[tuple[Trial, Outcome]]:
        """The runs that have ended without results, in their order."""
        ended = [trial for trial in self.trials if trial.name in self.outcomes]
        pairs = [(trial, self.outcomes[trial.name]) for trial in ended]
        return [(trial, outcome) for trial, outcome in pairs if outcome.error]

    @property
    def table(self) -> tables.Table:
        """What is known so far."""
        names = dict.fromkeys(name for o in self._done() for name in o.metrics)
        metrics = [name for name in names if name in (self.metrics or names)]
        groups: dict[str, list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault(trial.group, []).append(trial)
        rows = [self._row(name, group) for name in metrics for group in groups.values()]
        return tables.Table(
            fields=list(self.trials[0].values),
            rows=[row for row in rows if row is not None],
            caption=self._caption(),
            failures=[f"`{trial.name}`: {o.error}" for trial, o in self.failed],
            num_waiting=len(self.trials) - len(self.outcomes),
        )

    def _row(self, metric: str, group: Sequence[Trial]) -> tables.Row | None:
        """Returns a row; None where such runs have no such metric."""
        ended = [trial for trial in group if trial.name in self.outcomes]
        outcomes = {trial.seed: self.outcomes[trial.name] for trial in ended}
        done = {seed: o.metrics for seed, o in outcomes.items() if o.status == "done"}
        by_seed = {seed: m[metric] for seed, m in done.items() if metric in m}
        if done and not by_seed:
            return None
        first: Mapping[str, Any] = next(iter(by_seed.values()), {})
        about = {name: first.get(name, "") for name in ("unit", "kind", "meaning")}
        numbers = {seed: m["value"] for seed, m in by_seed.items()}
        finite = {seed: x for seed, x in numbers.items() if x is not None}
        count, values = len(group), group[0].values
        return tables.Row(values, metric, by_seed=finite, num_seeds=count, **about)

    def _caption(self) -> str:
        asked, seeds = self._evaluation, {trial.seed for trial in self.trials}
        return (
            f"Seeds {min(seeds)} to {max(seeds)}; {asked['split']} split, at most "
            f"{asked['num_examples']:,} examples; step {asked['step']}, "
            f"{asked['params']} parameters; {asked['num_samples']} draws of z; "
            "quartiles interpolated linearly between seeds"
        )
