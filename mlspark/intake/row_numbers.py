"""Numbers of rows: where each row stands in its source, whatever the tasks that read it. Driver."""

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlspark.contracts.own_columns import PREFIX, ROW_NUMBER, SOURCE_FILE

_FILE, _PARTITION, _SHIFT = f"{PREFIX}file", f"{PREFIX}partition", f"{PREFIX}shift"
_POSITION = f"{PREFIX}position"
_TASKS_PER_SLOT = 3
_BITS = 33
"""Spark puts the number of the partition above so many bits of `monotonically_increasing_id`."""


def with_position(rows: DataFrame) -> DataFrame:
    """Return rows, as they are read, with what `numbered` needs. Lazy; the rows are then to be kept."""
    return rows.withColumn(_POSITION, F.monotonically_increasing_id())


def numbered(kept: DataFrame, rows: DataFrame) -> DataFrame:
    """Return `rows` with `ROW_NUMBER`: from 0, unique in the source. One Spark job over `kept`.

    Files count in the order of their names and rows in that of their file, so the number of a row in a CSV or Parquet file
    is that of its line or row, bad ones counted, blank lines, comments and filtered rows not. Rows of other sources are
    numbered as they were read.

    Args:
        kept: all rows of the source, from `with_position`, not computed anew.
        rows: some of them.
    """
    file, partition = F.coalesce(SOURCE_FILE, F.lit("")), F.shiftright(_POSITION, _BITS).cast("int")
    # The rows are kept, so few tasks do: each of a thousand would write a file for each of Spark's shuffle partitions.
    few = _TASKS_PER_SLOT * kept.sparkSession.sparkContext.defaultParallelism
    spans = (
        kept.coalesce(few)
        .groupBy(file.alias(_FILE), partition.alias(_PARTITION))
        .agg(F.min(_POSITION).alias("first"), F.count("*").alias("rows"))
        .toArrow()
    )
    shifts = _shifts(spans)
    by_span = F.broadcast(rows.sparkSession.createDataFrame(shifts))
    return (
        rows.withColumns({_FILE: file, _PARTITION: partition})
        .join(by_span, on=[name for name in shifts.column_names if name != _SHIFT], how="left")
        .withColumn(ROW_NUMBER, F.col(_POSITION) + F.col(_SHIFT))
        .drop(_FILE, _PARTITION, _SHIFT)
    )


def _shifts(spans: pa.Table) -> pa.Table:
    """Return what to add to the positions of each partition, or of each file of a partition, to have their numbers.

    Of a million files, one row each, that tasks read in the order of their names, a row for each task is enough.
    """
    # Spark gives the parts of a file to tasks in the order in which they stand there.
    spans = spans.sort_by([(_FILE, "ascending"), (_PARTITION, "ascending")])
    rows, first, partition = (spans.column(name).to_numpy() for name in ("rows", "first", _PARTITION))
    shift = np.cumsum(rows) - rows - first
    of_partition = np.unique(np.stack([partition, shift]), axis=1)
    if len(np.unique(of_partition[0])) == of_partition.shape[1]:
        return pa.table({_PARTITION: of_partition[0].astype(np.int32), _SHIFT: of_partition[1]})
    return spans.select([_FILE, _PARTITION]).append_column(_SHIFT, pa.array(shift))
