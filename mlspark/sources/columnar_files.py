"""Parquet and ORC files, with the partition columns that their folders name. Driver, lazy."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql.types import DataType, DateType, IntegerType, LongType, StringType, StructField, StructType

from mlspark.contracts.contract import Contract
from mlspark.errors import SourceError
from mlspark.sources import files, typed_rows
from mlspark.sources.settings import FilesSettings
from mlspark.sources.source import STRICT, Source, absolute_uri

OPTIONS = {
    **STRICT,
    # Writers leave checksums in the pages of Parquet; without this a flipped bit is another value.
    "parquet.page.verify-checksum.enabled": "true",
}
_FOOTERS_AT_A_TIME = 16
_CANONICAL: dict[type[DataType], str] = {
    IntegerType: r"-?(0|[1-9]\d*)",
    LongType: r"-?(0|[1-9]\d*)",
    DateType: r"\d{4}-\d\d-\d\d",
}


def find(spark: SparkSession, settings: FilesSettings, *, root: str) -> Source:
    """Return the source with its files as they are now.

    Raises:
        SourceError: nothing there, nothing in it, or the folder of a Delta table.
    """
    uri = absolute_uri(settings.path, root)
    return Source(uri, settings, files.existing_parts(spark, uri, holds_tables=True))


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return the columns of all files. Reads every footer.

    Returns:
        Columns by name and type; one that only some of the files have says so: metadata {"absent_from": a file}.
    """
    return typed_rows.schema(_schema(spark, source))


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source's files; see `typed_rows.conformable`.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns, or no column of the contract is there.
    """
    rows = _reader(spark, source).schema(_schema(spark, source)).load(files.paths(source))
    return typed_rows.conformable(rows, source, contract, file=files.file_of(rows))


def _reader(spark: SparkSession, source: Source) -> DataFrameReader:
    reader = spark.read.format(source.settings.kind)
    return reader.options(**OPTIONS, basePath=files.base_path(source))


@lru_cache(maxsize=8)
def _schema(spark: SparkSession, source: Source) -> StructType:
    """Return the columns of all files in Spark's types, those of partitions in types that lose nothing."""
    footers = _footers(spark, source)
    in_files = {name for names in footers.values() for name in names}
    # Spark looks into one file, or with mergeSchema into all: it refuses types that differ.
    reader = _reader(spark, source).option("mergeSchema", len(footers) > 1)
    try:
        schema = reader.load(files.paths(source)).schema
    except Py4JJavaError as error:
        if "CANNOT_MERGE" not in str(error):
            raise
        raise SourceError(
            f"{source.uri}: files differ: {_differences(footers)}; correct or convert one of them"
        ) from error
    fields = []
    for field in schema:
        kind, metadata = field.dataType, {}
        if field.name not in in_files:
            kind = field.dataType if _is_canonical(field, source) else StringType()
        else:
            lacking = next((file for file, names in footers.items() if field.name not in names), None)
            metadata = {"absent_from": lacking} if lacking else {}
        fields.append(StructField(field.name, kind, metadata=metadata))
    return StructType(fields)


def _differences(footers: Mapping[str, Mapping[str, str]]) -> str:
    """Return each column that files do not agree on, with two of its types and whose they are."""
    types_by_column: dict[str, dict[str, str]] = {}
    for file, types in footers.items():
        for name, kind in types.items():
            types_by_column.setdefault(name, {}).setdefault(kind, file)
    differing = {
        name: list(files_by_type.items())[:2]
        for name, files_by_type in types_by_column.items()
        if len(files_by_type) > 1
    }
    return "; ".join(
        f"{name} is {' and '.join(f'{kind!r} in {file}' for kind, file in two)}" for name, two in differing.items()
    )


def _is_canonical(field: StructField, source: Source) -> bool:
    """Return whether the type that Spark finds for a partition column says all that its folders do: 007 is no 7."""
    pattern = _CANONICAL.get(type(field.dataType))
    folder = re.compile(rf"/{re.escape(field.name)}=([^/]*)/")
    values = {value for part in source.parts for value in folder.findall(part.name)} - {"__HIVE_DEFAULT_PARTITION__"}
    return pattern is not None and all(re.fullmatch(pattern, value) for value in values)


def _footers(spark: SparkSession, source: Source) -> dict[str, dict[str, str]]:
    """Return the stored types of columns by name by file, of one file for each schema."""
    conf = files.hadoop(spark)
    with ThreadPoolExecutor(_FOOTERS_AT_A_TIME) as pool:
        schemas = pool.map(lambda part: _footer(spark, source.settings.kind, part.name, conf), source.parts)
        first = {tuple(types.items()): part.name for part, types in zip(source.parts, schemas, strict=True)}
    return {file: dict(types) for types, file in first.items()}


def _footer(spark: SparkSession, kind: str, file: str, conf: Any) -> dict[str, str]:
    """Return the columns in a file's footer: name -> type as the file's kind has it."""
    jvm = files.jvm(spark)
    path = jvm.org.apache.hadoop.fs.Path(file)
    if kind == "orc":
        reader = jvm.org.apache.orc.OrcFile.createReader(path, jvm.org.apache.orc.OrcFile.readerOptions(conf))
        schema = reader.getSchema()
        types = dict(zip(schema.getFieldNames(), map(str, schema.getChildren() or ()), strict=True))
    else:
        opened = jvm.org.apache.parquet.hadoop.util.HadoopInputFile.fromPath(path, conf)
        reader = jvm.org.apache.parquet.hadoop.ParquetFileReader.open(opened)
        fields = reader.getFileMetaData().getSchema().getFields()
        types = {str(field.getName()): str(field) for field in fields}
    reader.close()
    return types
