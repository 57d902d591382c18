"""Rows that are kept: computed once, and let go at the end."""

from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark.intake.rows import kept


@pytest.mark.parametrize("num_bytes", [0, 1, 2**40], ids=["unknown", "few", "many"])
def test_rows_are_computed_once_and_let_go(spark: SparkSession, num_bytes: int) -> None:
    computed = spark.sparkContext.accumulator(0)

    def noted(batches: Any) -> Any:
        for batch in batches:
            computed.add(batch.num_rows)
            yield batch

    reasons = "array<struct<column:string,rule:string,value:string>>"
    rows = spark.range(100, numPartitions=3).selectExpr(
        "id",
        f"if(id < 10, array(named_struct('column', 'id', 'rule', 'min', 'value', '')), cast(array() AS {reasons})) "
        "AS _mlspark_reasons",
        "named_struct('id', id, 'at', timestamp_seconds(id)) AS _mlspark_raw",
    )
    before = spark.sparkContext._jsc.getPersistentRDDs().size()
    with kept(rows.mapInArrow(noted, rows.schema), num_bytes) as there:
        assert there.where("id < 50").count() == 50
        raw = [row[0] for row in there.orderBy("id").select("_mlspark_raw").collect()]
        assert raw[9:11] == ['{"id":9,"at":"1970-01-01T00:00:09.000000Z"}', None]
        assert computed.value == 100
        assert spark.sparkContext._jsc.getPersistentRDDs().size() == before + 1
    assert spark.sparkContext._jsc.getPersistentRDDs().size() == before
