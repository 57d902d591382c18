"""Tables under two writers at once: what one has written, the other does not take away."""

from pathlib import Path

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
