"""Ctrl-C while Java works: its jobs end at once, and nothing is logged of it."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mlspark.commands import interruption
from mlspark.commands.interruption import Interruption

from ..conftest import wait_until


def test_spark_is_cancelled_and_silent_though_the_main_thread_waits_for_it(spark: SparkSession, tmp_path: Path) -> None:
    begun, context = tmp_path / "begun", spark.sparkContext
    is_over = threading.Event()

    def work(_: int) -> None:
        begun.touch()
        time.sleep(600)

    def interrupt() -> None:
        wait_until(lambda: begun.exists() or is_over.is_set())
        if not is_over.is_set():  # else this would end the tests
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    log4j = spark._jvm.org.apache.logging.log4j  # type: ignore[union-attr]
    loggers = [log4j.LogManager.getLogger(f"org.apache.spark.{name}") for name in ("executor.Executor", "scheduler.X")]
    try:
        thread.start()
        with pytest.raises(Interruption) as raised, interruption.raised(spark):
            context.parallelize([0], 1).foreach(work)
        assert {str(logger.getLevel()) for logger in loggers} == {"OFF"}
        wait_until(lambda: not context.statusTracker().getActiveJobsIds())
    finally:
        is_over.set()
        thread.join()
        context.setLogLevel("ERROR")
    assert interruption.status(raised.value) == 130
    wait_until(lambda: "interruption" not in {each.name for each in threading.enumerate()})


def test_what_fails_on_the_way_out_is_not_told_in_its_place(spark: SparkSession) -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)
        finally:
            raise ConnectionError("Answer from Java side is empty")

    try:
        with pytest.raises(Interruption) as raised, interruption.raised(spark):
            work()
    finally:
        spark.sparkContext.setLogLevel("ERROR")
    assert interruption.status(raised.value) == 143


def test_interruption_that_is_swallowed_is_said_at_the_end(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[type[BaseException] | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: dropped.append(unraisable.exc_type))

    class Finalized:
        """Python drops what a finalizer raises, as it does where py4j tells Java that an object is not needed any more."""

        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(60)

    try:
        with pytest.raises(Interruption), interruption.raised(spark):
            Finalized()
        assert dropped == [Interruption]
    finally:
        spark.sparkContext.setLogLevel("ERROR")
