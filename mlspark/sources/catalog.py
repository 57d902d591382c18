"""The kinds of source, behind three functions. Driver."""

from types import ModuleType

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from mlspark.config import Settings, SourceSettings
from mlspark.contracts.contract import Contract
from mlspark.sources import text
from mlspark.sources.source import Source

_READERS: dict[str, ModuleType] = {"csv": text}


def find(spark: SparkSession, settings: SourceSettings, *, root: str) -> Source:
    """Return the source with its parts as they are now.

    Args:
        spark: the session of the job.
        settings: where and how the data is.
        root: what relative paths are taken from.

    Raises:
        SourceError: nothing there, nothing in it, or it cannot be reached.
    """
    source: Source = _READERS[settings.kind].find(spark, settings, root=root)
    return source


def columns(spark: SparkSession, source: Source) -> StructType | None:
    """Return the source's columns by name and type; None where rows have no names (CSV without header, JSON lines)."""
    found: StructType | None = _READERS[source.settings.kind].columns(spark, source)
    return found


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source's parts, lazily; columns that the contract does not name are not read.

    Returns:
        Columns of the contract, as text or in the source's own types (absent ones left out), `_malformed` (why the row
        could not be parsed, or null), `_raw` (the row as text: the line, or JSON), `_source_file`.
    """
    rows: DataFrame = _READERS[source.settings.kind].read(spark, source, contract)
    return rows.where(F.expr(source.settings.filter)) if source.settings.filter else rows


def has_types(source: Source) -> bool:
    """Return whether the source's columns have types of their own, or are text."""
    return source.settings.kind not in ("csv", "json")


def spark_settings(settings: Settings) -> dict[str, str]:
    """Return what the session needs from its start for the configured sources: Hive support and its metastore."""
    configured = (settings.sources.learn, settings.sources.test, settings.scoring.source)
    hive = [source for source in configured if source is not None and source.kind == "hive"]
    if not hive:
        return {}
    found = {"spark.sql.catalogImplementation": "hive"}
    metastores = sorted({source.metastore for source in hive if source.metastore})
    if metastores:
        found["spark.hadoop.hive.metastore.uris"] = ",".join(metastores)
    return found
