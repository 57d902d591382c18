"""Joins and aggregates as of a moment: nothing of the label's time or later, every label row once, the same bits."""

import math
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType
from pyspark.testing import assertDataFrameEqual

from mlspark.errors import FeatureError
from mlspark.features.point_in_time import point_in_time_join
from mlspark.features.windows import Aggregate, Function, aggregate_name, aggregate_windows, leaves_bigint

HOUR = 3_600
SIDES = {"keys": {"user": "owner"}, "label_time": "at", "event_time": "seen"}
few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def table(spark: SparkSession, schema: str, rows: Sequence[tuple], time: str = "timestamp") -> DataFrame:
    """A frame whose columns at and seen, given as text or microseconds, are of type `time`, in UTC."""
    frame = spark.createDataFrame(list(rows), schema)
    for name in {"at", "seen"}.intersection(frame.columns):
        is_text = frame.schema[name].dataType == StringType()
        frame = frame.withColumn(name, F.col(name).cast(time) if is_text else F.timestamp_micros(name))
    return frame


def bits(value: Any) -> Any:
    """What must be equal for equal bits; a NaN has one pattern."""
    return struct.pack(">d", value) if isinstance(value, float) else value


def by_row(frame: DataFrame) -> dict[int, tuple]:
    """The new columns of each label row by its number, the first column; at and user are left out."""
    rows = frame.drop("at", "user").collect()
    found = {row[0]: tuple(bits(value) for value in row[1:]) for row in rows}
    assert len(found) == len(rows)
    return found


def at(time: str) -> str:
    return f"2024-03-01 {time}"


# point_in_time_join


def test_join_ignores_feature_at_label_time(spark: SparkSession) -> None:
    labels = table(spark, "row int, user string, at string", [(1, "ann", at("10:00:00")), (2, "bob", at("10:00:00"))])
    features = table(
        spark,
        "owner string, seen string, clicks int",
        [
            ("ann", at("09:59:59.999999"), 1),
            ("ann", at("10:00:00"), 99),  # the leak
            ("ann", at("10:00:00.000001"), 99),
            ("bob", at("10:00:00"), 99),
        ],
    )
    joined = point_in_time_join(labels, features, **SIDES, columns={"clicks": "clicks"})
    assertDataFrameEqual(joined, labels.withColumn("clicks", F.when(F.col("row") == 1, 1)))


def test_join_accepts_a_feature_exactly_max_age_old(spark: SparkSession) -> None:
    labels = table(spark, "row int, user string, at string", [(1, "ann", at("10:00:00")), (2, "bob", at("10:00:00"))])
    features = table(
        spark,
        "owner string, seen string, clicks int",
        [("ann", at("09:00:00"), 1), ("bob", at("08:59:59.999999"), 2)],
    )
    joined = point_in_time_join(labels, features, **SIDES, columns={"clicks": "clicks"}, max_age_seconds=HOUR)
    assert by_row(joined) == {1: (1,), 2: (None,)}


def test_join_keeps_every_label_row_as_it_is(spark: SparkSession) -> None:
    rows = [
        (1, "ann", at("10:00:00"), {"a": 1}),
        (1, "ann", at("10:00:00"), {"a": 1}),  # twice the same
        (2, None, at("10:00:00"), None),
        (2, None, at("11:00:00"), {}),
        (3, "ann", None, {"b": None}),
        (4, None, None, None),
        (5, "nobody", at("10:00:00"), None),
    ]
    labels = table(spark, "`row.id` int, user string, at string, `Map` map<string,int>", rows)
    features = table(
        spark,
        "owner string, seen string, `click.s` int",
        [("ann", at("09:00:00"), 1), (None, at("09:00:00"), 2), ("nobody", None, 3), ("ann", None, 4)],
    )
    joined = point_in_time_join(labels, features, **SIDES, columns={"now.clicks": "click.s"})
    assert joined.schema.names == ["row.id", "user", "at", "Map", "now.clicks"]
    assert [field.dataType for field in joined.schema][:4] == [field.dataType for field in labels.schema]
    got = sorted(((row[0], row[1], row[3], row[4]) for row in joined.collect()), key=repr)
    assert got == sorted(((row[0], row[1], row[3], 1 if row[0] == 1 else None) for row in rows), key=repr)


