"""Every type of PostgreSQL is read as it stands there, or makes its row bad: nothing changes in silence."""

import json
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark.contracts import check_spark
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import RAW, REASONS
from mlspark.errors import SourceError
from mlspark.sources import catalog
from mlspark.sources.jdbc import JdbcSettings
from tools.cluster.postgres import Postgres

WHOLE = 12345678901234567890123456789012345678901234567


def rows(
    spark: SparkSession, postgres: Postgres, query: str, types: dict[str, str], **settings: Any
) -> list[list[Any]]:
    """[columns of the contract as text..., reasons, raw] of each row, the way prepare goes."""
    source = catalog.find(spark, JdbcSettings(kind="jdbc", url=postgres.url, query=query, **settings), root="")
    contract = Contract(name="c", columns=tuple(ColumnRule(name=name, type=kind) for name, kind in types.items()))
    typed = check_spark.conform(catalog.read(spark, source, contract), contract)
    typed = typed.withColumn(RAW, check_spark.raw_text(typed))
    texts = typed.selectExpr(*(f"CAST(`{name}` AS STRING) AS `{name}`" for name in types), REASONS, RAW)
    return sorted(
        [
            *(row[name] for name in types),
            [(why.column, why.rule, why.value) for why in row[REASONS]],
            json.loads(row[RAW] or "{}"),
        ]
        for row in texts.collect()
    )


def reasons(spark: SparkSession, postgres: Postgres, query: str, types: dict[str, str]) -> list[Any]:
    return [row[-2] for row in rows(spark, postgres, query, types)]


def malformed(text: str) -> list[tuple[str, str, str]]:
    return [("", "malformed", text)]


TIMES = """
SELECT * FROM (VALUES (1, 'infinity'::date, NULL::timestamp, NULL::timestamptz), (2, '-infinity', NULL, NULL),
    (3, NULL, 'infinity', NULL), (4, NULL, '-infinity', NULL), (5, NULL, NULL, 'infinity'), (6, NULL, NULL, '-infinity'),
    (7, '2024-03-31', '2024-03-31 02:30:00.123456', '2024-03-31 02:30:00.1+02'), (8, NULL, NULL, NULL),
    (9, '20000-01-01', NULL, NULL)) AS v(id, d, t, z)
"""


