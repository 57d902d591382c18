"""The trials of a search: each a training run of its own, several at a time, judged by the validation rows. Driver only."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import Any

import optuna
import yaml
from optuna.trial import Trial, TrialState
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.features.tensors import Tensors
from mlspark.registry import training_inputs
from mlspark.reports import tuning_plot
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.task import Task
from mlspark.tracking import runs
from mlspark.training import learner, preflight, progress_display
from mlspark.training.events import EpochEnded
from mlspark.training.events import Event as TrainingEvent
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import TrainingSpec
from mlspark.tuning import study as studies
from mlspark.tuning.search import Search
from mlspark.tuning.study import Tried, TuneOptions, ranking

logger = logging.getLogger(__name__)

_HOPELESS = 3
"""When so many trials fail before any other ends, all will."""


@dataclass(frozen=True)
class Tuned:
    """A study with the trials that were asked for."""

    tried: tuple[Tried, ...]
    """Ended trials by number."""
    ranked: tuple[Tried, ...]
    """The complete ones, the best first; not empty."""
    run_id: str
    """The study's own run in MLflow."""
    plot_uri: str


def overlay(tried: Tried) -> str:
    """Return the values of a trial as a settings file."""
    content: dict[str, Any] = {}
    for key, value in tried.values.items():
        *sections, last = key.split(".")
        node = content
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return yaml.safe_dump(content, sort_keys=False)