def test_join_takes_the_newest_row_with_its_nulls(spark: SparkSession) -> None:
    labels = table(spark, "row int, user string, at string", [(1, "ann", at("10:00:00"))])
    features = table(
        spark,
        "owner string, seen string, a int, b int",
        [("ann", at("08:00:00"), 1, 1), ("ann", at("09:00:00"), None, 2)],
    )
    joined = point_in_time_join(labels, features, **SIDES, columns={"a": "a", "twice": F.col("b") * 2})
    assert by_row(joined) == {1: (None, 4)}


def test_join_takes_the_greatest_of_rows_at_one_time(spark: SparkSession) -> None:
    labels = table(spark, "row int, user string, at string", [(1, "ann", at("10:00:00")), (2, "bob", at("10:00:00"))])
    rows = [
        ("ann", at("09:00:00"), 2.0, "a"),
        ("ann", at("09:00:00"), 2.0, "b"),
        ("ann", at("09:00:00"), None, "z"),
        ("ann", at("08:00:00"), 9.0, "z"),
        ("bob", at("09:00:00"), 7.0, None),
        ("bob", at("09:00:00"), math.nan, None),
    ]
    for given_rows in (rows, rows[::-1]):
        features = table(spark, "owner string, seen string, x double, s string", given_rows)
        joined = point_in_time_join(labels, features, **SIDES, columns={"x": "x", "s": "s"})
        assert by_row(joined) == {1: (bits(2.0), "b"), 2: (bits(math.nan), None)}


def test_join_on_several_keys_of_different_integer_widths(spark: SparkSession) -> None:
    labels = table(
        spark,
        "row int, user string, shop int, at string",
        [(1, "ann", 1, at("10:00:00")), (2, "ann", 2, at("10:00:00")), (3, "ann", None, at("10:00:00"))],
    )
    features = table(
        spark,
        "owner string, shop bigint, seen string, x int",
        [("ann", 1, at("08:00:00"), 1), ("ann", 2, at("09:00:00"), 2), ("ann", None, at("09:00:00"), 3)],
    )
    sides = {**SIDES, "keys": {"user": "owner", "shop": "shop"}}
    joined = point_in_time_join(labels, features, **sides, columns={"x": "x"})
    assert by_row(joined.drop("shop")) == {1: (1,), 2: (2,), 3: (None,)}


def test_a_day_is_known_at_its_end_unless_said_otherwise(spark: SparkSession) -> None:
    features = table(
        spark,
        "owner string, seen string, x int",
        [("ann", "2024-02-28", 1), ("ann", "2024-02-29", 2), ("ann", "2024-03-01", 3)],
        time="date",
    )
    dates = table(
        spark, "row int, user string, at string", [(1, "ann", "2024-03-01"), (2, "ann", "2024-02-29")], "date"
    )
    assert by_row(point_in_time_join(dates, features, **SIDES, columns={"x": "x"})) == {1: (2,), 2: (1,)}
    times = table(spark, "row int, user string, at string", [(1, "ann", at("00:00:00")), (2, "ann", at("00:00:01"))])
    late = {**SIDES, "dates_known": "start_of_day"}
    assert by_row(point_in_time_join(times, features, **SIDES, columns={"x": "x"})) == {1: (2,), 2: (2,)}
    assert by_row(point_in_time_join(times, features, **late, columns={"x": "x"})) == {1: (2,), 2: (3,)}
    day = [Aggregate("count_1d", "count", None, 24 * HOUR), Aggregate("sum_x_1d", "sum", "x", 24 * HOUR)]
    assert by_row(aggregate_windows(dates, features, **SIDES, aggregates=day)) == {1: (1, 2), 2: (1, 1)}
    assert by_row(aggregate_windows(times, features, **SIDES, aggregates=day)) == {1: (1, 2), 2: (1, 2)}
    assert by_row(aggregate_windows(times, features, **late, aggregates=day)) == {1: (1, 2), 2: (1, 3)}


