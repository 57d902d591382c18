"""Conditions hold for the rows for which Spark says so: on rows, on partitions, on statistics, in any layout."""

import datetime as dt
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq
from pyspark.sql import SparkSession

from mlspark.errors import DatasetError
from mlspark.streaming import delta_files
from mlspark.streaming.filters import OPERATORS, ValueRange, conditions
from mlspark.streaming.schema import table_columns
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream

NAN, INF = float("nan"), float("inf")
UTC = dt.UTC


def single(value: float) -> float:
    """The nearest float of 32 bits."""
    return struct.unpack("f", struct.pack("f", value))[0]


@dataclass(frozen=True)
class Kind:
    """A type of columns, values of it near each other, and how Spark writes one."""

    delta: str
    arrow: pa.DataType
    spark: str
    values: tuple[Any, ...]

    def literal(self, value: Any) -> str:
        if isinstance(value, float):
            text = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(str(value), repr(value))
            return f"CAST('{text}' AS {self.spark})"
        if isinstance(value, bytes):
            return f"X'{value.hex()}'"
        return f"CAST('{value}' AS {self.spark})"

    def order(self, value: Any) -> Any:
        """What Python orders as Spark orders the value."""
        if isinstance(value, float):
            return (1, 0.0) if math.isnan(value) else (0, value)
        return value.encode() if isinstance(value, str) else value


MOMENT = dt.datetime(2024, 2, 29, 12, 30, 0, 1)
DAYS = (dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(2024, 2, 29), dt.date(9999, 12, 31))
TIMES = (dt.datetime(1, 1, 1), dt.datetime(1969, 12, 31), MOMENT, dt.datetime(9999, 12, 31))
MONEY = tuple(map(Decimal, ("-9999999.99", "-0.01", "0.00", "6111780.02")))
LONG_DECIMALS = tuple(map(Decimal, ("-9007199254740993.0000000001", "0.0000000001", "9007199254740993.0000000001")))
KINDS = {
    kind.delta: kind
    for kind in (
        Kind("byte", pa.int8(), "TINYINT", (-128, -1, 0, 1, 127)),
        Kind("integer", pa.int32(), "INT", (-(2**31), -1, 0, 7, 2**31 - 1)),
        Kind("long", pa.int64(), "BIGINT", (-(2**63), -1, 0, 2**53, 2**53 + 1, 2**63 - 1)),
        Kind("float", pa.float32(), "FLOAT", (-INF, -1.5, -0.0, 0.0, single(0.1), INF, NAN)),
        Kind("double", pa.float64(), "DOUBLE", (-INF, -1.5, -0.0, 0.0, 0.1, 12.0, INF, NAN)),
        Kind("decimal(9,2)", pa.decimal128(9, 2), "DECIMAL(9,2)", MONEY),
        Kind("decimal(38,10)", pa.decimal128(38, 10), "DECIMAL(38,10)", LONG_DECIMALS),
        Kind("boolean", pa.bool_(), "BOOLEAN", (False, True)),
        Kind("date", pa.date32(), "DATE", DAYS),
        Kind("timestamp_ntz", pa.timestamp("us"), "TIMESTAMP_NTZ", TIMES),
        Kind("timestamp", pa.timestamp("us", "UTC"), "TIMESTAMP", tuple(at.replace(tzinfo=UTC) for at in TIMES)),
        Kind("string", pa.string(), "STRING", ("", "A", "a", "a b", "z" * 70, "z" * 70 + "a", "ä", "\ue000", "\U0001f600")),
        Kind("binary", pa.binary(), "BINARY", (b"", b"\x00", b"\x7f", b"\x80", b"\xff" * 70, b"\xff" * 70 + b"\x00")),
    )
}  # fmt: skip


