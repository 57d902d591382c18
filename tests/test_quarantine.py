"""The quarantine: made with and without bad rows, and the same either way."""

import stat
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from mlspark import quarantine, tables
from mlspark.contracts.own_columns import RAW, REASONS, SOURCE, SOURCE_FILE
from mlspark.errors import TableError

REASONS_TYPE = "array<struct<column:string,rule:string,value:string>>"


def bad_rows(spark: SparkSession, *lines: str) -> DataFrame:
    rows = [("learn", "a.csv", [("age", "min", "-1")], line) for line in lines]
    return spark.createDataFrame(rows, f"{SOURCE} string, {SOURCE_FILE} string, {REASONS} {REASONS_TYPE}, {RAW} string")


def test_one_without_rows_is_the_table_that_rows_would_have_made(spark: SparkSession, tmp_path: Path) -> None:
    empty, full = str(tmp_path / "store" / "empty"), str(tmp_path / "store" / "full")
    quarantine.write(bad_rows(spark), empty, "first", 0)
    quarantine.write(bad_rows(spark, "-1,x"), full, "first", 1)
    made, written = DeltaTable(empty), DeltaTable(full)
    assert made.schema().to_json() == written.schema().to_json()
    assert made.metadata().partition_columns == written.metadata().partition_columns == ["job_id"]
    assert str(made.protocol()) == str(written.protocol())
    assert stat.S_IMODE((tmp_path / "store" / "empty").stat().st_mode) == 0o700
    assert quarantine.read(spark, empty, ["first"]).count() == 0
    quarantine.write(bad_rows(spark), empty, "second", 0)
    assert tables.opened(empty).version() == 0


def test_rows_follow_in_a_table_that_was_made_without(spark: SparkSession, tmp_path: Path) -> None:
    table = str(tmp_path / "quarantine")
    quarantine.write(bad_rows(spark), table, "first", 0)
    quarantine.write(bad_rows(spark, "-1,x", "-1,y"), table, "second", 2)
    quarantine.write(bad_rows(spark, "-1,z"), table, "second", 1)  # the same job anew
    [row] = quarantine.read(spark, table, ["first", "second"]).collect()
    assert (row.job_id, row.source, row.source_file, row.raw) == ("second", "learn", "a.csv", "-1,z")
    assert [reason.asDict() for reason in row.reasons] == [{"column": "age", "rule": "min", "value": "-1"}]


def test_of_two_jobs_that_make_it_both_go_on(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = str(tmp_path / "quarantine")
    monkeypatch.setattr(tables, "exists", lambda table: False)
    quarantine.write(bad_rows(spark), table, "first", 0)
    quarantine.write(bad_rows(spark), table, "second", 0)
    assert DeltaTable(table).version() == 0


def test_place_that_holds_no_table_is_named(spark: SparkSession, tmp_path: Path) -> None:
    table = tmp_path / "quarantine"
    table.mkdir()
    (table / "_delta_log").write_text("no folder")
    with pytest.raises(TableError, match=rf"{table}: cannot be made \(.+\); see to the store"):
        quarantine.write(bad_rows(spark), str(table), "first", 0)