def test_integers_are_added_exactly_and_refused_beyond_bigint(spark: SparkSession) -> None:
    def numbers(rows: DataFrame) -> dict[int, tuple[float, ...]]:
        return {row["row"]: tuple(row[name] for name in rows.columns if name.endswith("_1d")) for row in rows.collect()}

    labels = table(spark, "row int, user string, at string", [(1, "ann", at("12:00:00")), (2, "bob", at("12:00:00"))])
    large = 2**53 + 1
    rows = [("ann", at(f"0{hour}:00:00"), x) for hour, x in enumerate((large, 1, -large, 1), 1)]
    rows += [("bob", at("01:00:00"), 2**63 - 1), ("bob", at("02:00:00"), 0), ("bob", at("03:00:00"), None)]
    day = [Aggregate(f"{what}_x_1d", what, "x", 24 * HOUR) for what in ("sum", "mean")]
    exact = aggregate_windows(
        labels, table(spark, "owner string, seen string, x bigint", rows), **SIDES, aggregates=day
    )
    assert numbers(exact) == {1: (2, 0.5), 2: (2**63 - 1, 2.0**62)}
    beyond = table(spark, "owner string, seen string, x bigint", [*rows, ("bob", at("04:00:00"), 1)])
    assert numbers(aggregate_windows(labels, beyond, **SIDES, aggregates=day[1:]))[2] == (2.0**63 / 3,)
    with pytest.raises(Exception, match="is beyond bigint") as failed:
        numbers(aggregate_windows(labels, beyond, **SIDES, aggregates=day))
    assert leaves_bigint(failed.value).startswith("sum_x_1d: the sum of x is beyond bigint; take its mean")


@pytest.mark.parametrize("kind", ["decimal(9,2)", "decimal(18,6)", "decimal(18,0)"])
def test_decimals_are_added_exactly(spark: SparkSession, kind: str) -> None:
    """Ten times 0.10 is 1, as doubles it is 0.9999999999999999; a sum, and a mean, is the double nearest to the true one."""
    places = int(kind[:-1].rpartition(",")[2])
    least = Decimal(1).scaleb(-places)
    values = [Decimal(1).scaleb(1 - places)] * 10
    if kind != "decimal(9,2)":
        values += [999999999999999999 * least, 7 * least, -999999999999999999 * least]
    labels = table(spark, "row int, user string, at string", [(1, "ann", at("23:00:00"))])
    rows = [("ann", at(f"{hour:02}:00:00"), value) for hour, value in enumerate(values, 1)]
    events = table(spark, "owner string, seen string, x decimal(38,6)", rows).withColumn("x", F.col("x").cast(kind))
    day = [Aggregate(f"{what}_x_1d", what, "x", 24 * HOUR) for what in ("sum", "mean")]
    [row] = aggregate_windows(labels, events, **SIDES, aggregates=day).collect()
    assert row["sum_x_1d"] == float(sum(values))
    assert row["mean_x_1d"] == float(sum(values)) / len(values)