def satisfies(kind: Kind, value: Any, operator: str, wanted: Any) -> bool:
    """Spark's answer, by Python's order of `Kind.order`."""
    if value is None:
        return False
    if operator == "in":
        return any(kind.order(value) == kind.order(choice) for choice in wanted)
    left, right = kind.order(value), kind.order(wanted)
    return {
        "=": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[operator]


def comparison(delta_type: Any, operator: str, value: Any, **metadata: Any):
    columns = table_columns({"fields": [{"name": "x", "type": delta_type, "metadata": metadata}]})
    return conditions([("x", operator, value)], columns, set(), "t").on_rows[0]


def test_comparisons_of_every_type_are_those_of_spark(spark: SparkSession) -> None:
    expected: dict[str, list] = {}
    queries = []
    for kind in KINDS.values():
        values = ", ".join(f"({index}, {kind.literal(value)})" for index, value in enumerate(kind.values))
        table = f"(VALUES {values}, ({len(kind.values)}, CAST(NULL AS {kind.spark})))"
        signs = ", ".join(f"coalesce(a.v {sign} b.v, false)" for sign in OPERATORS[:-1])
        queries.append(
            f"SELECT '{kind.delta}' AS kind, a.n AS left, b.n AS right, array({signs}) AS holds "
            f"FROM {table} AS a(n, v) CROSS JOIN {table} AS b(n, v) WHERE b.v IS NOT NULL"
        )
    for row in spark.sql(" UNION ALL ".join(queries)).collect():
        expected.setdefault(row.kind, []).append((row.left, row.right, row.holds))
    for name, kind in KINDS.items():
        values = pa.array([*kind.values, None], kind.arrow)
        given = [
            (left, right, [bool(comparison(kind.delta, sign, wanted).holds(values)[left]) for sign in OPERATORS[:-1]])
            for left in range(len(values))
            for right, wanted in enumerate(kind.values)
        ]
        assert given == sorted(expected[name]), name
        assert all(  # the tests below go by this
            holds == [satisfies(kind, [*kind.values, None][left], sign, kind.values[right]) for sign in OPERATORS[:-1]]
            for left, right, holds in expected[name]
        )


@st.composite
def tables(draw: st.DrawFn) -> tuple[Kind, list[list[Any]], tuple[str, Any], bool]:
    """A type, the values of each row group, an operator with its value, and whether the column is a partition's."""
    kind = draw(st.sampled_from(list(KINDS.values())))
    value = st.sampled_from(kind.values)
    groups = draw(st.lists(st.lists(st.one_of(st.none(), value), min_size=1, max_size=6), min_size=1, max_size=4))
    operator = draw(st.sampled_from(OPERATORS))
    wanted = draw(st.lists(value, max_size=3) if operator == "in" else value)
    # delta-rs spells other bytes, and decimals below zero in a way that it does not read itself.
    is_partition = draw(st.booleans()) and kind.delta != "binary" and not kind.delta.startswith("decimal")
    return kind, groups, (operator, wanted), is_partition


def write(
    folder: Path, kind: Kind, groups: Sequence[Sequence[Any]], *, is_partition: bool, has_statistics: bool = True
) -> str:
    """Write ids and values as a Delta table: a row group for each list, or a file for each value of a partition."""
    values = [value for group in groups for value in group]
    rows = pa.table({"id": pa.array(range(len(values)), pa.int64()), "x": pa.array(values, kind.arrow)})
    deltalake.write_deltalake(str(folder), rows, partition_by=["x"] if is_partition else None)
    if not is_partition:  # the same rows in row groups of other lengths, in the file that the log names
        (path,) = folder.glob("*.parquet")
        with pq.ParquetWriter(path, rows.schema, write_statistics=has_statistics) as writer:
            start = 0
            for group in groups:
                writer.write_table(rows.slice(start, len(group)))
                start += len(group)
    return str(folder)


def streamed(table: str | Snapshot, **options: Any) -> list[int]:
    with Stream(table, columns=["id"], batch_size=2, lanes=1, **options) as batches:
        return sorted(row for batch in batches for row in batch["id"][~batch["is_padding"]].tolist())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables(), has_statistics=st.booleans())
