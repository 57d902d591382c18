"""A table of a Hive metastore, by its partitions. Driver, lazy."""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, unquote

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from mlspark.contracts import free_sql
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import PREFIX
from mlspark.errors import SourceError
from mlspark.sources import files, typed_rows
from mlspark.sources.settings import SourceSettings
from mlspark.sources.source import Part, Source


class HiveSettings(SourceSettings):
    """A table of a Hive metastore; a filter over partition columns reads only those partitions."""

    kind: Literal["hive"]
    table: str
    """Table to read, as database.table."""
    metastore: str = ""
    """Address of the metastore, thrift://host:port; empty: that of Spark's own settings, else an embedded one."""


Settings = HiveSettings
HAS_TYPES = True
PLACE = "table"
EXTENSIONS: tuple[str, ...] = ()

_PART = f"{PREFIX}part"
_NULL = "__HIVE_DEFAULT_PARTITION__"


def find(spark: SparkSession, settings: HiveSettings, *, root: str) -> Source:
    """Return the source with its partitions as parts, or the whole table as one. One Spark job lists the files.

    Partitions that a filter over partition columns alone leaves out are no parts.

    Raises:
        SourceError: no such table, a view, a table that Spark cannot read as it is, no partition, no file, or a partition
            whose folder is gone.
    """
    try:
        table = spark.table(settings.table)
    except AnalysisException as error:
        if error.getCondition() != "TABLE_OR_VIEW_NOT_FOUND":
            raise
        where = settings.metastore or "the metastore of Spark's settings"
        raise SourceError(
            f"{settings.table}: no such table in {where}; check sources.*.table (scoring.source.table) and metastore"
        ) from None
    catalog, ident = spark._jsparkSession.sessionState().catalog(), _identifier(spark, settings.table)
    metadata = catalog.getTableMetadata(ident)
    _refuse_unreadable(metadata, settings.table)
    names = list(_items(metadata.partitionColumnNames()))
    if names:
        partitions = catalog.listPartitions(ident, files.jvm(spark).scala.Option.apply(None))
        locations = {
            _part_name(names, partition.spec()): _location(spark, partition) for partition in _items(partitions)
        }
    else:
        locations = {settings.table: _location(spark, metadata)}
    wanted = _that_pass(spark, table, settings, names, locations) if names and settings.filter else list(locations)
    if not wanted:
        raise SourceError(f"{settings.table}: no partition{' that passes the filter' if locations else ''}")
    parts = _parts(spark, {name: locations[name] for name in sorted(wanted)})
    if not any(part.size_bytes for part in parts):
        raise SourceError(f"{settings.table}: no bytes to read in {len(parts)} partitions")
    return Source(settings.table, settings, parts, "sizes and times of change of the files of each partition")


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return the table's columns by name and type, partition columns last."""
    return typed_rows.schema(_table(spark, source).schema)


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source's partitions; see `typed_rows.conformable`.

    Tables of text files have null for a text that is no value of its column: Hive's readers do not report it.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns, or no column of the contract is there.
    """
    table = _table(spark, source)
    if "=" in source.parts[0].name:
        names = [name for name, _ in _pairs(source.parts[0].name)]
        # One set for all partitions: a chain of thousands of "or" is too deep for Spark's stack.
        table = table.where(F.struct(*names).isin([_values(table, part.name) for part in source.parts]))
    # Not every kind of table has _metadata.
    return typed_rows.conformable(table, source, contract, file=F.input_file_name())


def _table(spark: SparkSession, source: Source) -> DataFrame:
    assert isinstance(source.settings, HiveSettings)
    spark.catalog.refreshTable(source.settings.table)  # another program may have written since this one looked
    return spark.table(source.settings.table)


def _identifier(spark: SparkSession, table: str) -> Any:
    database, _, name = table.rpartition(".")
    jvm = files.jvm(spark)
    return jvm.org.apache.spark.sql.catalyst.TableIdentifier(name, jvm.scala.Option.apply(database or None))


def _refuse_unreadable(metadata: Any, table: str) -> None:
    provider = str(metadata.provider().get()) if metadata.provider().isDefined() else ""
    properties = str(metadata.properties().toString()).lower()
    if metadata.tableType().name() == "VIEW":
        raise SourceError(f"{table}: is a view, whose rows have no state to go by; name its table, and use filter")
    if provider == "delta":
        raise SourceError(f"{table}: is a Delta table; set kind to delta and path to {metadata.location().toString()}")
    if "transactional -> true" in properties:
        raise SourceError(
            f"{table}: is a transactional table, whose changes Spark does not see; copy it to a plain one"
        )


def _location(spark: SparkSession, metadata: Any) -> str:
    """Return the folder of a table or partition as Hadoop names it: not URL-encoded."""
    path = files.jvm(spark).org.apache.hadoop.fs.Path(metadata.location())
    return str(path.getFileSystem(files.hadoop(spark)).makeQualified(path).toString())


def _part_name(names: list[str], spec: Any) -> str:
    return "/".join(f"{quote(name)}={quote(str(spec.apply(name)), safe=' ')}" for name in names)


def _values(table: DataFrame, part: str) -> Column:
    """Return the values of a partition's columns as a struct in their types."""
    return F.struct(
        *(
            F.lit(None if value == _NULL else value).cast(table.schema[name].dataType).alias(name)
            for name, value in _pairs(part)
        )
    )


def _pairs(part: str) -> list[tuple[str, str]]:
    """Return the columns and values that a partition's name holds."""
    split = (pair.partition("=") for pair in part.split("/"))
    return [(unquote(name), unquote(value)) for name, _, value in split]


def _that_pass(
    spark: SparkSession, table: DataFrame, settings: HiveSettings, names: list[str], locations: Mapping[str, str]
) -> list[str]:
    """Return the partitions that pass a filter over partition columns alone; all, if it names other columns."""
    if not locations:
        return []
    rows = [(name, *(None if value == _NULL else value for _, value in _pairs(name))) for name in locations]
    texts = spark.createDataFrame(rows, ", ".join(f"`{name}` string" for name in (_PART, *names)))
    typed_values = (F.col(name).cast(table.schema[name].dataType).alias(name) for name in names)
    partitions = texts.select(_PART, *typed_values)
    try:
        free_sql.check(spark, settings.filter, StructType([partitions.schema[name] for name in names]))
    except ValueError:  # it names other columns too, or is refused when the rows are read
        return list(locations)
    passing = {row[_PART] for row in partitions.where(settings.filter).select(_PART).collect()}
    return [name for name in locations if name in passing]


def _parts(spark: SparkSession, locations: Mapping[str, str]) -> tuple[Part, ...]:
    """Return partitions with the sizes and times of their files as their state."""
    data_files = files.listed(spark, *map(files.literal, locations.values()))
    by_location: dict[str, list[Part]] = {location: [] for location in locations.values()}
    for file in data_files:
        folder = file.name
        while folder not in by_location:
            assert "/" in folder, f"{file.name} is in no partition"
            folder = folder.rpartition("/")[0]
        by_location[folder].append(file)
    return tuple(_part(name, by_location[location]) for name, location in locations.items())


def _part(name: str, data_files: list[Part]) -> Part:
    state = files.digest(data_files)
    return Part(name, f"{len(data_files)} files, {state}", sum(file.size_bytes for file in data_files))


def _items(sequence: Any) -> Any:
    """Yield the items of a Scala sequence."""
    items = sequence.iterator()
    while items.hasNext():
        yield items.next()
