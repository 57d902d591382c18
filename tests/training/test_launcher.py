import dataclasses
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JNetworkError
from pyspark.ml.torch import distributor
from pyspark.sql import SparkSession
from pyspark.traceback_utils import SCCallSiteSync

from mlspark import storage
from mlspark.commands import interruption
from mlspark.commands.interruption import Interruption
from mlspark.errors import BudgetSpent, ConfigError, TrainingFailed
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import outcome as outcomes
from mlspark.training.events import EpochEnded, Evaluated, Event, Started
from mlspark.training.launcher import launch
from mlspark.training.settings import RecoverySettings
from mlspark.training.spec import TrainingSpec

from .conftest import EPOCHS, ROWS, new_run, rank_results, ranks_of, run_torchrun, weights_manifest, write_snapshot


def assert_no_rank_is_left(spec: TrainingSpec) -> None:
    deadline = time.monotonic() + 120
    while ranks_of(spec) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ranks_of(spec) == []


def ignore(event: Event) -> None:
    pass


@pytest.mark.slow
def test_launched_ranks_do_what_torchrun_would(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot, two_ranks: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("TorchDistributor's log server listens on all interfaces")

    monkeypatch.setattr(distributor.LogStreamingServer, "start", refuse)
    spec, of_torchrun = (new_run(tmp_path / name, snapshot) for name in ("launched", "torchrun"))
    done = run_torchrun(of_torchrun)
    assert done.returncode == 0, done.stdout + done.stderr
    seen: list[Event] = []
    outcome = launch(spark, spec, seen.append)

    reported = [event.name for event in seen if isinstance(event, Started | EpochEnded | Evaluated)]
    assert reported == ["started", *["epoch"] * EPOCHS, "evaluation"]
    assert (outcome.world_size, outcome.steps, outcome.rows_per_epoch) == (2, 8 * EPOCHS, ROWS["train"])
    assert (outcome.restarts, len(outcome.epochs)) == (0, EPOCHS)
    assert 0 <= outcome.data_wait_fraction <= 1
    assert outcome.rows_per_second > 0
    # The same seed gives the same bits, whatever started the ranks.
    metrics = {split: of_split.to_json() for split, of_split in outcome.metrics.items()}
    assert metrics.keys() == {"validation", "test"}
    for other in (of_torchrun, two_ranks):
        assert metrics == rank_results(other)[0]["metrics"]
        assert weights_manifest(spec) == weights_manifest(other)
    assert_no_rank_is_left(spec)

    # Its driver may have died before it could use them: the results are there, and nothing is trained again.
    seen.clear()
    assert launch(spark, spec, seen.append).metrics == outcome.metrics
    assert seen == []
    with pytest.raises(ConfigError, match=r"a run with other settings was begun here: training\.seed 0 \(now 7\)"):
        launch(spark, new_run(tmp_path / "launched", snapshot, seed=7), ignore)


def test_exception_of_a_rank_is_raised_by_name(spark: SparkSession, tmp_path: Path) -> None:
    def spoil(split: str, table: dict[str, Any]) -> None:
        if split == "train":
            table["job"][1000] = 99  # one row, so one rank; the other waits for it

    spec = new_run(tmp_path / "run", write_snapshot(tmp_path / "table", spoil))
    message = r"rank [01] of 2 on \S+: IndexError: index out of range in self \(in epoch 1, after step \d of the run\)"
    with pytest.raises(TrainingFailed, match=message) as raised:
        launch(spark, spec, ignore)
    assert "Traceback" not in str(raised.value).splitlines()[0]
    assert re.search(r'File ".*tabular_net\.py", line \d+, in forward', str(raised.value))
    # Not again and again: the same exception at the same step cannot be fixed by a restart.
    assert "failed twice in the same way at the same step: not started again" in str(raised.value)
    assert_no_rank_is_left(spec)


def test_error_that_the_user_can_mend_comes_without_traceback(spark: SparkSession, tmp_path: Path) -> None:
    spec = new_run(tmp_path / "run", write_snapshot(tmp_path / "table"))
    victim = tmp_path / "table" / "split=train" / "part-00000.parquet"
    victim.unlink()
    with pytest.raises(TrainingFailed, match=r"rank [01] of 2 on \S+: DatasetError: .*part-00000\.parquet") as raised:
        launch(spark, spec, ignore)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.slow
def test_killed_rank_is_named(spark: SparkSession, tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, epochs=500, recovery=RecoverySettings(max_restarts=0))
    killed: list[float] = []

    def kill_one(event: Event) -> None:
        if not killed and isinstance(event, EpochEnded):
            killed.append(time.monotonic())
            os.kill(ranks_of(spec)[0], signal.SIGKILL)

    # Which of them Spark hears of first is open: the killed one, or the one that has lost it.
    with pytest.raises(TrainingFailed, match=r"rank \d of 2 on \S+: killed by SIGKILL|lost rank \d, which left no exc"):
        launch(spark, spec, kill_one)
    assert time.monotonic() - killed[0] < 120
    assert_no_rank_is_left(spec)


def test_interruption_leaves_a_checkpoint_and_says_at_which_step(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_java_in_vain(site: SCCallSiteSync, kind: type[BaseException] | None, *of: object) -> None:
        """Fail in place of the interruption, as it does at times: the line to Java is broken."""
        leave(site, kind, *of)
        if kind is Interruption:
            raise Py4JNetworkError("Answer from Java side is empty")

    leave = SCCallSiteSync.__exit__
    monkeypatch.setattr(SCCallSiteSync, "__exit__", ask_java_in_vain)
    spec = new_run(tmp_path, snapshot, epochs=500)
    seen: list[Event] = []
    interrupted: list[int] = []

    def interrupt(event: Event) -> None:
        seen.append(event)
        # Not at epoch 2 alone: a start that failed between its checkpoint and its report goes on with epoch 3.
        if not interrupted and isinstance(event, EpochEnded) and event.epoch >= 2:
            interrupted.append(event.epoch)
            os.kill(os.getpid(), signal.SIGINT)

    def launched() -> None:
        outcome = launch(spark, spec, interrupt)
        pytest.fail(
            f"ended after {outcome.restarts} restarts and {len(seen)} events, asked at {interrupted}: {seen[:10]}"
        )

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(Interruption) as raised, interruption.raised(spark):
            launched()
    finally:
        spark.sparkContext.setLogLevel("ERROR")
    assert signal.getsignal(signal.SIGINT) is before
    line = re.fullmatch(r"interrupted at step (\d+); the same command goes on", interruption.line(raised.value))
    assert line is not None
    assert interruption.status(raised.value) == 130
    assert storage.list_folders(spec.checkpoints_uri)[-1].endswith(f"step-{int(line[1]):010d}")
    assert_no_rank_is_left(spec)


def test_a_training_that_its_driver_ends_is_no_failure_of_spark(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot
) -> None:
    """So that nothing is on standard error but what the driver says, as when cost.budget is spent."""
    spec = new_run(tmp_path, snapshot, epochs=500)

    def end(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.epoch == 2:
            raise BudgetSpent("enough")

    with pytest.raises(BudgetSpent, match=r"^enough$"):
        launch(spark, spec, end)
    tracker = spark.sparkContext.statusTracker()
    last = tracker.getJobInfo(max(tracker.getJobIdsForGroup()))
    assert last is not None
    assert last.status == "SUCCEEDED"
    assert storage.list_folders(spec.checkpoints_uri)
    assert_no_rank_is_left(spec)


def test_too_few_slots_are_refused_at_once(spark: SparkSession, tmp_path: Path, snapshot: Snapshot) -> None:
    started = time.monotonic()
    message = (
        r"training\.num_processes=4 needs as many free Spark task slots, but local\[2\] has 2; "
        r"lower training\.num_processes or start Spark with --master local\[4\]"
    )
    with pytest.raises(ConfigError, match=message):
        launch(spark, new_run(tmp_path, snapshot, num_processes=4), ignore)
    assert time.monotonic() - started < 60
    assert not storage.exists(str(tmp_path / "attempts"))


@pytest.mark.parametrize(
    ("training", "lanes", "message"),
    [
        (
            {"global_batch_size": 1},
            8,
            r"global_batch_size=1 has fewer rows than training\.num_processes=2 parts; raise it",
        ),
        (
            {"global_batch_size": 7, "accumulation_steps": 4},
            8,
            r"training\.global_batch_size=7 has fewer rows than training\.num_processes=2 x accumulation_steps=4 parts",
        ),
        ({}, 1, r"training\.num_processes=2 is more than streaming\.lanes=1; set streaming\.lanes to 2"),
    ],
)
def test_ranks_that_cannot_share_the_rows_are_refused_before_any_is_started(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot, training: dict[str, Any], lanes: int, message: str
) -> None:
    """A spec that was put together in Python, whose settings no file was read for."""
    spec = new_run(tmp_path, snapshot, **training)
    spec = dataclasses.replace(spec, streaming=spec.streaming.model_copy(update={"lanes": lanes}))
    with pytest.raises(ConfigError, match=message):
        launch(spark, spec, ignore)
    assert not storage.exists(spec.attempts_uri)


def test_busy_slots_do_not_count(spark: SparkSession, tmp_path: Path, snapshot: Snapshot) -> None:
    may_end = tmp_path / "may_end"

    def occupy(_: int) -> None:
        deadline = time.monotonic() + 240
        while not may_end.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    tracker = spark.sparkContext.statusTracker()
    job = threading.Thread(target=lambda: spark.sparkContext.parallelize([0], 1).foreach(occupy))
    job.start()
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            if any(stage is not None and stage.numActiveTasks for stage in stages):
                break
            time.sleep(0.05)
        with pytest.raises(ConfigError, match=r"local\[2\] has 1; lower"):
            launch(spark, new_run(tmp_path / "run", snapshot, recovery=RecoverySettings(slots_seconds=1.0)), ignore)
    finally:
        may_end.touch()
        job.join()


def test_gpus_that_spark_does_not_know_of_are_refused(spark: SparkSession, tmp_path: Path, snapshot: Snapshot) -> None:
    with pytest.raises(ConfigError, match=r"training\.use_gpu needs spark\.task\.resource\.gpu\.amount=1, got None"):
        launch(spark, new_run(tmp_path, snapshot, use_gpu=True), ignore)


def test_executors_without_mlspark_are_told_apart(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Python that is like this one but for mlspark.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'mlspark':\n"
        "            raise ModuleNotFoundError(\"No module named 'mlspark'\", name='mlspark')\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}:$PYTHONPATH" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(spark.sparkContext, "pythonExec", str(python))
    with pytest.raises(ConfigError, match="the executors' Python cannot import mlspark; install the same mlspark"):
        launch(spark, new_run(tmp_path / "run", snapshot), ignore)


def lose_a_rank(ranks: list[Any]) -> None:
    ranks.pop()


def take_another_step(ranks: list[Any]) -> None:
    ranks[1]["steps"] += 1


def miss_a_row(ranks: list[Any]) -> None:
    ranks[0]["epochs"][1]["rows"] -= 1


def see_a_row_twice_and_another_never(ranks: list[Any]) -> None:
    ranks[0]["epochs"][2]["row_id_sum"] += 1


@pytest.mark.parametrize(
    ("doctor", "message"),
    [
        (lose_a_rank, r"rank-1\.json: no result of this rank"),
        (take_another_step, r"unequal numbers of steps: \[24, 25\]"),
        (miss_a_row, r"ranks saw \[2003, 2002, 2003\] rows in the epochs, the plan has 2003 in each"),
        (see_a_row_twice_and_another_never, "not the same ones"),
    ],
)
def test_counts_that_do_not_add_up_fail_the_run(
    tmp_path: Path, snapshot: Snapshot, two_ranks: TrainingSpec, doctor: Callable[[list[Any]], None], message: str
) -> None:
    spec = new_run(tmp_path, snapshot)
    ranks: list[Any] = rank_results(two_ranks)
    doctor(ranks)
    shutil.rmtree(spec.attempt_uri, ignore_errors=True)
    for rank, result in enumerate(ranks):
        storage.write_json(storage.join(spec.attempt_uri, f"rank-{rank}.json"), result)
    with pytest.raises(TrainingFailed, match=message):
        outcomes.collect(spec, snapshot, 2, seconds=1.0)