def test_rows_are_those_that_satisfy_whatever_the_layout(tmp_path_factory, table, has_statistics) -> None:
    kind, groups, (operator, wanted), is_partition = table
    folder = tmp_path_factory.mktemp("any")
    uri = write(folder, kind, groups, is_partition=is_partition, has_statistics=has_statistics)
    values = [value for group in groups for value in group]
    if is_partition:  # Delta's log has one spelling for both
        values = [None if value == "" else value for value in values]
    expected = [row for row, value in enumerate(values) if satisfies(kind, value, operator, wanted)]
    taken = delta_files.take(uri, where=[("x", operator, wanted)])
    assert taken.num_rows == len(expected)
    if expected:
        assert streamed(taken) == expected


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(KINDS)),
    operator=st.sampled_from(OPERATORS),
    has_nulls=st.booleans(),
    data=st.data(),
)
def test_what_bounds_say_is_so_for_every_value_between_them(name, operator, has_nulls, data) -> None:
    kind = KINDS[name]
    known = [value for value in kind.values if value == value]
    least, most = sorted(data.draw(st.lists(st.sampled_from(known), min_size=2, max_size=2)), key=kind.order)
    value = st.sampled_from(kind.values)
    wanted = data.draw(st.lists(value, min_size=1, max_size=3) if operator == "in" else value)
    inside = [value for value in known if kind.order(least) <= kind.order(value) <= kind.order(most)]
    inside += [NAN] if pa.types.is_floating(kind.arrow) else []
    inside += [None] if has_nulls else []
    answer = comparison(name, operator, wanted).holds_within(
        ValueRange(pa.array([least, most], kind.arrow), has_nulls, is_exact=kind.delta not in ("string", "binary"))
    )
    truth = [satisfies(kind, value, operator, wanted) for value in inside]
    assert answer is None or set(truth) == {answer}
    if not pa.types.is_floating(kind.arrow) and not has_nulls and operator not in ("=", "!=", "in"):
        in_between = [value for value in inside if value in (least, most)]
        decided = {satisfies(kind, value, operator, wanted) for value in in_between}
        assert (answer is None) == (len(decided) == 2)  # nothing is read that the bounds decide


def test_statistics_with_nan_leave_no_row_out(spark: SparkSession, tmp_path) -> None:
    table = str(tmp_path / "nan")
    rows = spark.range(0, 30, 1, 1).selectExpr("id", "if(id = 5, double('NaN'), double(id)) x")
    rows.write.format("delta").save(table)
    assert streamed(table, where=[("x", "=", 12.0)]) == [12]
    assert streamed(table, where=[("x", ">", 27)]) == [5, 28, 29]
    assert streamed(table, where=[("x", "=", NAN)]) == [5]
    assert streamed(table, where=[("x", "<", NAN), ("x", ">=", 28)]) == [28, 29]
    assert streamed(table, where=[("x", "in", [NAN, 3])]) == [3, 5]


@pytest.mark.parametrize("value", [0.0, NAN, INF])
def test_partitions_of_floats_are_compared_as_spark_does(spark: SparkSession, tmp_path, value) -> None:
    table = str(tmp_path / "nan")
    rows = spark.sql(
        "SELECT * FROM VALUES (0, double('NaN')), (1, -0.0D), (2, 0.0D), (3, double('inf')), (4, null) t(id, x)"
    )
    rows.write.format("delta").partitionBy("x").save(table)
    for sign in OPERATORS[:-1]:
        expected = rows.where(f"x {sign} {KINDS['double'].literal(value)}").collect()
        taken = delta_files.take(table, where=[("x", sign, value)])
        assert (streamed(taken) if taken.num_rows else []) == sorted(row.id for row in expected), sign


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        (("day", "<=", "2024-01-02"), [0, 1]),
        (("day", "!=", "2024-01-02"), [0, 2]),
        (("day", "=", "2024-01-02"), [1]),
        (("n", "in", ["01"]), r"column n is integer, but '01' is a str; give a number"),
        (("n", "in", "01"), r"condition n in '01': in takes a list of values"),
        (("day", "=", 20240102), "column day is date, but 20240102 is a int; give a date"),
    ],
)
def test_partitions_are_compared_as_their_type_or_refused(tmp_path, condition, ids) -> None:
    days = [dt.date(2024, 1, day) for day in (1, 2, 3)]
    rows = pa.table({"id": range(3), "day": days, "n": pa.array([0, 1, 2], pa.int32())})
    deltalake.write_deltalake(str(tmp_path), rows, partition_by=["day", "n"])
    if isinstance(ids, list):
        assert streamed(str(tmp_path), where=[condition]) == ids
        return
    with pytest.raises(DatasetError, match=ids):
        delta_files.take(str(tmp_path), where=[condition])


