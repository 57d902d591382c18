"""Rows that Python reads on executors, work by work: from pieces of work to a frame of Spark's. Driver, lazy."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, StringType, StructField, StructType

from mlspark.contracts.own_columns import MALFORMED, PREFIX, SOURCE_FILE

Row = Mapping[str, Any]
"""Value by column; what is not there is null."""
Work = Callable[[bytes], Iterable[Row]]
"""Reads one piece of work, on an executor."""

TASK_BYTES, LEAST_TASK_BYTES = 2**26, 2**22
"""About how many bytes a task reads: as many as that, or fewer where slots would be left without a task."""
_TASKS_PER_SLOT = 3
BATCH_BYTES, BATCH_ROWS = 2**23, 2000
"""Most bytes and rows of what goes to Spark at once; one value may be larger."""
_WORK = f"{PREFIX}work"


def frame(spark: SparkSession, pieces: Sequence[bytes], work: Work, schema: StructType) -> DataFrame:
    """Return the rows of `work(piece)` for each piece, one task each, in their order.

    Args:
        spark: the session.
        pieces: what tells a task what to read; small.
        work: a function of a module, or a partial of one; errors that it raises fail the job.
        schema: of the rows.
    """
    # A slice each, so that a task is a piece, and Spark's own order of tasks is theirs.
    rows = spark.sparkContext.parallelize([(piece,) for piece in pieces], max(1, len(pieces)))
    named = spark.createDataFrame(rows, StructType([StructField(_WORK, BinaryType())]))
    return named.mapInArrow(partial(_batches, work, to_arrow_schema(schema, timezone="UTC")), schema)


def with_own(schema: StructType) -> StructType:
    """Return the columns of a source with those that travel with each row: `MALFORMED`, `SOURCE_FILE`."""
    return StructType([*schema, *(StructField(name, StringType()) for name in (MALFORMED, SOURCE_FILE))])


def _batches(work: Work, schema: pa.Schema, pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of pieces of work in batches of bounded size."""
    rows: list[Row] = []
    num_bytes = 0
    for batch in pieces:
        for piece in batch.column(0).to_pylist():
            for row in work(piece):
                rows.append(row)
                num_bytes += sum(len(value) for value in row.values() if isinstance(value, bytes | str))
                if num_bytes >= BATCH_BYTES or len(rows) >= BATCH_ROWS:
                    yield _batch(rows, schema)
                    rows, num_bytes = [], 0
    if rows:
        yield _batch(rows, schema)


def _batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema
    )


def task_bytes(spark: SparkSession, num_bytes: int) -> int:
    """Return about how many bytes a task reads of so many in all, so that every slot has something to read and decode."""
    return min(TASK_BYTES, max(LEAST_TASK_BYTES, fair_share(spark, num_bytes)))


def fair_share(spark: SparkSession, num_bytes: int) -> int:
    """Return the bytes that a task reads where every slot has a few tasks and no more."""
    return num_bytes // (_TASKS_PER_SLOT * spark.sparkContext.defaultParallelism)


def shares(weights: Sequence[int], most_bytes: int) -> list[tuple[int, int]]:
    """Return (begin, end) of consecutive things for tasks of about `most_bytes` each."""
    found, begin, total = [], 0, 0
    for place, weight in enumerate(weights):
        if place > begin and total + weight > most_bytes:
            found.append((begin, place))
            begin, total = place, 0
        total += weight
    return [*found, (begin, len(weights))] if weights else found
