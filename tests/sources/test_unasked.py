"""A column that cannot be read stops nothing where nobody asks for it, and is named with file and remedy where one does."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import SourceError
from mlspark.intake import draft, rows
from mlspark.sources import catalog
from mlspark.sources.parquet import ParquetSettings


def contract(*names: str) -> Contract:
    return Contract(
        name="people",
        columns=tuple(ColumnRule(name=name, type="bigint" if name == "id" else "string") for name in names),
    )


def read(spark: SparkSession, folder: Path, *names: str, **settings: Any) -> list[Any]:
    """The columns of every row, the way prepare goes."""
    source = catalog.find(spark, ParquetSettings(kind="parquet", path=str(folder), **settings), root="/")
    asked = contract(*names)
    rows.compare_columns(spark, {"learn": source}, asked)
    return sorted(tuple(row) for row in catalog.read(spark, source, asked).select(*names).collect())


UNREAD = {
    "nanoseconds": pa.array([1000, 2001], pa.timestamp("ns")),
    "milliseconds of a day": pa.array([1, 2], pa.time32("ms")),
    "half floats": pa.array(np.array([1, 2], np.float16)),
    "50 digits": pa.array([1, 2], pa.decimal256(50, 2)),
    "nanoseconds in lists": pa.array([[1000], [2]], pa.list_(pa.timestamp("ns"))),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_types_that_spark_does_not_read_stop_only_who_asks(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    pq.write_table(pa.table({"id": [1, 2], "x": UNREAD[kind]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [3]}), tmp_path / "b.parquet")
    assert read(spark, tmp_path, "id") == [(1,), (2,), (3,)]
    remedy = (
        "write it in microseconds .pandas: coerce_timestamps='us'" if "nano" in kind else "write it as another type"
    )
    message = (
        rf"contract people: x is '.* x .*' in file:.*/a\.parquet, which Spark does not read; {remedy}.*, or leave it"
    )
    with pytest.raises(SourceError, match=f"(?s){message}"):
        read(spark, tmp_path, "id", "x")
    with pytest.raises(SourceError, match=r"cannot be resolved.*; x is '"):
        read(spark, tmp_path, "id", filter="x IS NOT NULL")


def test_types_that_differ_stop_only_who_asks(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "x": pa.nulls(1)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [2], "x": ["a"]}), tmp_path / "b.parquet")
    assert read(spark, tmp_path, "id") == [(1,), (2,)]
    with pytest.raises(
        SourceError, match=r"files differ: x is '.*UNKNOWN.*' in .*a\.parquet and '.*STRING.*' in .*b\.pa"
    ):
        read(spark, tmp_path, "id", "x")


def test_unsigned_and_missing_columns_are_read(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": [1], "u": pa.array([2**64 - 1], pa.uint64()), "n": pa.nulls(1)}), tmp_path / "a.parquet"
    )
    assert read(spark, tmp_path, "id", "u", "n") == [(1, 2**64 - 1, None)]


@pytest.mark.parametrize(("folder", "column"), [("country", "country"), ("Country", "country"), ("country", "COUNTRY")])
def test_column_of_files_and_folders_is_refused(spark: SparkSession, tmp_path: Path, folder: str, column: str) -> None:
    (tmp_path / f"{folder}=DE").mkdir()
    pq.write_table(pa.table({"id": [1], column: ["FR"]}), tmp_path / f"{folder}=DE" / "a.parquet")
    assert read(spark, tmp_path, "id") == [(1,)]
    message = (
        rf"{column} is a column of file:.*/a\.parquet and the name of folders \({folder}=DE\), whose values may differ"
    )
    for name in {folder, column}:
        with pytest.raises(SourceError, match=message):
            read(spark, tmp_path, "id", name)
    with pytest.raises(SourceError, match=f"cannot be resolved.*; {message}"):
        read(spark, tmp_path, "id", filter=f"{column} = 'DE'")
    drafted = draft.draft_from(spark, ParquetSettings(kind="parquet", path=str(tmp_path)), name="people")
    assert drafted.contract.names == ("id",)
    assert any("left out: " in note and f"({folder}=DE)" in note for note in drafted.notes)