@pytest.mark.parametrize(
    ("delta_type", "operator", "value", "holds"),
    [  # of the values below
        ("byte", "<", 300, [True, True, True, False]),
        ("byte", ">", -1000, [True, True, True, False]),
        ("byte", "=", 300, [False] * 4),
        ("byte", "!=", 300, [True, True, True, False]),
        ("byte", ">", 1.5, [False, False, True, False]),
        ("byte", ">=", 1.5, [False, False, True, False]),
        ("byte", "<", 1.5, [True, True, False, False]),
        ("byte", "=", 1.5, [False] * 4),
        ("byte", "=", 2.0, [False, False, True, False]),
        ("byte", "=", np.int64(2), [False, False, True, False]),
        ("byte", "in", np.array([2, 1]), [False, True, True, False]),
        ("byte", "in", [], [False] * 4),
        ("byte", "<", INF, [True, True, True, False]),
        ("long", "=", 2.0**53, [False, True, False, False]),
        ("decimal(9,2)", "=", 0.1, [False, True, False, False]),
        ("decimal(9,2)", "<", Decimal("0.101"), [True, True, False, False]),
        ("decimal(9,2)", ">", 10**9, [False] * 4),
        ("float", "=", 0.1, [False, True, False, False]),
        ("float", ">", 1e300, [False] * 4),
        ("float", "<", -1e300, [False] * 4),
        ("date", "<", dt.datetime(2024, 1, 2, 0, 0, 1), [True, True, False, False]),
        ("date", ">=", "2024-01-02", [False, True, True, False]),
        ("date", "=", np.datetime64("2024-01-02"), [False, True, False, False]),
        ("date", "<", np.datetime64("2024-01-02T12"), [True, True, False, False]),
        ("timestamp", ">=", dt.date(2024, 1, 2), [False, True, True, False]),
        ("timestamp", "=", dt.datetime(2024, 1, 2), [False, True, False, False]),
        ("timestamp", "=", "2024-01-02T01:00:00+01:00", [False, True, False, False]),
        ("timestamp", "<=", "2024-01-02T00:00:00Z", [True, True, False, False]),
        ("timestamp_ntz", "<=", "2024-01-02 00:00", [True, True, False, False]),
        ("timestamp_ntz", ">", pd.Timestamp("2024-01-02") + pd.Timedelta(1, "ns"), [False, False, True, False]),
        ("timestamp_ntz", ">=", pd.Timestamp("2024-01-01") + pd.Timedelta(1, "ns"), [False, True, True, False]),
    ],
)  # fmt: skip
def test_values_of_other_types_are_compared_as_the_columns(delta_type, operator, value, holds) -> None:
    days = [dt.date(2024, 1, 1), dt.date(2024, 1, 2), dt.date(2024, 1, 3), None]
    columns = {
        "byte": pa.array([0, 1, 2, None], pa.int8()),
        "long": pa.array([0, 2**53, 2**53 + 1, None], pa.int64()),
        "decimal(9,2)": pa.array([Decimal("0.09"), Decimal("0.10"), Decimal("0.11"), None], pa.decimal128(9, 2)),
        "float": pa.array([0.0, 0.1, 0.2, None], pa.float32()),
        "date": pa.array(days, pa.date32()),
        "timestamp": pa.array(days, pa.date32()).cast(pa.timestamp("us", "UTC")),
        "timestamp_ntz": pa.array(days, pa.date32()).cast(pa.timestamp("us")),
    }
    assert comparison(delta_type, operator, value).holds(columns[delta_type]).tolist() == holds


