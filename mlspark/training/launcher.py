"""All ranks of a training run, started from the driver as one Spark barrier stage by TorchDistributor, until it is done.

A rank that raises, is killed, falls silent or loses its executor ends the stage within seconds. What happened is reported
by name, and the ranks are started again from the newest checkpoint, unless it is for the user to fix.
"""

import dataclasses
import logging
import time

import cloudpickle
from pyspark.sql import SparkSession

from mlspark import python_workers, storage
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import barrier_stage, outcome, preflight, rank
from mlspark.training.events import AttemptFailed, OnEvent, Restarting, Started
from mlspark.training.failures import AttemptFailure, final_message
from mlspark.training.outcome import TrainingOutcome
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec, check_pictures, check_ranks

logger = logging.getLogger(__name__)

_LONGEST_BACKOFF_SECONDS = 60.0


def launch(
    spark: SparkSession, spec: TrainingSpec, on_event: OnEvent, *, functions: Functions = NO_FUNCTIONS
) -> TrainingOutcome:
    """Run `spec` on `training.num_processes` ranks, one per Spark task, and return what came of it. Runs on the driver.

    Needs spec.snapshot_uri in place; writes everything else below spec.run_uri. A run that was begun there and not ended
    goes on, one that was ended is returned. Restarts failed ranks as `training.recovery` says.

    Args:
        spark: an active session whose executors reach spec.run_uri, the table and this driver.
        spec: the run.
        on_event: called in another thread for each event, in order, while the ranks run: Started, those of rank 0 (see
            `loop.fit`), RankSilent, AttemptFailed and Restarting. When it raises, the ranks are ended, and so does this.
        functions: model and loss in place of the settings', sent to the ranks.

    Raises:
        ConfigError: too few free task slots or GPUs, or what else `preflight.check` finds; or the run in spec.run_uri has
            other settings. Nothing was started.
        TrainingFailed: a rank failed (names rank, host, exception and the last lines that it logged) and a restart does
            not help, or the ranks' own counts do not add up to the rows of the split.
    """
    started = time.perf_counter()
    snapshot = Snapshot.load(spec.snapshot_uri)
    earlier = storage.list_folders(spec.attempts_uri)
    finished = outcome.finished(spec, snapshot)
    if finished is not None:
        by, world_size = finished
        logger.info("%s: trained already, by start %d", spec.run_uri, by.attempt)
        return outcome.collect(by, snapshot, world_size, time.perf_counter() - started)
    check_ranks(spec.training, spec.streaming)
    check_pictures(spec.training, spec.task, spec.tensors)
    spec.best_metric  # noqa: B018 (raises where the task has no such metric)
    preflight.check_parameters(spec, functions)
    payload = _pickled(functions)
    if spec.training.allows_copies and python_workers.are_here(spark):
        python_workers.import_once(spark, rank.IMPORTS)  # where nobody has, as before a first search of settings
        python_workers.wait_ready()
    preflight.check(spark, spec, modules=_modules(spec, functions))
    run = _Run(spark, spec, on_event, payload, num_earlier=len(earlier))
    spec, world_size = run.to_the_end()
    return outcome.collect(spec, snapshot, world_size, time.perf_counter() - started)


class _Run:
    """The starts of a run by this driver."""

    def __init__(
        self, spark: SparkSession, spec: TrainingSpec, on_event: OnEvent, functions: bytes, *, num_earlier: int
    ) -> None:
        self.spark, self.spec, self.on_event, self.functions = spark, spec, on_event, functions
        self.first_attempt = num_earlier + 1
        self.failures: list[AttemptFailure] = []

    def to_the_end(self) -> tuple[TrainingSpec, int]:
        """Start the ranks until they finish; return the start that did and its number of ranks."""
        world_size = self.spec.training.num_processes
        while True:
            attempt = self.first_attempt + len(self.failures)
            spec = dataclasses.replace(self.spec, attempt=attempt)
            spec.save()
            self.on_event(Started(attempt, world_size, spec.run_uri))
            try:
                barrier_stage.run_ranks(self.spark, spec, world_size, self.on_event, self.functions)
            except AttemptFailure as failure:
                self.on_event(AttemptFailed(attempt, str(failure)))
                self._check_restart(failure)
                world_size = self._prepare_restart(str(failure))
            else:
                return spec, world_size

    def _check_restart(self, failure: AttemptFailure) -> None:
        """Raise TrainingFailed when a restart would not help, or enough were tried."""
        is_last = len(self.failures) == self.spec.training.recovery.max_restarts
        is_repeated = bool(self.failures and failure.key and failure.key == self.failures[-1].key)
        self.failures.append(failure)
        if not failure.may_pass or is_last or is_repeated:
            raise TrainingFailed(final_message(str(failure), self.failures, is_repeated=is_repeated)) from failure

    def _prepare_restart(self, why: str) -> int:
        """Wait, and return how many ranks the next start has."""
        recovery, restart = self.spec.training.recovery, len(self.failures)
        pause = min(recovery.backoff_seconds * 2 ** (restart - 1), _LONGEST_BACKOFF_SECONDS)
        logger.warning("%s", why)
        time.sleep(pause)
        world_size = _ranks_now(self.spark, self.spec, why)
        logger.warning(
            "restart %d of %d, %d ranks, from the newest checkpoint", restart, recovery.max_restarts, world_size
        )
        self.on_event(Restarting(restart, world_size, pause))
        return world_size


def _pickled(functions: Functions) -> bytes:
    if functions == NO_FUNCTIONS:
        return b""
    try:
        return bytes(cloudpickle.dumps((functions.model, functions.loss)))
    except Exception as error:  # whatever the objects' own code raises
        raise ConfigError(
            f"the model or loss function cannot be sent to the ranks: {type(error).__name__}: {error}; make open files, "
            f"locks, sessions and the like inside the function, not outside"
        ) from error


def _modules(spec: TrainingSpec, functions: Functions) -> list[str]:
    """Return the modules that ranks import for a user's model and loss; a function that was passed is not imported."""
    names = [] if functions.model is not None else spec.model.modules()
    loss = getattr(getattr(spec.task, "loss", None), "function", "")
    if loss and functions.loss is None:
        names.append(loss.partition(":")[0])
    return names


def _ranks_now(spark: SparkSession, spec: TrainingSpec, why: str) -> int:
    """Return with how many ranks to go on: as many as wanted, or as there are slots for."""
    training = spec.training
    slots = preflight.free_slots(spark, wanted=training.num_processes, seconds=training.recovery.slots_seconds)
    least = training.recovery.min_processes or training.num_processes
    world_size = min(slots, training.num_processes)
    if world_size and world_size >= least:
        return world_size
    raise TrainingFailed(
        f"{why}\n(not started again: {slots} Spark task slots are left, training.num_processes={training.num_processes}, "
        f"training.recovery.min_processes={training.recovery.min_processes}; run again to go on when there are more)"
    )
