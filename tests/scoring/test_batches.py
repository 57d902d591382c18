"""Rows go to Python in large batches of bounded bytes, to workers that import little."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.features.encode_arrow import columns_from_spark
from mlspark.registry.package import Package
from mlspark.scoring import batch, partitions
from mlspark.stages import rescoring

from ..conftest import imported_by
from ..registry.example import package

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
    imported = imported_by(module)
    assert "mlspark" in imported
    assert not not_needed & imported


class Unread:
    """A broadcast that is not to be read."""

    @property
    def value(self) -> dict[str, Any]:
        raise AssertionError("the versions were read")


def scorers() -> dict[str, Any]:
    """Return what loads versions on executors, by the module it is of."""
    unread: Any = Unread()
    made = package()
    raw, encoded = columns_from_spark(made.encoder)
    return {
        "partitions": partitions.scorer(
            unread, "unread", [*raw, *encoded], allow_decoder=False, threads=1, explaining=None
        ),
        "rescoring": rescoring._scoring(unread, [], 1),
    }


@pytest.mark.parametrize("module", ["partitions", "rescoring"])
def test_task_without_rows_loads_no_version(module: str) -> None:
    score = scorers()[module]
    assert list(score(iter([]))) == []
    with pytest.raises(AssertionError, match="the versions were read"):
        list(score(iter([pa.RecordBatch.from_pydict({"x": [1.0]})])))


def loaded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the digests of the versions that the Python worker has loaded."""
    for _ in batches:
        yield pa.RecordBatch.from_pydict({"digest": [digest for digest, *_ in partitions._made]})


@pytest.mark.usefixtures("own_workers")
def test_worker_is_started_with_the_version_while_spark_plans(spark: SparkSession) -> None:
    made = package(threshold=0.123)  # of no other test
    with batch.worker_ahead(spark, made, allow_decoder=False):
        pass
    rows = spark.range(0, 1, 1, 1).mapInArrow(loaded, "digest string").collect()
    assert made.digest in {row["digest"] for row in rows}


def test_worker_that_cannot_load_the_version_says_nothing(
    spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = Package({**package().files, "model.json": b"{}"})
    with batch.worker_ahead(spark, broken, allow_decoder=False):
        pass
    assert "model.json" not in capfd.readouterr().err


@pytest.mark.parametrize(("master", "cores"), [("spark://host:7077", 8), ("local[1]", 1)])
def test_no_worker_is_started_where_none_is_left_or_nobody_knows_where(master: str, cores: int) -> None:
    context = SimpleNamespace(master=master, defaultParallelism=cores)  # has no more to start one with
    before = threading.active_count()
    session: Any = SimpleNamespace(sparkContext=context)
    with batch.worker_ahead(session, package(), allow_decoder=False):
        assert threading.active_count() == before