@pytest.mark.parametrize(
    ("delta_type", "operator", "value", "message"),
    [
        ("long", "<", "x", r"condition x < 'x': column x is long, but 'x' is a str; give a number"),
        ("long", "=", True, r"column x is long, but True is a bool; give a number"),
        ("long", "in", "01", r"condition x in '01': in takes a list of values, such as \['01'\]"),
        ("long", "in", 1, r"condition x in 1: in takes a list of values, such as \[1\]"),
        ("long", "in", ["1"], r"condition x in \['1'\]: column x is long, but '1' is a str; give a number"),
        ("double", "=", None, "null satisfies no condition"),
        ("date", "=", "31.1.2024", r"column x is date, but '31.1.2024' is a str; give a date such as"),
        ("date", "=", 19782, "give a date such as"),
        ("date", "=", dt.datetime(2024, 1, 1, tzinfo=UTC), "column x is date, which has no zone"),
        ("timestamp", "=", 1.5, "give a time such as"),
        ("timestamp", "=", pd.NaT, "null satisfies no condition"),
        ("timestamp_ntz", "=", dt.datetime(2024, 1, 1, tzinfo=UTC), "column x is timestamp_ntz, which has no zone"),
        ("string", "=", 1, "column x is string, but 1 is a int; give a text"),
        ("binary", "=", "a", "give bytes"),
        ("boolean", "=", 1, "give True or False"),
        ({"type": "array", "elementType": "long"}, "=", [1], "column x is array<long>, which has no order here"),
        ({"type": "struct", "fields": []}, "=", 1, "column x is struct, which has no order here"),
        ("variant", "=", 1, "column x is variant, which has no order here"),
    ],
)
def test_values_that_cannot_be_compared_are_refused_by_column_type_and_remedy(
    delta_type, operator, value, message
) -> None:
    with pytest.raises(DatasetError, match=message):
        comparison(delta_type, operator, value)


def test_texts_with_another_order_are_not_compared() -> None:
    with pytest.raises(
        DatasetError, match=r"column x is string of collation spark.UTF8_LCASE, which has no order here"
    ):
        comparison("string", "=", "a", __COLLATIONS={"x": "spark.UTF8_LCASE"})


@pytest.mark.parametrize("condition", ["x = 1", ("x", "="), [("x", "=", 1)], (1, "=", 1)])
def test_what_is_no_condition_is_refused_with_an_example(condition) -> None:
    with pytest.raises(DatasetError, match=r"expected \(column, operator, value\), such as"):
        conditions([condition], {}, set(), "t")


def test_fixed_length_texts_are_compared_with_their_spaces() -> None:
    padded = pa.array(["ab   ", "abc  ", "ab  x", None])
    check = comparison("string", "=", "ab", __CHAR_VARCHAR_TYPE_STRING="char(5)")
    assert check.holds(padded).tolist() == [True, False, False, False]


def test_row_groups_that_the_statistics_decide_are_not_read(tmp_path) -> None:
    table = write(tmp_path, KINDS["long"], [[1, 2], [3, 4], [5, 6], [None, None]], is_partition=False)
    (path,) = tmp_path.glob("*.parquet")
    footer = pq.read_metadata(path)
    with open(path, "r+b") as file:  # the column's pages of every row group but the second
        for number in (0, 2, 3):
            chunk = footer.row_group(number).column(1)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            file.seek(start)
            file.write(b"\xff" * chunk.total_compressed_size)
    assert delta_files.take(table, where=[("x", ">", 3)]).num_rows == 3
    with pytest.raises(DatasetError, match=rf"{path.name}: condition x > 5 cannot be applied"):
        delta_files.take(table, where=[("x", ">", 5)])


