"""Parquet files, read as `columnar_files` says; times of nanoseconds are refused by column and file. Driver, lazy."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute as pc
from pyspark.sql import DataFrame, SparkSession

from mlspark.contracts.contract import Contract
from mlspark.errors import SourceError
from mlspark.sources import columnar_files, files
from mlspark.sources.columnar_files import columns, find
from mlspark.sources.opened_files import opened
from mlspark.sources.settings import FilesSettings
from mlspark.sources.source import Source, reading

__all__ = ["EXTENSIONS", "HAS_TYPES", "PLACE", "ParquetSettings", "Settings", "columns", "find", "read"]


class ParquetSettings(FilesSettings):
    """Parquet files; the folders of partitions become columns."""

    kind: Literal["parquet"]


Settings = ParquetSettings
HAS_TYPES = True
PLACE = "path"
EXTENSIONS = (".parquet",)


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source's files; see `columnar_files.read`.

    Times of the old type INT96 may have nanoseconds, of which Spark drops the last digits in silence. So those that the
    contract names are read twice where another program than Spark has written a file.

    Raises:
        SourceError: what `columnar_files.read` raises, or a time has digits below a microsecond.
    """
    asked = {column.source_name for column in contract.columns}
    stored = columnar_files.stored_schema(spark, source)
    names = tuple(
        field.name for field in stored if field.name in asked and columnar_files.NANOSECONDS in field.metadata
    )
    if names:
        _refuse_nanoseconds(spark, source, names)
    return columnar_files.read(spark, source, contract)


@lru_cache(maxsize=8)
def _refuse_nanoseconds(spark: SparkSession, source: Source, names: tuple[str, ...]) -> None:
    """Raise SourceError where a time has digits that Spark does not read; one job over these columns."""
    parts = [part.name for part in source.parts]
    slices = min(len(parts), 3 * spark.sparkContext.defaultParallelism)
    with reading(source.uri):
        too_fine = spark.sparkContext.parallelize(parts, slices).flatMap(partial(_too_fine, names)).take(1)
    for file, time in too_fine:
        raise SourceError(columnar_files.too_fine(file, time))


def _too_fine(names: Sequence[str], file: str) -> list[tuple[str, str]]:
    """Return (file, column and time) of the first time in a file with digits below a microsecond. Executors."""
    with opened(files.for_python(file)) as content:
        parquet = pq.ParquetFile(content)
        held = [name for name in names if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(columns=held) if held else ():
            for name in held:
                times = batch.column(name)
                if not pa.types.is_timestamp(times.type) or times.type.unit != "ns":
                    continue
                finer = times.filter(pc.not_equal(times, times.cast(pa.timestamp("us"), safe=False)))
                if len(finer):
                    return [(file, f"{name}: {finer[0].cast(pa.string())}")]
    return []