def tune(
    spark: SparkSession,
    settings: Settings,
    search: Search,
    options: TuneOptions,
    *,
    tensors: Tensors,
    task: Task,
    snapshot: Snapshot,
) -> Tuned:
    """Train until the study has `options.trials` ended trials, and return them. Test rows have no say.

    Logs a line per trial. One process at a time may run a study; on an exception, Ctrl-C included, all jobs of the Spark
    session are cancelled, and the trials that ran are run again by the next call.

    Args:
        spark: an active session with a free slot for each rank of each trial at a time.
        settings: what is not searched; of a valid pipeline.
        search: what is.
        options: how.
        tensors: what the snapshot's rows are to a model.
        task: what is predicted, resolved.
        snapshot: all splits of the table to train on.

    Raises:
        ConfigError: too few slots, no validation rows, or the study is of another search or run by another process.
        StorageError: the journal of the study is damaged, or cannot be written.
        TrainingFailed: the first three trials failed, or none ended well.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not snapshot.where(split="validation").num_rows:
        raise ConfigError(
            f"{snapshot.table} version {snapshot.version}: no validation rows to compare trials by; "
            f"set split.validation_share or sources.validation and prepare again"
        )
    _check_slots(spark, settings, search, options)
    with studies.open_storage(settings, options) as store:
        study = studies.open_study(store, options, studies.identity(settings, search, options, snapshot))
        client = runs.connect(settings.tracking, settings.root)
        run = runs.reopen_run(client, study.user_attrs["run_id"]) if "run_id" in study.user_attrs else None
        is_new = run is None
        if run is None:
            tags = {"mlspark.table": snapshot.table, "mlspark.table_version": str(snapshot.version)}
            run = runs.open_run(client, settings.tracking, f"tune {options.study}", tags=tags)
        with run:
            if is_new:
                study.set_user_attr("run_id", run.run_id)
                run.log_params({"metric": options.metric, "seed": options.seed, "search": search.to_json()})
            for run_id in studies.requeue_interrupted(study):
                runs.end_abandoned(client, run_id)
            _Trials(spark, settings, search, options, tensors, task, snapshot, study, run).run_all()
            return _conclude(settings, search, options, study, run)


def _check_slots(spark: SparkSession, settings: Settings, search: Search, options: TuneOptions) -> None:
    num_processes = search.largest("training.num_processes", settings.training.num_processes)
    wanted = num_processes * options.parallel
    slots = preflight.free_slots(spark, wanted=wanted, seconds=settings.training.recovery.slots_seconds)
    if slots < wanted:
        is_local = preflight.is_local(spark)
        remedy = f"start Spark with --master local[{wanted}]" if is_local else "add executors or executor cores"
        raise ConfigError(
            f"--parallel {options.parallel} x training.num_processes={num_processes} needs as many free Spark task slots, "
            f"but {spark.sparkContext.master} has {slots}; lower one of them or {remedy}"
        )


class _Pruned(Exception):
    """A trial is worse than others were at its epoch."""


class _Stopped(Exception):
    """The search ends before its trials."""


@dataclass
class _Running:
    """A trial that trains."""

    number: int
    trial: Trial
    values: Mapping[str, Any]
    run: runs.Run
    started: float
    epochs: int = 0
    planned_epochs: int = 0
    rounds: int = 0
    """Boosting rounds of trees."""
    objective: float | None = None

    @property
    def length(self) -> str:
        """How long it trained, for people; empty if nothing is known."""
        if self.epochs:
            return f"{self.epochs} of {self.planned_epochs} epochs"
        return f"{self.rounds} rounds" if self.rounds else ""


class _Trials:
    """Keeps `parallel` trials running until the study has as many ended ones as asked for."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        search: Search,
        options: TuneOptions,
        tensors: Tensors,
        task: Task,
        snapshot: Snapshot,
        study: optuna.Study,
        run: runs.Run,
    ) -> None:
        self.spark, self.settings, self.search, self.options = spark, settings, search, options
        self.tensors, self.task, self.snapshot, self.study, self.run = tensors, task, snapshot, study, run
        self.is_stopped = Event()
        self.num_ended = sum(map(studies.has_ended, studies.latest(study).values()))
        self.num_ended_here = self.num_failed_here = 0

    def run_all(self) -> None:
        if self.num_ended:
            logger.info("study %s: has %d ended trials already", self.options.study, self.num_ended)
        with ThreadPoolExecutor(self.options.parallel, thread_name_prefix="trial") as pool:
            running: dict[Future[LearnedModel], _Running] = {}
            try:
                while True:
                    while len(running) < min(self.options.parallel, self.options.trials - self.num_ended):
                        attempt = self._start()
                        running[pool.submit(self._train, attempt)] = attempt
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._record_end(running[future], future)
                        del running[future]
            except BaseException:
                self.is_stopped.set()
                while True:  # a job that a thread was about to start is not cancelled the first time
                    self.spark.sparkContext.cancelAllJobs()
                    if not wait(running, timeout=1.0).not_done:
                        break
                for attempt in running.values():
                    attempt.run.end("KILLED")
                raise

    def _start(self) -> _Running:
        draw, trial = studies.ask(self.study, self.search, self.options.seed)
        values = self.search.values(trial.params)
        name = f"trial {draw + 1}"
        run = runs.open_run(
            self.run.client, self.settings.tracking, name, tags={"mlspark.study": self.options.study}, parent=self.run
        )
        try:
            trial.set_user_attr("run_id", run.run_id)
            run.log_params(values)
        except BaseException:
            run.end("KILLED")
            raise
        return _Running(draw + 1, trial, values, run, time.monotonic())

    def _train(self, attempt: _Running) -> LearnedModel:
        """Train one trial. Runs in a thread of the pool."""
        try:
            settings = loading.override(self.settings, attempt.values, source=self.search.file)
            tensors = settings.model.chosen(self.tensors)
            settings.model.check_tensors(tensors)
        except ConfigError as error:  # each value is allowed alone, but not these together
            raise TrainingFailed(str(error)) from error
        spec = TrainingSpec(
            run_uri=storage.join(settings.root, "runs", attempt.run.run_id),
            tensors=tensors,
            task=self.task,
            model=settings.model,
            training=settings.training,
            streaming=settings.streaming,
        )
        spec, inputs = training_inputs.resolve(
            self.run.client, spec, None, retry_seconds=settings.tracking.retry_seconds
        )
        training_inputs.keep(spec, inputs, training_inputs.fitted(spec, inputs))
        self.snapshot.save(spec.snapshot_uri)

        def follow(event: TrainingEvent) -> None:
            if self.is_stopped.is_set():
                raise _Stopped
            if isinstance(event, EpochEnded):  # an evaluation is of test rows, which are not to choose by
                self._note_epoch(attempt, event)

        return learner.learn(self.spark, spec, follow)

    def _note_epoch(self, attempt: _Running, event: EpochEnded) -> None:
        epoch, objective = event.epoch, event.validation[self.options.metric]
        if epoch <= attempt.epochs:  # again, after a restart
            return
        attempt.objective = self._checked(objective)
        attempt.run.log_metrics(progress_display.numbers(event), step=epoch)
        attempt.epochs, attempt.planned_epochs = epoch, event.epochs
        attempt.trial.report(attempt.objective, step=epoch - 1)  # the pruner's warm-up counts from 0
        if epoch < event.epochs and attempt.trial.should_prune():
            raise _Pruned

    def _checked(self, objective: float | None) -> float:
        """Return the value of the metric. Raises ConfigError where the validation rows give none."""
        if objective is None:
            raise ConfigError(
                f"--metric {self.options.metric}: cannot be computed for the validation rows of {self.snapshot.table}, as "
                f"where all of them have one class or one value; choose another, like {self.task.default_metric}"
            )
        return objective

    def _record_end(self, attempt: _Running, future: Future[LearnedModel]) -> None:
        """Record how a trial ended. Raises what is no fault of the trial."""
        error, message = future.exception(), ""
        if error is None:
            learned = future.result()
            attempt.objective = self._checked(learned.metrics["validation"][self.options.metric])
            attempt.rounds = learned.report.get("rounds", 0)
            if not attempt.epochs:
                metrics = learned.metrics["validation"].values
                attempt.run.log_metrics(
                    {f"validation_{name}": value for name, (value, _) in metrics.items() if value is not None},
                    step=attempt.rounds,
                )
            self.study.tell(attempt.trial, attempt.objective)
            attempt.run.end("FINISHED")
        elif isinstance(error, _Pruned):
            self.study.tell(attempt.trial, state=TrialState.PRUNED)
            attempt.run.end("KILLED")
        elif isinstance(error, TrainingFailed):
            message = str(error)
            attempt.trial.set_user_attr("message", message)
            self.study.tell(attempt.trial, state=TrialState.FAIL)
            attempt.run.set_tag("mlspark.message", message)
            attempt.run.end("FAILED")
        else:
            raise error
        self.num_ended += 1
        self.num_ended_here += 1
        self.num_failed_here += bool(message)
        self._log_end(attempt, "failed" if message else "" if error is None else "pruned")
        if message:
            logger.warning("trial %d: %s", attempt.number, message)
        if self.num_failed_here == self.num_ended_here == _HOPELESS:
            raise TrainingFailed(f"the first {_HOPELESS} trials all failed, the last of them: {message}")

    def _log_end(self, attempt: _Running, end: str) -> None:
        best = next(iter(ranking(studies.tried(self.study, self.search), self.options.is_minimized)), None)
        if best is not None and best.objective is not None:
            self.run.log_metrics({f"best_{self.options.metric}": best.objective}, step=self.num_ended)
        result_text = "" if attempt.objective is None else f"{self.options.title} {attempt.objective:.4f}"
        if result_text and best is not None:
            result_text += f" (best {best.objective:.4f}, trial {best.number})"
        facts = [result_text, attempt.length, end, f"{time.monotonic() - attempt.started:.0f} s"]
        names = self.search.names()
        logger.info(
            "trial %d/%d: %s; %s",
            attempt.number, self.options.trials, ", ".join(filter(None, facts)),
            ", ".join(f"{names[key]}={shown(value)}" for key, value in attempt.values.items()),
        )  # fmt: skip


def shown(value: Any) -> str:
    """Return a parameter's value for a person."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _conclude(settings: Settings, search: Search, options: TuneOptions, study: optuna.Study, run: runs.Run) -> Tuned:
    """Return the ended trials, drawn and kept with the run."""
    tried = studies.tried(study, search)
    ranked = ranking(tried, options.is_minimized)
    if not ranked:
        raise TrainingFailed(
            f"study {options.study}: none of {len(tried)} trials ended well; MLflow has their messages"
        )
    names = search.names()
    picture = tuning_plot.draw(
        f"study {options.study}",
        options.title,
        [tuning_plot.Point(trial.number, trial.state, trial.objective, trial.values) for trial in tried],
        names,
        is_minimized=options.is_minimized,
        logarithmic=search.logarithmic(),
    )
    plot_uri = storage.join(studies.folder(settings), f"{options.study}.png")
    storage.write_bytes(plot_uri, picture)
    run.log_file(picture, "tuning.png")
    run.log_file(overlay(ranked[0]).encode(), "tuned.yaml")
    return Tuned(tried, tuple(ranked), run.run_id, plot_uri)
