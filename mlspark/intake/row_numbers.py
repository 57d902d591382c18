"""Numbers of rows: where each row stands in its source, whatever the tasks that read it. Driver."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType, LongType, StringType, StructField, StructType

_POSITION = "_position"
_BITS = 33
"""Spark puts the number of the partition above so many bits of `monotonically_increasing_id`."""
_SHIFTS = StructType(
    [StructField("_file", StringType()), StructField("_partition", IntegerType()), StructField("_shift", LongType())]
)


def with_position(rows: DataFrame) -> DataFrame:
    """Return rows, as they are read, with what `numbered` needs. Lazy; the rows are then to be kept."""
    return rows.withColumn(_POSITION, F.monotonically_increasing_id())


def numbered(kept: DataFrame, rows: DataFrame) -> DataFrame:
    """Return `rows` with `source_file` and `row_number`: from 0, unique in the source. One Spark job over `kept`.

    Files count in the order of their names and rows in that of their file, so the number of a row in a CSV or Parquet file
    is that of its line or row, bad ones counted, blank lines, comments and filtered rows not. Rows of other sources are
    numbered as they were read.

    Args:
        kept: all rows of the source, from `with_position`, not computed anew.
        rows: some of them.
    """
    file, partition = F.coalesce("_source_file", F.lit("")), F.shiftright(_POSITION, _BITS).cast("int")
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
        rows.withColumns({"_file": file, "_partition": partition})
        .join(by_span, on=["_file", "_partition"], how="left")
        .withColumns({"source_file": F.col("_source_file"), "row_number": F.col(_POSITION) + F.col("_shift")})
        .drop("_file", "_partition", "_shift")
    )