@pytest.fixture
def new_york(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    yield
    spark.conf.set("spark.sql.session.timeZone", before)


@pytest.mark.usefixtures("new_york")
def test_times_without_zone_are_utc_in_every_session(spark: SparkSession) -> None:
    # 02:30 on 2024-03-10 does not exist in New York, and 1969 has a negative count of microseconds.
    rows = [
        (1, "ann", "2024-03-10 02:30:00.000001"),
        (2, "bob", "1969-12-31 23:59:59.5"),
        (3, "cid", "2024-03-10 02:30:00"),
    ]
    labels = table(spark, "row int, user string, at string", rows, "timestamp_ntz")
    events = table(
        spark,
        "owner string, seen string, x int",
        [
            ("ann", "2024-03-10 02:30:00Z", 1),
            ("bob", "1969-12-31 23:59:59.499999Z", 2),
            ("bob", "1969-12-31 23:59:59.5Z", 3),
            ("cid", "2024-03-10 02:30:00Z", 4),
        ],
    )
    joined = point_in_time_join(labels, events, **SIDES, columns={"x": "x"}, max_age_seconds=1)
    assert by_row(joined) == {1: (1,), 2: (2,), 3: (None,)}


# aggregate_windows


def each(window: int, *functions: tuple[Function, str | None]) -> list[Aggregate]:
    return [Aggregate(aggregate_name(name, column, window), name, column, window) for name, column in functions]


def test_window_holds_its_start_and_not_the_label_time(spark: SparkSession) -> None:
    labels = table(
        spark,
        "row int, user string, at string",
        [
            (1, "ann", at("10:00:00")),
            (2, "ann", at("10:00:00.000001")),
            (3, "ann", at("09:00:00")),
            (4, "b", at("10:00:00")),
        ],
    )
    events = table(
        spark,
        "owner string, seen string, x int",
        [
            ("ann", at("08:59:59.999999"), 1),
            ("ann", at("09:00:00"), 10),  # exactly an hour before row 1, at exactly the time of row 3
            ("ann", at("09:30:00"), 100),
            ("ann", at("10:00:00"), 1000),  # exactly at the time of row 1: the leak
            ("ann", at("10:00:00.000001"), 10000),
        ],
    )
    wanted = [*each(HOUR, ("count", None), ("sum", "x")), *each(2 * HOUR, ("sum", "x"))]
    aggregated = aggregate_windows(labels, events, **SIDES, aggregates=wanted)
    expected = {1: (2, 110, 111), 2: (2, 1100, 1111), 3: (1, 1, 1), 4: (0, None, None)}
    assert by_row(aggregated) == expected


def test_each_function_by_hand(spark: SparkSession) -> None:
    labels = table(
        spark,
        "row int, user string, at string",
        [(1, "ann", at("10:00:00")), (2, "ann", at("05:00:00")), (3, None, at("10:00:00")), (4, "ann", None)],
    )
    events = table(
        spark,
        "owner string, seen string, n short, x float, s string, d decimal(5,2)",
        [
            ("ann", at("09:00:00"), 3, 0.5, "b", None),
            ("ann", at("09:10:00"), 4, 0.25, "a", None),
            ("ann", at("09:20:00"), 3, None, "c", None),
            ("ann", at("09:20:00"), None, 4.0, "a", None),  # one time: last is the greatest of each column
            ("ann", at("09:30:00"), None, None, None, None),
            (None, at("09:30:00"), 7, 7.0, "z", None),
        ],
    )
    functions: list[Function] = ["count", "sum", "mean", "min", "max", "distinct", "last"]
    wanted = each(HOUR, ("count", None), *((name, "n") for name in functions), *((name, "x") for name in functions))
    wanted += each(HOUR, *((name, "s") for name in functions if name not in ("sum", "mean")))
    wanted += each(HOUR, ("sum", "d"), ("max", "d"))
    aggregated = aggregate_windows(labels, events, **SIDES, aggregates=wanted)
    kinds = dict(aggregated.dtypes)
    assert [kinds[f"{name}_n_1h"] for name in functions] == [
        "bigint", "bigint", "double", "smallint", "smallint", "bigint", "smallint",
    ]  # fmt: skip
    assert [kinds[f"{name}_x_1h"] for name in functions] == [
        "bigint", "double", "double", "float", "float", "bigint", "float",
    ]  # fmt: skip
    assert (kinds["count_1h"], kinds["sum_d_1h"], kinds["max_d_1h"]) == ("bigint", "double", "decimal(5,2)")
    none = (0, *2 * (0, None, None, None, None, 0, None), 0, None, None, 0, None, None, None)
    of_n = (3, 10, bits(10 / 3), 3, 4, 2, 3)
    of_x = (3, *(bits(number) for number in (4.75, 4.75 / 3, 0.25, 4.0)), 3, bits(4.0))
    of_s = (4, "a", "c", 3, "c")
    assert by_row(aggregated) == {1: (5, *of_n, *of_x, *of_s, None, None), 2: none, 3: none, 4: none}


def test_aggregates_keep_every_label_row_as_it_is(spark: SparkSession) -> None:
    rows = [(1, "ann", 5, at("10:00:00"))] * 3 + [(2, "ann", None, at("10:00:00"))] * 2 + [(3, None, 5, None)]
    labels = table(spark, "row int, user string, shop int, at string", rows)
    events = table(
        spark, "owner string, shop int, seen string", [("ann", 5, at("09:59:00")), ("ann", 6, at("09:59:00"))]
    )
    sides = {**SIDES, "keys": {"user": "owner", "shop": "shop"}}
    aggregated = aggregate_windows(labels, events, **sides, aggregates=each(HOUR, ("count", None)))
    count = F.when((F.col("row") == 1), 1).otherwise(0).cast("bigint")
    assertDataFrameEqual(aggregated, labels.withColumn("count_1h", count))


def test_labels_may_be_the_events_themselves(spark: SparkSession) -> None:
    clicks = table(
        spark,
        "row int, user string, at string",
        [
            (1, "ann", at("10:00:00")),
            (2, "ann", at("10:00:30")),
            (3, "ann", at("10:01:00")),
            (4, "ann", at("10:01:00")),
        ],
    )
    sides = {"keys": {"user": "user"}, "label_time": "at", "event_time": "at"}
    counted = aggregate_windows(clicks, clicks, **sides, aggregates=each(60, ("count", None)))
    assert by_row(counted) == {1: (0,), 2: (1,), 3: (2,), 4: (2,)}
    joined = point_in_time_join(clicks, clicks, **sides, columns={"previous": clicks["row"]})
    assert by_row(joined) == {1: (None,), 2: (1,), 3: (2,), 4: (2,)}


@pytest.mark.parametrize("nullable", [True, False])
def test_one_shuffle_carries_all_windows(spark: SparkSession, nullable: bool) -> None:
    key = StructField("user", LongType(), nullable)
    labels = spark.createDataFrame([(1, 2)], StructType([key, StructField("n", LongType())]))
    labels = labels.withColumn("at", F.timestamp_micros("n"))
    sides = {"keys": {"user": "user"}, "label_time": "at", "event_time": "at"}
    wanted = [*each(HOUR, ("sum", "n"), ("mean", "n")), *each(60, ("last", "n"), ("distinct", "n"))]
    for frame, sorts in (
        (aggregate_windows(labels, labels, **sides, aggregates=wanted), 2),
        (point_in_time_join(labels, labels, **sides, columns={"before": "n"}, max_age_seconds=9), 1),
    ):
        plan = frame._jdf.queryExecution().executedPlan().toString()
        # More sorts than these would lose the order in which floats are added.
        assert (plan.count("Exchange"), plan.count("Sort [")) == (1, sorts), plan


# Against plain Python

USERS = st.none() | st.sampled_from(["ann", "bob", "Zoë"])
MICROS = st.none() | st.integers(-6_000_000, 6_000_000) | st.integers(-6, 6).map(lambda second: second * 1_000_000)
DOUBLES = (
    st.none() | st.floats() | st.sampled_from([0.1, 0.2, 0.3, 1e16, -1e16, -0.0, 0.0, math.nan, -math.nan, math.inf])
)
SINGLES = st.none() | st.floats(width=32) | st.sampled_from([-0.0, 0.0, 1.5, -1.5])
INTS = st.none() | st.integers(-3, 3) | st.integers(-(2**31), 2**31 - 1)
TEXTS = st.none() | st.sampled_from(["", "a", "b", "é", "🙂"])
LABELS = st.lists(st.tuples(USERS, MICROS), min_size=1, max_size=60)
EVENTS = st.lists(st.tuples(USERS, MICROS, INTS, DOUBLES, SINGLES, TEXTS), max_size=60)
LABEL_SCHEMA = "row int, user string, at bigint"
EVENT_SCHEMA = "owner string, seen bigint, n int, x double, f float, s string"


def order(value: Any) -> tuple:
    """Null is least, NaN greatest, text by code point."""
    if value is None:
        return (0,)
    return (2,) if value != value else (1, value)


def one_zero(value: Any) -> Any:
    if isinstance(value, float):
        return math.nan if value != value else value + 0.0
    return value


def frames(spark: SparkSession, labels: list[tuple], events: list[tuple]) -> tuple[DataFrame, DataFrame]:
    numbered = [(row, *label) for row, label in enumerate(labels)]
    return table(spark, LABEL_SCHEMA, numbered), table(spark, EVENT_SCHEMA, events)


@few
@given(labels=LABELS, events=EVENTS, max_age=st.none() | st.integers(1, 4))
def test_join_equals_plain_python(
    spark: SparkSession, labels: list[tuple], events: list[tuple], max_age: int | None
) -> None:
    expected = {}
    for row, (user, moment) in enumerate(labels):
        older = [
            (seen, tuple(one_zero(value) for value in values))
            for owner, seen, *values in events
            if None not in (user, moment, seen) and owner == user and seen < moment
        ]
        newest = max(older, key=lambda one: (one[0], [order(value) for value in one[1]]), default=None)
        if newest is None or (max_age is not None and moment - newest[0] > max_age * 1_000_000):
            newest = (None, (None,) * 4)
        expected[row] = tuple(bits(value) for value in newest[1])
    left, right = frames(spark, labels, events)
    columns = {name: name for name in ("n", "x", "f", "s")}
    assert by_row(point_in_time_join(left, right, **SIDES, columns=columns, max_age_seconds=max_age)) == expected


PAIRS: list[tuple[Function, str | None]] = [
    ("count", None),
    *(("count", column) for column in ("x", "s")),
    *((name, column) for name in ("min", "max") for column in ("f", "s")),
    *(("distinct", column) for column in ("x", "s")),
    *(("last", column) for column in ("n", "x", "s")),
    *(("sum", column) for column in ("n", "x", "f")),
    *(("mean", column) for column in ("n", "x")),
]


def plain(function: str, values: list[Any]) -> Any:
    """The aggregate of values that are in order of time; of those that are null nothing is left."""
    if function in ("count", "distinct"):
        return len(values if function == "count" else {"nan" if value != value else value for value in values})
    if not values:
        return None
    if function in ("sum", "mean"):
        total = 0.0 if function == "mean" or isinstance(values[0], float) else 0
        for value in values:
            total += value
        return total / len(values) if function == "mean" else total
    return (min if function == "min" else max)(values, key=order)


@few
@given(labels=LABELS, events=EVENTS)
def test_aggregates_equal_plain_python(spark: SparkSession, labels: list[tuple], events: list[tuple]) -> None:
    wanted = [one for window in (2, 7) for one in each(window, *PAIRS)]
    by_user = defaultdict(list)
    for owner, seen, *values in events:
        if owner is not None and seen is not None:
            by_user[owner].append((seen, dict(zip("nxfs", map(one_zero, values), strict=True))))
    for of_user in by_user.values():
        of_user.sort(key=lambda one: (one[0], *(order(one[1][column]) for column in ("f", "n", "x"))))
    expected = {}
    for row, (user, moment) in enumerate(labels):
        got = []
        for one in wanted:
            inside = [
                event
                for event in by_user[user]
                if moment is not None and moment - one.window_seconds * 1_000_000 <= event[0] < moment
            ]
            if one.column is None:
                got.append(len(inside))
                continue
            present = [(seen, values[one.column]) for seen, values in inside if values[one.column] is not None]
            if one.function == "last":
                present = [(seen, value) for seen, value in present if seen == present[-1][0]]
            got.append(bits(one_zero(plain(one.function, [value for _, value in present]))))
        expected[row] = tuple(got)
    left, right = frames(spark, labels, events)
    assert by_row(aggregate_windows(left, right, **SIDES, aggregates=wanted)) == expected


def test_bits_depend_on_neither_partitions_nor_row_order_nor_other_labels(spark: SparkSession) -> None:
    # Many events of one microsecond and of magnitudes whose sum depends on the order of adding.
    values = [(-1) ** number * 10.0 ** (number % 33 - 16) / 3 for number in range(400)]
    events = [("ann" if i % 3 else "bob", i // 8, i, value, value, "s") for i, value in enumerate(values)]
    labels = [(("ann", "bob")[row % 2], 5 * row) for row in range(12)]
    wanted = each(1, ("sum", "x"), ("mean", "x"), ("sum", "f"), ("mean", "n"), ("last", "s"))
    left, right = frames(spark, labels, events)
    _, shuffled = frames(spark, labels, events[::-1])
    first = by_row(aggregate_windows(left, right, **SIDES, aggregates=wanted))
    again = aggregate_windows(left.repartition(5), shuffled.repartition(7), **SIDES, aggregates=wanted[::-1])
    assert by_row(again) == {row: got[::-1] for row, got in first.items()}
    alone = aggregate_windows(left.filter("row = 11"), shuffled, **SIDES, aggregates=wanted)
    assert by_row(alone) == {11: first[11]}
    columns = {name: name for name in ("x", "s")}
    joins = [point_in_time_join(left, frame, **SIDES, columns=columns) for frame in (right, shuffled.repartition(7))]
    assert by_row(joins[0]) == by_row(joins[1])


# Names and errors


@pytest.mark.parametrize(
    ("function", "column", "window_seconds", "name"),
    [
        ("count", "clicks", 7 * 24 * HOUR, "count_clicks_7d"),
        ("mean", "amount", 90 * 60, "mean_amount_90m"),
        ("count", None, HOUR, "count_1h"),
        ("sum", "x", 24 * HOUR + 1, "sum_x_86401s"),
        ("last", "x", 36 * HOUR, "last_x_36h"),
        ("max", "x", 60, "max_x_1m"),
    ],
)
def test_aggregate_name_uses_the_largest_unit(
    function: Function, column: str | None, window_seconds: int, name: str
) -> None:
    assert aggregate_name(function, column, window_seconds) == name


@pytest.mark.parametrize(
    ("function", "column", "window_seconds", "message"),
    [
        ("sum", None, 60, "column: none given, sum needs one; only count goes without"),
        ("median", "x", 60, "function: got median, expected one of count, sum, mean, min, max, distinct, last"),
        ("sum", "x", 0, "window_seconds: got 0, expected a whole number of seconds, 1 to 316224000000"),
        ("sum", "x", 1.5, "window_seconds: got 1.5, expected"),
        ("sum", "x", True, "window_seconds: got True, expected"),
        ("sum", "x", 2**62, "window_seconds: got 4611686018427387904, expected"),
    ],
)
def test_aggregate_that_means_nothing_is_refused(function: Any, column: Any, window_seconds: Any, message: str) -> None:
    with pytest.raises(FeatureError, match="aggregate big: ") as refused:
        Aggregate("big", function, column, window_seconds)
    assert message in str(refused.value)
    with pytest.raises(FeatureError) as refused:
        aggregate_name(function, column, window_seconds)
    assert message in str(refused.value)


BOTH = [
    ({"keys": {}}, "keys: none given"),
    ({"keys": {"usr": "owner"}}, "keys: usr: not a column of labels (row, user, at, Big)"),
    ({"keys": {"user": "user"}}, "keys: user: not a column of"),
    ({"keys": {"row": "owner"}}, "keys: row is int in labels and owner is string in"),
    ({"keys": {"Big": "x"}}, "keys: Big is double in labels and x is double in"),
    ({"label_time": "when"}, "label_time: when: not a column of labels"),
    ({"label_time": "row"}, "label_time: row is int, expected date or timestamp; cast it"),
    ({"event_time": "at"}, "event_time: at: not a column of"),
    ({"event_time": "s"}, "event_time: s is string, expected date or timestamp"),
]
JOIN = [
    *BOTH,
    ({"columns": {}}, "columns: none given"),
    ({"columns": {"row": "n"}}, "columns: row: already a column of labels; choose another name"),
    ({"columns": {"big": "n"}}, "columns: big: already a column of labels"),
    ({"columns": {"m": "n", "M": "n"}}, "columns: m: declared twice"),
    ({"columns": {"y": "yy"}}, "columns: y: yy: not a column of features (owner, seen, n, x, f, s, many)"),
    ({"columns": {"y": F.col}}, "columns: y: not an expression over features (owner, seen"),
    ({"columns": {"y": "many"}}, "columns: y: type map<string,int> has no order"),
    ({"max_age_seconds": 0}, "max_age_seconds: got 0, expected a whole number of seconds"),
    ({"label_time": "row", "keys": {}}, "keys: none given"),  # all problems are named at once
]
AGGREGATE = [
    *BOTH,
    ({"aggregates": []}, "aggregates: none given"),
    ({"aggregates": [Aggregate("row", "count", None, 1)]}, "aggregates: row: already a column of labels"),
    ({"aggregates": [Aggregate("c", "count", None, 1)] * 2}, "aggregates: c: declared twice"),
    ({"aggregates": [Aggregate("c", "sum", "y", 1)]}, "aggregates: c: y: not a column of events (owner, seen"),
    ({"aggregates": [Aggregate("c", "sum", "s", 1)]}, "c: sum of s: type string, expected a number"),
    ({"aggregates": [Aggregate("c", "mean", "seen", 1)]}, "c: mean of seen: type timestamp, expected a number"),
    ({"aggregates": [Aggregate("c", "max", "many", 1)]}, "c: max of many: type map<string,int> has no order"),
]


@pytest.mark.parametrize(
    ("function", "changed", "message"),
    [("join", *case) for case in JOIN] + [("aggregate", *case) for case in AGGREGATE],
)
def test_what_cannot_be_computed_is_refused_on_the_schemas(
    spark: SparkSession, function: str, changed: dict[str, Any], message: str
) -> None:
    # A frame that fails when it is run: an error on the schemas comes first.
    failing = F.raise_error(F.lit("an action was run")).cast("int").alias("row")
    labels = table(spark, "user string, at string, Big double", [("ann", None, None)]).select(failing, "*")
    events = table(spark, f"{EVENT_SCHEMA}, many map<string,int>", [])
    if changed.get("columns") == {"y": F.col}:
        changed = {"columns": {"y": F.col("absent") + 1}}  # a Column cannot be made before the session is there
    if function == "join":
        call = partial(point_in_time_join, **{**SIDES, "columns": {"m": "n"}, **changed})
    else:
        wanted = [Aggregate("c", "count", None, 1)]
        call = partial(aggregate_windows, **{**SIDES, "aggregates": wanted, **changed})
    with pytest.raises(FeatureError, match=r"^(point_in_time_join|aggregate_windows): ") as refused:
        call(labels, events)
    assert message in str(refused.value)


def test_labels_with_two_columns_of_one_name_are_refused(spark: SparkSession) -> None:
    labels = table(spark, "user string, at string", []).select("*", F.lit(1).alias("USER"))
    events = table(spark, EVENT_SCHEMA, [])
    with pytest.raises(FeatureError, match="labels: user: two columns of this name"):
        point_in_time_join(labels, events, **SIDES, columns={"n": "n"})


def test_arguments_stay_as_they_are_and_nothing_runs(spark: SparkSession) -> None:
    labels = table(spark, "user string, at string", [("ann", None)]).withColumn("fails", F.raise_error(F.lit("ran")))
    events = table(spark, EVENT_SCHEMA, [])
    keys, columns, wanted = {"user": "owner"}, {"n": "n"}, each(1, ("sum", "n"))
    schemas = labels.schema.json(), events.schema.json()
    point_in_time_join(labels, events, keys=keys, label_time="at", event_time="seen", columns=columns)
    aggregate_windows(labels, events, keys=keys, label_time="at", event_time="seen", aggregates=wanted)
    assert (keys, columns, wanted) == ({"user": "owner"}, {"n": "n"}, each(1, ("sum", "n")))
    assert (labels.schema.json(), events.schema.json()) == schemas
