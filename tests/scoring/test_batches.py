"""Rows go to Python in large batches of bounded bytes, to workers that import little."""

import subprocess
import sys
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.scoring import batch

arrow_udf = pytest.mark.skipif(not hasattr(F, "arrow_udf"), reason="Spark 4.1 and later")


def greatest_batch(rows: DataFrame, column: str) -> int:
    """Return the number of rows of the greatest batch in which a column goes to Python."""

    def sizes(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for each in batches:
            yield pa.array([len(each)] * len(each), pa.int64())

    udf = F.arrow_udf(sizes, "long", F.ArrowUDFType.SCALAR_ITER)  # type: ignore[attr-defined]
    return int(rows.select(udf(F.col(column)).alias("size")).agg(F.max("size")).collect()[0][0])


@arrow_udf
def test_batches_are_large_but_their_bytes_bounded(spark: SparkSession) -> None:
    numbers = spark.range(70_000, numPartitions=1)
    pictures = numbers.limit(2000).select(F.expr("unhex(repeat('00', 100000))").alias("bytes"))  # 200 MB
    with batch.sending(spark):
        assert greatest_batch(numbers, "id") == 65_536
        # spark.sql.execution.arrow.maxBytesPerBatch is 64 MB: 671 rows.
        assert 500 < greatest_batch(pictures, "bytes") < 800
    assert greatest_batch(numbers, "id") == 10_000


@arrow_udf
def test_number_of_rows_that_a_session_was_given_counts(spark: SparkSession) -> None:
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "500")
    try:
        with batch.sending(spark):
            assert greatest_batch(spark.range(2000, numPartitions=1), "id") == 500
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")


@pytest.mark.parametrize(
    ("module", "not_needed"),
    [
        ("mlspark.scoring.partitions", {"deltalake", "mlflow", "pandas", "petastorm", "pyspark", "scipy", "torch"}),
        ("mlspark.stages.score", {"petastorm", "torch"}),
    ],
)
def test_workers_and_refused_jobs_import_what_they_need(module: str, not_needed: set[str]) -> None:
    """MLflow and torch take seconds: each worker of each job, and a job that is refused."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "mlspark" in imported
    assert not not_needed & set(imported)
