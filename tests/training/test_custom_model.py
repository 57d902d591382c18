"""A model and a loss of one's own, given to `mlspark.training.launch` as functions or by name."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn

import mlspark.training
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.features.tensors import Tensors
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import checkpoint
from mlspark.training.events import AttemptFailed, EpochEnded, Event, Resumed
from mlspark.training.launcher import launch
from mlspark.training.settings import RecoverySettings
from mlspark.training.spec import TrainingSpec

from ..conftest import wait_until
from . import conftest, forked_ranks
from .conftest import ROWS, new_run, rank_results, ranks_of
from .test_launcher import assert_no_rank_is_left

COLUMNS: dict[str, Any] = {"dense": ["age", "hours"], "ids": {"job": 7}}
FAST = {"epochs": 2, "global_batch_size": 256, "num_processes": 2}


def linear(bias: bool) -> Callable[[Tensors, int], nn.Module]:
    """A function as a notebook has it: known to no module that a rank could import."""

    class Linear(nn.Module):
        def __init__(self, tensors: Tensors, num_outputs: int) -> None:
            super().__init__()
            self.layer = nn.Linear(tensors.num_dense, num_outputs, bias=bias)

        def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(dense)
            return logits

    return Linear


@pytest.mark.slow
def test_functions_of_a_notebook_are_trained(spark: SparkSession, tmp_path: Path, snapshot: Snapshot) -> None:
    def hinge(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return (1 - (2 * label - 1) * logits).relu()

    seen: list[str] = []
    outcome = mlspark.training.launch(
        linear(bias=False), snapshot, **COLUMNS, loss=hinge, folder=str(tmp_path),
        training=FAST | {"optimizer": {"learning_rate": 0.1}},
        on_event=lambda event: seen.append(event.name),
    )  # fmt: skip
    assert outcome.rows_per_epoch == ROWS["train"]
    auc = outcome.metrics["test"]["roc_auc"]
    assert auc is not None
    assert auc > 0.8
    assert list(checkpoint.load(outcome.checkpoint_uri).weights) == ["layer.weight"]
    assert seen.count("epoch") == 2


def fail(tensors: Tensors, num_outputs: int) -> nn.Module:
    raise ZeroDivisionError("no such model")


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("model", "training", "error", "message"),
    [
        (lambda tensors, num_outputs: LOCK, {}, ConfigError, "cannot be sent to the ranks: TypeError: cannot pickle .*lock"),
        ("no_such_package.models:make", {}, ConfigError, "module no_such_package.models is not there; install it"),
        (linear(bias=True), {"num_processes": 3}, ConfigError, "training.num_processes=3 needs as many free"),
        (linear(bias=True), {"use_gpu": True}, ConfigError, "needs spark.task.resource.gpu.amount=1, got None"),
        (linear(bias=True), {"precision": "fp16"}, ConfigError, "training.precision=fp16 needs training.use_gpu=true"),
        (linear(bias=True), {"epoch": 3}, ConfigError, "training.epoch: Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_before_any_rank_starts(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot, model: Any, training: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        mlspark.training.launch(model, snapshot, **COLUMNS, training=FAST | training, folder=str(tmp_path / "run"))
    assert not (tmp_path / "run" / "attempts").exists()


def test_session_is_found_in_another_thread(spark: SparkSession, tmp_path: Path, snapshot: Snapshot) -> None:
    """There it is not Spark's active one; nor is it anywhere after an interruption, which ends the connection to Java."""
    training = FAST | {"num_processes": 3}
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigError, match="needs as many free"):
        pool.submit(
            mlspark.training.launch, linear(bias=True), snapshot, **COLUMNS, training=training, folder=str(tmp_path)
        ).result()


@pytest.mark.slow
def test_function_that_fails_is_named_with_its_own_exception(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot
) -> None:
    training = FAST | {"recovery": {"max_restarts": 0}}
    with pytest.raises(TrainingFailed, match=r"rank [01] of 2 on \S+: ZeroDivisionError: no such model") as raised:
        mlspark.training.launch(fail, snapshot, **COLUMNS, training=training, folder=str(tmp_path))
    assert ", in fail" in str(raised.value)


