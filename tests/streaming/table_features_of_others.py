"""Tables as other writers than Spark make them, each with what a stream makes of it: `docs/tables.md`."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
from deltalake.transaction import AddAction
from pyarrow import parquet as pq
from pyspark.sql import SparkSession

from .table_features import DAYS, MICROSECONDS, NEAREST, Feature, Table

ARROW = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "tiny": pa.array([-128, 127, None], pa.int8()),
        "unsigned": pa.array([0, 2**31 - 1, None], pa.uint32()),
        "large": pa.array(["a", "ü" * 40, None], pa.large_string()),
        "view": pa.array(["a", "ü" * 40, None], pa.string_view()),
        "blob_view": pa.array([b"a", b"\xff" * 40, None], pa.binary_view()),
        "codes": pa.array(["x", "y", None]).dictionary_encode(),
        "fixed": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, -0.0]], pa.list_(pa.float32(), 2)),
        "gaps": pa.array([[1.0, 2.0], [3.0, 4.0], None], pa.list_(pa.float32(), 2)),
        "large_lists": pa.array([[1], [], None], pa.large_list(pa.int64())),
        "width": pa.array([b"ab", b"cd", None], pa.binary(2)),
        "seconds": pa.array([0, -1, None], pa.timestamp("s", "UTC")),
        "millis": pa.array([0, -1, None], pa.timestamp("ms")),
        "nanos": pa.array([1000, -1000, None], pa.timestamp("ns", "Europe/Zurich")),
        "day": pa.array([0, 86_400_000, None], pa.date64()),
        "money": pa.array([Decimal("0.07"), Decimal("-6111780.02"), None], pa.decimal128(9, 2)),
        "ratio": pa.array([float("nan"), -0.0, None], pa.float32()),
        "ok": pa.array([True, False, None]),
    }
)


def _arrow(spark: SparkSession, path: str) -> None:
    deltalake.write_deltalake(path, ARROW)


def _rows(spark: SparkSession, path: str) -> None:
    rows = pa.table({"id": range(20), "value": [number * 3 % 7 for number in range(20)]})
    deltalake.write_deltalake(path, rows)
    deltalake.write_deltalake(path, pa.table({"id": [100], "value": [5]}), mode="append")


def _partitions(spark: SparkSession, path: str) -> None:
    deltalake.write_deltalake(path, pa.table({"id": range(6), "part": ["a b", "ü%/", None] * 2}), partition_by="part")


def _rust(step: Callable[[deltalake.DeltaTable], Any]) -> Callable[[SparkSession, str], None]:
    return lambda spark, path: step(deltalake.DeltaTable(path))


def _merge(table: deltalake.DeltaTable) -> None:
    rows = pa.table({"id": [4, 200], "value": [-1, -2]})
    merger = table.merge(rows, "t.id = s.id", source_alias="s", target_alias="t")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def _other_case(spark: SparkSession, path: str) -> None:
    """A file whose column has another case than the table's."""
    deltalake.write_deltalake(path, pa.table({"id": [0], "v": [7]}))
    file = Path(path, "other.parquet")
    pq.write_table(pa.table({"ID": [1, 2, 3], "V": [1, 2, 3]}), file)
    action = AddAction(file.name, file.stat().st_size, {}, 0, True, '{"numRecords": 3}')
    table = deltalake.DeltaTable(path)
    table.create_write_transaction([action], "append", table.schema())


def _polars(spark: SparkSession, path: str) -> None:
    import polars

    rows = {"id": [1, 2], "s": ["a", None], "b": [b"a", None], "n": [[1, 2], []]}
    polars.DataFrame(rows).write_delta(path)


def _duckdb(spark: SparkSession, path: str) -> None:
    import duckdb

    columns = "range AS id, range / 3 AS ratio, 'w' || range AS word, range % 2 = 0 AS ok, DATE '2024-01-01' AS day"
    deltalake.write_deltalake(path, duckdb.sql(f"SELECT {columns} FROM range(10)").to_arrow_table())


OTHER_TABLES = (
    Table("types of Arrow", "delta-rs", (
        _arrow,
        *(Feature(name, (column,), becomes=becomes) for column, name, becomes in (
            ("tiny", "int8", ""), ("unsigned", "uint32", ""), ("large", "large_string", ""), ("view", "string_view", ""),
            ("blob_view", "binary_view", ""), ("codes", "dictionary", ""), ("fixed", "fixed_size_list", ""),
            ("large_lists", "large_list", ""), ("width", "fixed_size_binary", ""),
            ("seconds", "timestamps in seconds", f"{MICROSECONDS} UTC"),
            ("millis", "timestamps in milliseconds, no zone", MICROSECONDS),
            ("nanos", "timestamps in nanoseconds, of another zone", f"{MICROSECONDS} UTC"), ("day", "date64", DAYS),
            ("money", "decimal", NEAREST), ("ratio", "float32", ""), ("ok", "boolean", ""),
        )),
        Feature(
            "fixed_size_list with a null",
            ("gaps",),
            "column gaps holds a null list of a fixed length, which Arrow does not read",
        ),
    )),
    Table("changes by delta-rs", "delta-rs", (
        _rows, Feature("append"),
        _rust(lambda table: table.delete("id % 3 = 0")), Feature("delete"),
        _rust(lambda table: table.update({"value": "0"}, predicate="id < 5")), Feature("update"),
        _rust(_merge), Feature("merge"),
        _rust(lambda table: table.optimize.compact()), Feature("optimize.compact"),
        _rust(lambda table: table.optimize.z_order(["value"])), Feature("optimize.z_order"),
        _rust(lambda table: table.create_checkpoint()), Feature("create_checkpoint"),
        _rust(lambda table: table.alter.add_columns(deltalake.Field("more", deltalake.schema.PrimitiveType("long")))),
        Feature("alter.add_columns"),
        _rust(lambda table: table.restore(1)), Feature("restore"),
    )),
    Table("partitions by delta-rs", "delta-rs", (_partitions, Feature("partitions"))),
    Table("names of another case", "delta-rs", (
        _other_case, Feature("create_write_transaction of a file with names of another case"),
    )),
    Table("polars", "polars", (_polars, Feature("write_delta: String, Binary, List")), needs="polars"),
    Table("DuckDB", "DuckDB", (_duckdb, Feature("its Arrow tables")), needs="duckdb"),
)  # fmt: skip
