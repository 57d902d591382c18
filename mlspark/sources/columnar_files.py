"""Parquet and ORC files, with the partition columns that their folders name. Driver, lazy."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql.types import DataType, DateType, IntegerType, LongType, StringType, StructField, StructType

from mlspark.contracts.contract import Contract
from mlspark.errors import SourceError
from mlspark.sources import file_states, files, typed_rows
from mlspark.sources.settings import FilesSettings
from mlspark.sources.source import STRICT, Source, absolute_uri

OPTIONS = {
    **STRICT,
    # Writers leave checksums in the pages of Parquet; without this a flipped bit is another value.
    "parquet.page.verify-checksum.enabled": "true",
}
OF_SPARK = "org.apache.spark.version"
"""Key of the footers of files that Spark has written, whose times are whole microseconds."""
NANOSECONDS = "nanoseconds"
"""Key of a column's metadata: its times may have digits below a microsecond, which Spark drops in silence."""
_FINER = ", not by Spark"
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
    parts = files.existing_parts(spark, uri, holds_tables=True)
    return Source(uri, settings, parts, file_states.rests_on(parts))


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return the columns of all files. Reads every footer.

    Returns:
        Columns by name and type; one that only some of the files have says so: metadata {"absent_from": a file}; one that
        cannot be read says why, see `typed_rows.unreadable`.
    """
    return typed_rows.schema(stored_schema(spark, source))


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source's files; see `typed_rows.conformable`.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns, no column of the contract is there, or one
            cannot be read.
    """
    schema = stored_schema(spark, source)
    typed_rows.refuse_unreadable(schema, source, contract)
    unreadable = typed_rows.unreadable(schema)
    readable = StructType([field for field in schema if field.name not in unreadable])
    rows = _reader(spark, source).schema(readable).load(files.paths(source))
    file = files.file_of(rows)
    if folders := [name for name in rows.columns if name not in readable.names]:
        rows = rows.drop(*folders)  # as ambiguous as the column that they shadow
    try:
        return typed_rows.conformable(rows, source, contract, file=file)
    except SourceError as error:
        named = [
            why for name, why in unreadable.items() if re.search(rf"\b{re.escape(name)}\b", source.settings.filter)
        ]
        raise SourceError("; ".join([str(error), *named])) from error


def too_fine(file: str, time: str) -> str:
    """Return what is said of a time that has more digits than Spark reads."""
    return (
        f"{file}: {time} has digits below a microsecond, which Spark does not read; round it before it is written "
        f"(pandas: .dt.floor('us')), or leave it out of the contract; nothing was written"
    )


def _reader(spark: SparkSession, source: Source) -> DataFrameReader:
    reader = spark.read.format(source.settings.kind)
    return reader.options(**OPTIONS, basePath=files.base_path(source))


@lru_cache(maxsize=8)
def stored_schema(spark: SparkSession, source: Source) -> StructType:
    """Return the columns of all files in Spark's types, those of partitions in types that lose nothing."""
    footers = _footers(spark, source)
    in_files = {name for names in footers.values() for name in names}
    # Spark looks into one file, or with mergeSchema into all: it refuses types that differ, and some of Parquet's.
    reader = _reader(spark, source).option("mergeSchema", len(footers) > 1)
    unreadable: dict[str, str] = {}
    try:
        schema = reader.load(files.paths(source)).schema
    except (PySparkException, Py4JJavaError):
        one_by_one, unreadable = _one_by_one(spark, source, footers)
        if not unreadable:
            raise
        schema = _reader(spark, source).schema(StructType(one_by_one)).load(files.paths(source)).schema
    unreadable |= _in_files_and_folders(source, footers)
    hidden = {name.lower() for name in unreadable}
    fields = [
        StructField(name, StringType(), metadata={typed_rows.UNREADABLE: why}) for name, why in unreadable.items()
    ]
    for field in schema:
        if field.name.lower() in hidden:
            continue
        kind, metadata = field.dataType, {}
        if field.name not in in_files:
            kind = field.dataType if _is_canonical(field, source) else StringType()
        else:
            lacking = next((file for file, names in footers.items() if field.name not in names), None)
            metadata = {"absent_from": lacking} if lacking else {}
            if any(names.get(field.name, "").endswith(_FINER) for names in footers.values()):
                metadata[NANOSECONDS] = "INT96"
        fields.append(StructField(field.name, kind, metadata=metadata))
    return StructType(fields)