@pytest.mark.parametrize("kinds", [("date", "timestamp", "timestamp"), ("string", "string", "string")])
def test_infinite_times_are_bad_rows_and_others_whole(
    cluster_spark: SparkSession, postgres: Postgres, kinds: tuple[str, ...]
) -> None:
    types = {"id": "int", **dict(zip("dtz", kinds, strict=True))}
    read = rows(cluster_spark, postgres, TIMES, types)
    told = ["d is infinity", "d is -infinity", "t is infinity", "t is -infinity", "z is infinity", "z is -infinity"]
    assert [row[-2] for row in read[:8]] == [*map(malformed, told), [], []]
    assert read[6][1:4] == ["2024-03-31", "2024-03-31 02:30:00.123456", "2024-03-31 00:30:00.1"]
    assert read[6][-1]["t"] == "2024-03-31T02:30:00.123456Z"
    assert read[7][1:4] == [None, None, None]
    assert (read[8][-2] == []) == (kinds[0] == "string")  # beyond what a date of a contract is
    assert [row[0] for row in rows(cluster_spark, postgres, TIMES, types, filter="id > 6")] == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("number", "kind", "value", "reason"),
    [
        ("'NaN'::numeric", "double", None, []),
        ("'NaN'::numeric(10,2)", "decimal(10,2)", None, []),
        ("'NaN'::numeric", "decimal(10,2)", None, []),
        ("'Infinity'::numeric", "double", "Infinity", [("x", "finite", "Infinity")]),
        ("'-Infinity'::numeric", "decimal(10,2)", None, [("x", "type", "-Infinity")]),
        ("1.25::numeric(50,2)", "double", "1.25", []),
        ("1.25::numeric(50,2)", "decimal(10,2)", "1.25", []),
        ("1.256::numeric", "decimal(10,2)", "1.26", [("x", "type", "1.256")]),
        ("5.000::numeric", "int", "5", []),
        ("5.5::numeric", "int", None, [("x", "type", "5.5")]),
        ("12345::numeric(5,-2)", "int", "12300", []),
        ("123456789012345678901.5::numeric", "decimal(22,1)", "123456789012345678901.5", []),
        (f"{WHOLE}::numeric(50,2)", "string", f"{WHOLE}.00", []),
        (f"{WHOLE}::numeric", "double", repr(float(WHOLE)).replace("e+", "E"), []),
        ("2 / 3::numeric", "double", "0.6666666666666666", []),
        ("1.5e400::numeric", "double", "Infinity", [("x", "finite", "Infinity")]),
        ("1.5e-400::numeric", "double", "0.0", []),
        ("611178.02::numeric(8,2)", "decimal(8,2)", "611178.02", []),
    ],
)
def test_numbers_keep_their_digits_or_are_bad(
    cluster_spark: SparkSession, postgres: Postgres, number: str, kind: str, value: str | None, reason: list[Any]
) -> None:
    [row] = rows(cluster_spark, postgres, f"SELECT 1 AS id, {number} AS x", {"id": "int", "x": kind})
    assert row[-2] == reason
    assert row[1] == value or reason


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        ("'10:11:12.123456'::time", "10:11:12.123456"),
        ("'24:00:00'::time", "24:00:00"),
        ("'10:11:12+02'::timetz", "10:11:12+02"),
        ("ARRAY['infinity', '2024-03-31 02:30:00.123456']::timestamp[]", '["infinity","2024-03-31T02:30:00.123456"]'),
        ("ARRAY['infinity']::date[]", '["infinity"]'),
        ("ARRAY['10:11:12.123456']::time[]", '["10:11:12.123456"]'),
        ("ARRAY[0.10000000000000000000001, 'NaN']", '[0.1,"NaN"]'),
        ("'1 mon 2 days 03:04:05.678'::interval", "1 mon 2 days 03:04:05.678"),
        ("ARRAY[1, NULL]", "[1,null]"),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("b'101'", "101"),
        ("1234.56::numeric::money", "$1,234.56"),
        ("4000000000::oid", "4000000000"),
        ("'[1, 2]'::jsonb", "[1, 2]"),
        ("'ab'::char(5)", "ab   "),
        ("int4range(1, 5)", "[1,5)"),
        ("ROW(1, 'x')", "(1,x)"),
    ],
)
def test_other_types_are_text(cluster_spark: SparkSession, postgres: Postgres, stored: str, value: str) -> None:
    query = f"SELECT 1 AS id, {stored} AS x"
    [row] = rows(cluster_spark, postgres, query, {"id": "int", "x": "string"})
    assert row[1:3] == [value, []]
    [row] = rows(cluster_spark, postgres, query, {"id": "int"})
    assert row[-2] == []


@pytest.mark.parametrize(
    ("odd", "others"),
    [
        ("'NaN'::numeric(10,2)", "i::numeric(10,2)"),
        ("'NaN'::numeric", "i::numeric"),
        ("'infinity'::date", "'2024-01-01'::date + i"),
        ("'-infinity'::timestamp", "'2024-01-01'::timestamp + i * '1 day'::interval"),
        ("'infinity'::timestamptz", "'2024-01-01'::timestamptz + i * '1 day'::interval"),
        ("'20000-03-15'::date", "'2024-01-01'::date + i"),
        ("'0044-03-15 BC'::timestamp", "'2024-01-01'::timestamp + i * '1 day'::interval"),
    ],
)
def test_connections_share_every_row_whatever_the_column_holds(
    cluster_spark: SparkSession, postgres: Postgres, odd: str, others: str
) -> None:
    query = f"SELECT i AS id, CASE WHEN i = 3 THEN {odd} ELSE {others} END AS p FROM generate_series(1, 6) AS i"
    read = rows(cluster_spark, postgres, query, {"id": "int"}, partition_column="p", num_partitions=3)
    assert [row[0] for row in read] == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("CASE WHEN i = 3 THEN 'NaN' ELSE i::float8 END", r"partition_column .*: p is from 1.0 to NaN, which"),
        (
            "CASE WHEN i = 3 THEN 'Infinity' ELSE i::numeric END",
            r"partition_column .*: p is from 1.0 to Infinity, which",
        ),
        ("i = 3", r"partition_column .*: p is boolean, which connections cannot share out"),
        ("'10:00'::time", r"partition_column .*: p is string, which connections cannot share out"),
        ("ARRAY[1::money]", r"Unrecognized SQL type .*_money.*; have `query` name the columns to read"),
    ],
)
def test_column_that_cannot_share_out_rows_is_named(
    cluster_spark: SparkSession, postgres: Postgres, column: str, message: str
) -> None:
    query = f"SELECT i AS id, {column} AS p FROM generate_series(1, 6) AS i"
    with pytest.raises(SourceError, match=message):
        rows(cluster_spark, postgres, query, {"id": "int"}, partition_column="p", num_partitions=3)
