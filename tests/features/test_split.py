"""Sides: by hash, key, time; stable as rows come and go; duplicates together."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import ROW_ID, SOURCE, SPLIT
from mlspark.errors import ConfigError
from mlspark.features import split
from mlspark.features.split import SplitSettings

CONTRACT = Contract(
    name="people",
    label="rich",
    columns=(
        ColumnRule(name="person", type="string"),
        ColumnRule(name="born", type="date"),
        ColumnRule(name="seen", header="last seen", type="timestamp", nullable=False),
        ColumnRule(name="rich", type="string"),
    ),
)


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    people=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=1, max_size=60),
    seed=st.integers(0, 99),
)
def test_a_row_is_on_one_side_whatever_other_rows_there_are(spark: SparkSession, people: list[str], seed: int) -> None:
    chosen = SplitSettings(validation_share=0.3, test_share=0.3, seed=seed)
    frame = spark.createDataFrame([(person,) for person in people + people[::2]], "person string")
    sided = frame.select("person", split.side(split.row_id(["person"]), chosen).alias("side")).distinct().collect()
    assert len(sided) == len(set(people))  # duplicates together
    fewer = frame.limit(max(1, len(people) // 2)).repartition(3)
    some = fewer.select("person", split.side(split.row_id(["person"]), chosen).alias("side")).distinct().collect()
    assert set(map(tuple, some)) <= set(map(tuple, sided))


def test_shares_are_those_asked_for(spark: SparkSession) -> None:
    chosen = SplitSettings(validation_share=0.2, test_share=0.1)
    sides = spark.range(20_000).select(split.side(split.row_id(["id"]), chosen).alias("side")).groupBy("side").count()
    counts = dict(sides.collect())
    assert counts["validation"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert sum(counts.values()) == 20_000


def test_a_row_is_known_by_all_but_label_and_weight(spark: SparkSession) -> None:
    contract = Contract(name="p", label="y", columns=tuple(ColumnRule(name=name, type="int") for name in "xyw"))
    rows = spark.createDataFrame([(1, 0, 5), (1, 1, 6)], "x int, y int, w int").withColumn(SOURCE, F.lit("learn"))
    of_score = rows.select(split.row_id(["x"])).distinct()
    placed = split.place(rows, SplitSettings(), contract, weight="w").select(ROW_ID).distinct()
    assert placed.collect() == of_score.collect()


def test_a_missing_key_is_no_key(spark: SparkSession) -> None:
    """Half of 2,000 rows have no customer: all of them were one group, and so on one side."""
    contract = Contract(name="p", columns=(ColumnRule(name="id", type="bigint"), ColumnRule(name="who", type="string")))
    rows = spark.range(2000).selectExpr("id", "IF(id < 1000, CAST(id DIV 2 AS STRING), NULL) AS who")
    chosen = SplitSettings(key=("who",), validation_share=0.2, test_share=0.2)
    placed = split.place(rows.withColumn(SOURCE, F.lit("learn")), chosen, contract)
    for half in ("id < 1000", "id >= 1000"):
        counts = dict(placed.where(half).groupBy(SPLIT).count().collect())
        assert 500 < counts["train"] < 700
        assert all(130 < counts[side] < 270 for side in ("validation", "test"))
    assert placed.where("id < 1000").groupBy("who").agg(F.count_distinct(SPLIT).alias("n")).where("n > 1").isEmpty()
    assert rows.where(~split.has_key(chosen.key)).count() == 1000


def test_time_decides_with_its_bounds_on_the_later_side(spark: SparkSession) -> None:
    times = ["2024-01-30 23:59:59", "2024-01-31 00:00:00", "2024-02-28 12:00:00", "2024-02-29 00:00:00"]
    frame = spark.createDataFrame([(time,) for time in times], "text string").select(
        F.col("text").cast("timestamp").alias("seen")
    )
    chosen = SplitSettings(by="time", time="seen", validation_from="2024-01-31", test_from="2024-02-29")
    assert [row[0] for row in frame.select(split.side(F.lit(0), chosen)).collect()] == [
        "train", "validation", "validation", "test",
    ]  # fmt: skip
    without_test = SplitSettings(by="time", time="seen", validation_from="2024-01-31")
    assert [row[0] for row in frame.select(split.side(F.lit(0), without_test)).collect()][3] == "validation"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"key": ("who",)}, "split.key: who: not a column of contract people"),
        ({"key": ("rich",)}, "split.key: rich: is the label"),
        (
            {"by": "time", "time": "person", "validation_from": "2024-01-01"},
            "split.time: person: type string, expected a date or timestamp",
        ),
        ({"by": "time", "time": "born", "validation_from": "2024-01-01"}, "split.time: born: may be missing"),
        ({"key": ("last seen",)}, "split.key: last seen: the column of header 'last seen' is called `seen`"),
        (
            {"by": "time", "time": "last seen", "validation_from": "2024-01-01"},
            "split.time: last seen: the column of header 'last seen' is called `seen`",
        ),
        (
            {"by": "time", "time": "sen", "validation_from": "2024-01-01"},
            "split.time: sen: not a column of contract people",
        ),
    ],
)
def test_splits_that_the_contract_cannot_give_are_refused(chosen: dict, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        split.check(SplitSettings(**chosen), CONTRACT)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"by": "time"}, "by: time needs time and validation_from"),
        ({"time": "seen"}, "need by: time"),
        ({"by": "time", "time": "seen", "validation_from": "2024-02-01", "test_from": "2024-01-01"}, "is not after"),
        (
            {"by": "time", "time": "seen", "validation_from": "2024-01-20", "test_from": "2024-01-20 00:00:00"},
            "test_from 2024-01-20 00:00:00 is not after validation_from 2024-01-20",
        ),
        (
            {"by": "time", "time": "seen", "validation_from": "2024-01-20T01:00+01:00", "test_from": "2024-01-20"},
            "test_from 2024-01-20 is not after",
        ),
        (
            {"by": "time", "time": "seen", "validation_from": "20240120"},
            "split.validation_from: '20240120': not a moment",
        ),
        ({"by": "time", "time": "seen", "validation_from": "May"}, "split.validation_from: 'May': not a moment like"),
        ({"validation_share": 0.6, "test_share": 0.6}, "leave fewer than 5 %"),
    ],
)
def test_splits_that_contradict_themselves_are_refused(chosen: dict, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SplitSettings(**chosen)
    assert message in str(refused.value)
