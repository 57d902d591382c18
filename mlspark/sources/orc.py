"""ORC files, read as `columnar_files` says; times of nanoseconds are refused by column and file. Driver, lazy."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StringType, StructField, StructType, TimestampType

from mlspark.contracts.contract import Contract
from mlspark.errors import SourceError
from mlspark.sources import columnar_files, files
from mlspark.sources.columnar_files import columns, find
from mlspark.sources.settings import FilesSettings
from mlspark.sources.source import Source, named, reading

__all__ = ["EXTENSIONS", "HAS_TYPES", "PLACE", "OrcSettings", "Settings", "columns", "find", "read"]


class OrcSettings(FilesSettings):
    """ORC files; the folders of partitions become columns."""

    kind: Literal["orc"]


Settings = OrcSettings
HAS_TYPES = True
PLACE = "path"
EXTENSIONS = (".orc",)
_FOOTERS_AT_A_TIME = 16


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source's files; see `columnar_files.read`.

    Times of ORC may have nanoseconds, of which Spark drops the last digits in silence. So the times that the contract names
    are read twice where another program than Spark has written a file.

    Raises:
        SourceError: what `columnar_files.read` raises, or a time has digits below a microsecond.
    """
    asked = {column.source_name for column in contract.columns}
    stored = columnar_files.stored_schema(spark, source)
    times = tuple(
        (field.name, texts)
        for field in stored
        if field.name in asked and (texts := _as_text(field.dataType)) is not None
    )
    if times:
        _refuse_nanoseconds(spark, source, times)
    return columnar_files.read(spark, source, contract)


@lru_cache(maxsize=8)
def _refuse_nanoseconds(spark: SparkSession, source: Source, times: tuple[tuple[str, DataType], ...]) -> None:
    """Raise SourceError where a time has digits that Spark does not read; one job over the columns of times.

    Args:
        spark: the session.
        source: whose files are looked at.
        times: (column, its type with text in place of times).
    """
    conf = files.hadoop(spark)
    orc = files.jvm(spark).org.apache.orc.OrcFile
    path = files.jvm(spark).org.apache.hadoop.fs.Path

    def is_of_spark(name: str) -> bool:
        reader = orc.createReader(path(name), orc.readerOptions(conf))
        try:
            return bool(reader.hasMetadataValue(columnar_files.OF_SPARK))
        finally:
            reader.close()

    with ThreadPoolExecutor(_FOOTERS_AT_A_TIME) as pool:
        names = [part.name for part in source.parts]
        others = [name for name, is_known in zip(names, pool.map(is_of_spark, names), strict=True) if not is_known]
    if not others:
        return
    schema = StructType([StructField(name, texts) for name, texts in times])
    rows = (
        spark.read.format("orc").options(**columnar_files.OPTIONS).schema(schema).load(list(map(files.literal, others)))
    )
    texts = [named(name) if isinstance(kind, StringType) else F.to_json(named(name)) for name, kind in times]
    finer = [
        F.when(text.rlike(r":\d\d\.\d{6}\d*[1-9]"), F.concat_ws(": ", F.lit(name), F.substring(text, 1, 200)))
        for (name, _), text in zip(times, texts, strict=True)
    ]
    with reading(source.uri):
        first = rows.select(F.coalesce(*finer).alias("time"), files.file_of(rows).alias("file")).where(
            "time IS NOT NULL"
        )
        for row in first.take(1):
            raise SourceError(columnar_files.too_fine(row.file, row.time))


def _as_text(kind: DataType) -> DataType | None:
    """Return a type with text in place of times, as ORC's reader converts them; None where it has no times."""
    if isinstance(kind, TimestampType):
        return StringType()
    if isinstance(kind, ArrayType):
        element = _as_text(kind.elementType)
        return element and ArrayType(element, kind.containsNull)
    if isinstance(kind, MapType):
        key, value = _as_text(kind.keyType), _as_text(kind.valueType)
        return MapType(key or kind.keyType, value or kind.valueType, kind.valueContainsNull) if key or value else None
    if isinstance(kind, StructType):
        texts = {field.name: text for field in kind if (text := _as_text(field.dataType)) is not None}
        fields = [StructField(field.name, texts.get(field.name, field.dataType), field.nullable) for field in kind]
        return StructType(fields) if texts else None
    return None