@pytest.mark.slow
def test_event_handler_that_raises_ends_the_ranks(spark: SparkSession, tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, epochs=500)

    def prune(event: Event) -> None:
        if isinstance(event, EpochEnded):
            raise InterruptedError("enough")

    started = time.monotonic()
    with pytest.raises(InterruptedError, match="enough"):
        launch(spark, spec, prune)
    assert time.monotonic() - started < 240
    assert_no_rank_is_left(spec)
    assert checkpoint.newest(spec.checkpoints_uri, spec.identity(snapshot.fingerprint)) is not None


@pytest.mark.slow
def test_cancelled_job_leaves_a_checkpoint_and_no_rank(spark: SparkSession, tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, epochs=500)
    epochs: list[int] = []

    def cancel(event: Event) -> None:
        if isinstance(event, EpochEnded):
            epochs.append(event.epoch)
            if event.epoch == 2:
                spark.sparkContext.cancelAllJobs()

    with pytest.raises(TrainingFailed, match="the Spark job was cancelled; run again to go on"):
        launch(spark, spec, cancel)
    assert_no_rank_is_left(spec)
    found = checkpoint.newest(spec.checkpoints_uri, spec.identity(snapshot.fingerprint))
    assert found is not None
    # Of the last step before the end, not of the last epoch.
    assert found.about["progress"]["steps"] >= 8 * epochs[-1]


@pytest.mark.slow
def test_run_goes_on_with_fewer_ranks_when_slots_are_gone(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot, two_ranks: TrainingSpec
) -> None:
    recovery = RecoverySettings(backoff_seconds=3.0, slots_seconds=0.5, min_processes=1)
    spec, may_end = new_run(tmp_path / "run", snapshot, recovery=recovery), tmp_path / "may_end"

    def occupy(_: int) -> None:
        deadline = time.monotonic() + 240
        while not may_end.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    other = threading.Thread(target=lambda: spark.sparkContext.parallelize([0], 1).foreach(occupy))

    def kill_one(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.epoch == 1 and not other.ident:
            victim = ranks_of(spec)[-1]
            os.kill(victim, signal.SIGSTOP)  # or they would be done before the other job is there
            other.start()  # waits for a slot, and takes the first that is free
            wait_until(lambda: len(spark.sparkContext.statusTracker().getActiveJobsIds()) == 2)
            os.kill(victim, signal.SIGKILL)

    outcome = launch(spark, spec, kill_one)
    may_end.touch()
    other.join()
    assert (outcome.world_size, outcome.restarts) == (1, 1)
    # The same batches: float sums in another order, no more.
    losses = [epoch.train_loss for epoch in outcome.epochs]
    assert losses == pytest.approx([epoch["train_loss"] for epoch in conftest.epochs(two_ranks)], rel=1e-5)


def test_killed_rank_is_started_again_and_nothing_is_lost(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot
) -> None:
    undisturbed = new_run(tmp_path / "undisturbed", snapshot, dropout=0.2)
    done = forked_ranks.run(undisturbed)
    assert done.returncode == 0, done.output
    spec = new_run(tmp_path / "hurt", snapshot, dropout=0.2, recovery=RecoverySettings(backoff_seconds=0.1))
    reported: list[Event] = []

    def kill_one(event: Event) -> None:
        reported.append(event)
        has_failed = any(isinstance(each, AttemptFailed) for each in reported)
        if isinstance(event, EpochEnded) and event.epoch == 2 and not has_failed:
            os.kill(ranks_of(spec)[-1], 9)

    outcome = launch(spark, spec, kill_one)
    assert outcome.restarts == 1
    assert [event.name for event in reported].count("restarting") == 1
    [resumed] = [event for event in reported if isinstance(event, Resumed)]
    assert 8 <= resumed.step <= 24
    weights, expected = (checkpoint.load(uri).weights for uri in (outcome.checkpoint_uri, undisturbed.best_uri))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    metrics = {split: of_split.to_json() for split, of_split in outcome.metrics.items()}
    assert metrics == rank_results(undisturbed)[0]["metrics"]
    assert_no_rank_is_left(spec)
