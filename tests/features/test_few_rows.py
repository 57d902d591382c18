"""Few rows are counted on the driver, to the bits that Spark counts."""

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.features import counting, few_rows, wide_ranges
from mlspark.features.counts import Counts, Number, Sums, Text
from mlspark.features.fit import fit

from .test_encoder import EVERYTHING, RICH, as_table, random_rows

NUMBERS = {
    "whole": Number("CAST(i AS DOUBLE)", step=1.0, parts=(4, 100), exact=True),
    "rounded": Number("d", parts=(4, 7, 100), mode=True),
    "exact": Number("d", parts=(10,), exact=True),
    "large": Number("CAST(l AS DOUBLE)", parts=(3,), mode=True),
    "tenths": Number("CAST(c AS DOUBLE)", step=0.5, mode=True),
    "constant": Number("7.25D", parts=(2,), mode=True),
    "nothing": Number("CAST(NULL AS DOUBLE)", parts=(2,), mode=True),
    "days": Number("unix_micros(at) / 8.64E10D", parts=(5,)),
    "tiny": Number("CASE WHEN i > 18 THEN 5.0E-324D ELSE -0.0D END", parts=(2,), mode=True),
}
TEXTS = {
    "all": Text("s"),
    "common": Text("t", min_count=2, max_values=7),
    "enough": Text("t", min_count=14),
    "by fold": Text("t", min_count=3, max_values=20, folds=4),
    "by two": Text("s", max_values=3, folds=2),
    "none": Text("CAST(NULL AS STRING)"),
    "each its own": Text("CAST(row_id AS STRING)", max_values=3),
}
EVENTS = ("rich = 'yes'", "d > 20")


def counted(rows: DataFrame, most_rows: int | None, **options: Any) -> Counts:
    asked = {"numbers": NUMBERS, "texts": TEXTS, "events": EVENTS, "row_hash": "row_id"} | options
    return counting.count(rows, most_rows=most_rows, **asked)


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(as_table(random_rows(4, 900)))


def test_driver_and_spark_count_the_same(rows: DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    by_spark = counted(rows, None)
    monkeypatch.setattr(counting, "_ranges", None)
    assert counted(rows, 900) == by_spark
    assert by_spark.texts["by fold"].rare_values > 0
    assert by_spark.texts["common"].too_many > 0


@pytest.mark.parametrize("partitions", [1, 7])
def test_python_workers_and_spark_find_the_same_ranges(
    rows: DataFrame, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    asked: dict[str, Any] = {"texts": {}, "row_hash": ""}
    by_spark = counted(rows, None, **asked)
    called = []

    def noted(*arguments: Any) -> dict[str, Any]:
        called.append(arguments)
        return ranges(*arguments)

    ranges = wide_ranges.ranges
    monkeypatch.setattr(wide_ranges, "ranges", noted)
    monkeypatch.setattr(wide_ranges, "FEWEST_NUMBERS", len(NUMBERS))
    assert counted(rows.repartition(partitions), None, **asked) == by_spark
    assert counted(rows.where("false"), None, **asked) == counted(rows.where("false"), 0, **asked)
    assert len(called) == 2


def test_encoder_of_few_rows_is_the_same_and_reads_them_once(
    spark: SparkSession, rows: DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = spark.sparkContext.accumulator(0)

    def noted(batches: Any) -> Any:
        for batch in batches:
            read.add(batch.num_rows)
            yield batch

    by_spark = fit(rows, EVERYTHING, RICH, pipeline="all")
    monkeypatch.setattr(counting, "_ranges", None)
    few = fit(rows.mapInArrow(noted, rows.schema), EVERYTHING, RICH, pipeline="all", most_rows=900)
    assert few.fingerprint == by_spark.fingerprint
    assert read.value == 900


@pytest.mark.parametrize(
    ("most_rows", "change"),
    [
        (None, lambda rows: rows),
        (few_rows.MOST_BYTES, lambda rows: rows),  # too many
        (5, lambda rows: rows),  # and there are more
        (9, lambda rows: rows.withColumn("s", F.lit("é" * 33))),
        (9, lambda rows: rows.withColumn("s", F.expr("CAST(X'ff' AS STRING)"))),
    ],
    ids=["unknown", "many", "more than said", "long text", "no UTF-8"],
)
def test_spark_counts_what_is_not_few(
    rows: DataFrame, monkeypatch: pytest.MonkeyPatch, most_rows: int | None, change: Any
) -> None:
    monkeypatch.setattr(counting.FewRows, "ranges", None)
    number = {"i": Number("CAST(i AS DOUBLE)", step=1.0)}
    assert counted(change(rows.limit(9)), most_rows, numbers=number, texts={"s": Text("s")}, events=()).rows == 9


def test_no_rows_and_sums(rows: DataFrame) -> None:
    nothing = rows.where("false")
    assert counted(nothing, 0) == counted(nothing, None)
    sums = {"pair": Sums("array(CAST(i AS BIGINT), 1L)", 2)}
    one = counted(rows, 900, numbers={}, texts={}, events=(), row_hash="", sums=sums)
    assert one.sums["pair"][1] == 900