def test_any_number_of_ranks_shares_the_rows_of_a_condition_in_one_order(tmp_path) -> None:
    rows = pa.table({"id": range(1000), "x": [number % 7 for number in range(1000)]})
    deltalake.write_deltalake(str(tmp_path), rows)
    expected = [number for number in range(1000) if number % 7 > 4]
    epochs = []
    for world_size in (1, 2, 4):
        ranks = []
        for rank in range(world_size):
            where = [("x", ">", 4)]
            with Stream(
                str(tmp_path), columns=["id"], batch_size=8, where=where, rank=rank, world_size=world_size
            ) as part:
                ranks.append([batch["id"][~batch["is_padding"]].tolist() for batch in part])
        assert len({len(steps) for steps in ranks}) == 1
        epochs.append([sorted(row for steps in ranks for row in steps[step]) for step in range(len(ranks[0]))])
    assert epochs[0] == epochs[1] == epochs[2]
    assert sorted(sum(epochs[0], [])) == expected


def test_rows_of_a_condition_go_on_after_a_batch(tmp_path) -> None:
    deltalake.write_deltalake(str(tmp_path), pa.table({"id": range(100), "x": [n % 3 for n in range(100)]}))
    options = {"columns": ["id"], "batch_size": 8, "where": [("x", "=", 1)], "seed": 5}
    with Stream(str(tmp_path), **options) as whole:
        expected = [batch["id"][~batch["is_padding"]].tolist() for batch in whole]
    with Stream(str(tmp_path), **options) as begun:
        next(iter(begun))
        state = begun.state_dict()
    with Stream(str(tmp_path), **options) as resumed:
        resumed.load_state_dict(state)
        assert [batch["id"][~batch["is_padding"]].tolist() for batch in resumed] == expected[1:]


def test_condition_that_holds_nowhere_and_table_without_rows_say_so(tmp_path) -> None:
    full, empty = str(tmp_path / "full"), str(tmp_path / "empty")
    deltalake.write_deltalake(full, pa.table({"id": [1], "p": ["a"]}), partition_by=["p"])
    deltalake.write_deltalake(empty, pa.table({"id": pa.array([], pa.int64())}))
    with pytest.raises(DatasetError, match=r"full: no row of version 0 satisfies id > 3 and p = 'b'"):
        Stream(full, batch_size=1, columns=["id"], where=[("id", ">", 3), ("p", "=", "b")])
    with pytest.raises(DatasetError, match=r"full: no row of version 0 satisfies p = 'b'"):
        Stream(delta_files.take(full).where(p="b"), batch_size=1, columns=["id"])
    with pytest.raises(DatasetError, match=r"empty: version 0 has no rows"):
        Stream(empty, batch_size=1)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(set(KINDS) - {"timestamp"})),  # whose literals take the session's zone in DuckDB
    operator=st.sampled_from(OPERATORS[:-1]),
    data=st.data(),
)
def test_comparisons_are_those_of_duckdb(name, operator, data) -> None:
    duckdb = pytest.importorskip("duckdb")
    kind = KINDS[name]
    values = data.draw(st.lists(st.one_of(st.none(), st.sampled_from(kind.values)), min_size=1, max_size=6))
    wanted = data.draw(st.sampled_from(kind.values))
    rows, choice = pa.table({"x": pa.array(values, kind.arrow)}), pa.table({"y": pa.array([wanted], kind.arrow)})
    answers = duckdb.sql(f"SELECT coalesce(x {operator} y, false) AS holds FROM rows, choice").fetchall()
    assert [holds for (holds,) in answers] == comparison(name, operator, wanted).holds(rows.column("x")).tolist(), (
        choice
    )
