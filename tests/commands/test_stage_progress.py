"""Progress of Spark's stages: lines in a file, one line that changes on a terminal, nothing of what is quick."""

import io
import logging
import re
import threading
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark.commands import stage_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def until(path: str) -> Any:
    """A task that ends when a file is there."""
    import os
    import time

    def wait(rows: Any) -> Any:
        while not os.path.exists(path):
            time.sleep(0.02)
        return rows

    return wait


@pytest.mark.parametrize("output", [io.StringIO(), Terminal()])
def test_running_stages_are_told(
    spark: SparkSession, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, output: io.StringIO
) -> None:
    monkeypatch.setattr(stage_progress, "_SECONDS_OF_A_TERMINAL", 0.05)
    end = tmp_path / "end"
    context = spark.sparkContext

    def job() -> None:
        context.parallelize(range(4), 4).mapPartitions(until(str(end))).count()

    work = threading.Thread(target=job)
    with stage_progress.shown(spark, "prepare", output=output, seconds=0.05):
        work.start()
        while "tasks" not in output.getvalue():
            assert work.is_alive()
        end.touch()
        work.join()
    told = output.getvalue()
    assert re.search(r"prepare: \d+ s, stage \d+: \d of 4 tasks", told)
    assert ("\r" in told) is output.isatty()
    assert ("\n" in told) is not output.isatty()
    assert told.endswith(("\n", "\r\x1b[K"))


def test_nothing_is_said_while_nothing_runs(spark: SparkSession) -> None:
    output = io.StringIO()
    with stage_progress.shown(spark, "prepare", output=output):
        spark.range(3).count()
    assert output.getvalue() == ""
    assert stage_progress.stages(spark) == ""


def test_log_lines_take_the_place_of_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    for output, expected in ((io.StringIO(), "read 3 rows\n"), (Terminal(), "\r\x1b[Kread 3 rows\n")):
        monkeypatch.setattr("sys.stdout", output)
        handler = stage_progress.Handler()
        handler.emit(logging.makeLogRecord({"msg": "read %s rows", "args": (3,)}))
        assert output.getvalue() == expected
