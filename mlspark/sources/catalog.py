"""The kinds of source, behind three functions. Driver."""

from types import ModuleType

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from mlspark.config import Settings, SourceSettings
from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError
from mlspark.sources import columnar, delimited, delta, hive, jdbc, json_lines
from mlspark.sources.source import Source, reading

_READERS: dict[str, ModuleType] = {
    "csv": delimited,
    "json": json_lines,
    "parquet": columnar,
    "orc": columnar,
    "delta": delta,
    "hive": hive,
    "jdbc": jdbc,
}


def find(spark: SparkSession, settings: SourceSettings, *, root: str) -> Source:
    """Return the source with its parts as they are now.

    Args:
        spark: the session of the job.
        settings: where and how the data is.
        root: what relative paths are taken from.

    Raises:
        SourceError: nothing there, nothing in it, or it cannot be reached.
    """
    with reading(_name(settings), is_only_reading=True):
        source: Source = _READERS[settings.kind].find(spark, settings, root=root)
    return source


def columns(spark: SparkSession, source: Source) -> StructType | None:
    """Return the source's columns by name and type; None where rows have no names (CSV without header, JSON lines).

    A column that some files lack has metadata {"absent_from": one of them}.

    Raises:
        SourceError: it cannot be read, a name stands twice, or files differ in a type.
    """
    with reading(source.uri, is_only_reading=True):
        found: StructType | None = _READERS[source.settings.kind].columns(spark, source)
    return found


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source's parts that passes its filter, lazily.

    The filter works on the source's own columns, text in the case of text, before anything is cast.

    Returns:
        Columns of the contract, as text or in the source's own types (absent ones left out), `_malformed` (why the row
        could not be parsed, or null), `_raw` (the row as text: the line, or JSON), `_source_file`.

    Raises:
        SourceError: it cannot be read, the filter is no condition, or no column of the contract is there.
    """
    with reading(source.uri, is_only_reading=True):
        rows: DataFrame = _READERS[source.settings.kind].read(spark, source, contract)
    return rows


def has_types(source: Source) -> bool:
    """Return whether the source's columns have types of their own, or are text."""
    return source.settings.kind not in ("csv", "json")


def spark_settings(settings: Settings) -> dict[str, str]:
    """Return what the session needs from its start for the configured sources: Hive support and its metastore.

    Raises:
        ConfigError: sources name different metastores; a session has one.
    """
    hive = [source for source in settings.all_sources.values() if source.kind == "hive"]
    if not hive:
        return {}
    metastores = sorted({source.metastore for source in hive if source.metastore})
    if len(metastores) > 1:
        raise ConfigError(
            f"sources: metastores {' and '.join(metastores)}: a job can use one; name the same everywhere"
        )
    found = {"spark.sql.catalogImplementation": "hive"}
    return found | ({"spark.hadoop.hive.metastore.uris": metastores[0]} if metastores else {})


def _name(settings: SourceSettings) -> str:
    """Return what to call a source that is not found yet."""
    if settings.kind == "hive":
        return settings.table
    return settings.url if settings.kind == "jdbc" else settings.path
