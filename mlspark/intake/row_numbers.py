"""Numbers of rows: where each row stands in its source, whatever the tasks that read it. Driver."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType, LongType, StringType, StructField, StructType

from mlspark.contracts.own_columns import PREFIX, ROW_NUMBER, SOURCE_FILE

_FILE, _PARTITION, _SHIFT = f"{PREFIX}file", f"{PREFIX}partition", f"{PREFIX}shift"
_POSITION = f"{PREFIX}position"
_BITS = 33
"""Spark puts the number of the partition above so many bits of `monotonically_increasing_id`."""
_SHIFTS = StructType(
    [StructField(_FILE, StringType()), StructField(_PARTITION, IntegerType()), StructField(_SHIFT, LongType())]
)


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
    spans = (
        kept.groupBy(file.alias("file"), partition.alias("partition"))
        .agg(F.min(_POSITION).alias("first"), F.count("*").alias("rows"))
        .collect()
    )
    # Spark gives the parts of a file to tasks in the order in which they stand there.
    shifts, before = [], 0
    for span in sorted(spans, key=lambda span: (span["file"], span["partition"])):
        shifts.append((span["file"], span["partition"], before - span["first"]))
        before += span["rows"]
    by_span = F.broadcast(rows.sparkSession.createDataFrame(shifts, _SHIFTS))
    return (
        rows.withColumns({_FILE: file, _PARTITION: partition})
        .join(by_span, on=[_FILE, _PARTITION], how="left")
        .withColumn(ROW_NUMBER, F.col(_POSITION) + F.col(_SHIFT))
        .drop(_FILE, _PARTITION, _SHIFT)
    )
