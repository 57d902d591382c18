"""Tables of parts: what one of two writers has written, the other does not take away, and no part is sorted."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark import tables


def test_of_two_writers_into_a_new_table_neither_loses_rows(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looked before the first had written, and is then paused: it replaced the table."""
    table, exists = str(tmp_path / "scores"), tables.exists

    def write(run: str) -> None:
        rows = spark.createDataFrame([(run, 1), (run, 2)], "run string, x int")
        tables.replace_part(rows, table, part="run", value=run, metadata={"id": run}, may_add_columns=True)

    def look(of: str) -> bool:
        was_there = exists(of)
        monkeypatch.setattr(tables, "exists", exists)
        if not was_there:
            write("first")
        return was_there

    monkeypatch.setattr(tables, "exists", look)
    write("second")
    kept = sorted(map(tuple, tables.read(spark, table).collect()))
    assert kept == [("first", 1), ("first", 2), ("second", 1), ("second", 2)]
    assert [commit.metadata["id"] for commit in tables.commits(table)] == ["second", "first"]


def sorter_bytes(spark: SparkSession) -> dict[int, int]:
    """Return the most memory that tasks took to sort or to group rows, by stage."""
    context: Any = spark.sparkContext
    scala = context._jsc.sc()
    scala.listenerBus().waitUntilEmpty()
    quantiles = context._gateway.new_array(context._jvm.double, 0)
    stages = scala.statusStore().stageList(None, False, False, quantiles, context._jvm.java.util.ArrayList())
    return {stages.apply(at).stageId(): stages.apply(at).peakExecutionMemory() for at in range(stages.size())}


@pytest.mark.parametrize("writers", ["0", "no setting"])
def test_rows_of_one_part_are_not_sorted_by_it(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: str
) -> None:
    if writers == "0":  # as it would be
        monkeypatch.setattr(tables, "_WRITERS_OF_TASK", "spark.app.of.nobody")
        spark.conf.set("spark.app.of.nobody", "0")
    rows = spark.range(5000, numPartitions=1).selectExpr("5000 - id AS x", "'first' AS run")
    before = sorter_bytes(spark)
    tables.replace_part(rows, str(tmp_path / "scores"), part="run", value="first", metadata={"id": "first"})
    of_write = [most for stage, most in sorter_bytes(spark).items() if stage not in before]
    assert of_write
    assert (max(of_write) > 0) == (writers == "0")
    assert [row.x for row in tables.read(spark, str(tmp_path / "scores")).collect()] == list(range(5000, 0, -1))