def _one_by_one(
    spark: SparkSession, source: Source, footers: Mapping[str, Mapping[str, str]]
) -> tuple[list[StructField], dict[str, str]]:
    """Return the columns that Spark reads alike in all files, and of each other one why not."""
    known: dict[str, StructField] = {}
    unreadable: dict[str, str] = {}
    for file, stored in footers.items():
        readable = _readable(spark, source, file)
        for name, kind in stored.items():
            if name in unreadable:
                continue
            if name not in readable:
                unreadable[name] = f"{name} is {kind!r} in {file}, which Spark does not read; {_remedy(kind)}"
            elif known.setdefault(name, readable[name]).dataType != readable[name].dataType:
                types = {names[name]: at for at, names in footers.items() if name in names}
                kinds = " and ".join(f"{stored_as!r} in {at}" for stored_as, at in list(types.items())[:2])
                unreadable[name] = f"files differ: {name} is {kinds}; correct or convert one of them"
    return [field for name, field in known.items() if name not in unreadable], unreadable


def _remedy(kind: str) -> str:
    better = (
        "write it in microseconds (pandas: coerce_timestamps='us')" if "NANOS" in kind else "write it as another type"
    )
    return f"{better}, or leave it out of the contract"


def _readable(spark: SparkSession, source: Source, file: str) -> dict[str, StructField]:
    """Return the columns of one file that Spark reads, each asked for by itself where it does not read all of them."""
    try:
        return {field.name: field for field in _reader(spark, source).load(files.literal(file)).schema}
    except (PySparkException, Py4JJavaError):
        if source.settings.kind != "parquet":
            raise
    jvm = files.jvm(spark)
    parquet = jvm.org.apache.spark.sql.execution.datasources.parquet
    converter = parquet.ParquetToSparkSchemaConverter(spark._jsparkSession.sessionState().conf())
    readable = {}
    with _parquet_file(spark, file, files.hadoop(spark)) as opened:
        for field in opened.getFileMetaData().getSchema().getFields():
            alone = jvm.org.apache.parquet.schema.MessageType("alone", jvm.java.util.Collections.singletonList(field))
            with suppress(PySparkException, Py4JJavaError):
                [converted] = StructType.fromJson(json.loads(converter.convert(alone).json()))
                readable[converted.name] = converted
    return readable


def _in_files_and_folders(source: Source, footers: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the columns that both files and the folders of partitions have, and why they cannot be read."""
    folders = files.partitions(source)
    return {
        name: f"{name} is a column of {file} and the name of folders ({folders[name.lower()]}), whose values may differ; "
        f"rename or remove one of the two"
        for file, names in footers.items()
        for name in names
        if name.lower() in folders
    }


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
        reader.close()
        return types
    with _parquet_file(spark, file, conf) as opened:
        metadata = opened.getFileMetaData()
        is_of_spark = metadata.getKeyValueMetaData().containsKey(OF_SPARK)
        types = {str(field.getName()): str(field) for field in metadata.getSchema().getFields()}
        return {
            name: f"{kind}{_FINER}" if "int96" in kind and not is_of_spark else kind for name, kind in types.items()
        }


@contextmanager
def _parquet_file(spark: SparkSession, file: str, conf: Any) -> Iterator[Any]:
    """Yield Java's reader of a Parquet file."""
    jvm = files.jvm(spark)
    path = jvm.org.apache.hadoop.fs.Path(file)
    opened = jvm.org.apache.parquet.hadoop.util.HadoopInputFile.fromPath(path, conf)
    reader = jvm.org.apache.parquet.hadoop.ParquetFileReader.open(opened)
    try:
        yield reader
    finally:
        reader.close()
