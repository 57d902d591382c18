"""The kinds of source: one file each, known here by name, behind three functions. Driver."""

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError
from mlspark.section import Section
from mlspark.sources import archives, csv, delta, hive, idx, images, jdbc, json, orc, parquet
from mlspark.sources.hive import HiveSettings
from mlspark.sources.settings import SourceSettings
from mlspark.sources.source import Source, reading


class Reader(Protocol):
    """What the file of a kind has: its settings, and how such a source is found and read."""

    @property
    def Settings(self) -> type[SourceSettings]:  # noqa: N802 (a class)
        """A section of settings whose `kind` is the reader's name."""

    @property
    def HAS_TYPES(self) -> bool:  # noqa: N802 (a constant)
        """Whether columns have types of their own, or are text."""

    @property
    def PLACE(self) -> str:  # noqa: N802 (a constant)
        """The setting that says where the data is: path, table, url."""

    @property
    def EXTENSIONS(self) -> tuple[str, ...]:  # noqa: N802 (a constant)
        """Ends of file names by which the kind is recognised."""

    def find(self, spark: SparkSession, settings: Any, *, root: str) -> Source:
        """See `catalog.find`."""

    def columns(self, spark: SparkSession, source: Source) -> StructType | None:
        """See `catalog.columns`."""

    def read(self, spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
        """See `catalog.read`."""


READERS: dict[str, Reader] = {
    "csv": csv,
    "json": json,
    "parquet": parquet,
    "orc": orc,
    "delta": delta,
    "hive": hive,
    "jdbc": jdbc,
    "images": images,
    "archives": archives,
    "idx": idx,
}


def union(readers: Mapping[str, Reader]) -> Any:
    """Return the type of a setting that is a source of one of these kinds, chosen by `kind`."""
    return Annotated[reduce(or_, (reader.Settings for reader in readers.values())), Field(discriminator="kind")]


if TYPE_CHECKING:
    AnySource = SourceSettings
else:
    AnySource = union(READERS)
    """The settings of a source of any kind."""


class SourcesSettings(Section):
    root: str = ""
    """Folder or URI that relative paths of sources start from; empty: $MLSPARK_DATA, else data."""
    learn: AnySource
    """Source of the rows to learn from; `split` divides them into training, validation and test rows."""
    validation: AnySource | None = None
    """Source of further rows to choose the best checkpoint by, besides those that `split` holds out."""
    test: AnySource | None = None
    """Source of untouched rows for the final evaluation, besides those that `split` holds out."""

    @property
    def rows(self) -> dict[str, SourceSettings]:
        """The sources that are configured, by name: learn, validation, test."""
        named = {"learn": self.learn, "validation": self.validation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}


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
        return READERS[settings.kind].find(spark, settings, root=root)


def columns(spark: SparkSession, source: Source) -> StructType | None:
    """Return the source's columns by name and type; None where rows have no names (CSV without header, JSON lines).

    A column that some files lack has metadata {"absent_from": one of them}.

    Raises:
        SourceError: it cannot be read, a name stands twice, or files differ in a type.
    """
    with reading(source.uri, is_only_reading=True):
        return READERS[source.settings.kind].columns(spark, source)


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source's parts that passes its filter, lazily.

    The filter works on the source's own columns, text in the case of text, before anything is cast.

    Returns:
        Columns of the contract, as text or in the source's own types (absent ones left out), `MALFORMED` (why the row
        could not be parsed, or null), `RAW` (the row: the line, or a struct), `SOURCE_FILE`; see `own_columns`.

    Raises:
        SourceError: it cannot be read, the filter is no condition, or no column of the contract is there.
    """
    with reading(source.uri, is_only_reading=True):
        return READERS[source.settings.kind].read(spark, source, contract)


def has_types(source: Source) -> bool:
    """Return whether the source's columns have types of their own, or are text."""
    return READERS[source.settings.kind].HAS_TYPES


def spark_settings(sources: Iterable[SourceSettings]) -> dict[str, str]:
    """Return what the session needs from its start for these sources: Hive support and its metastore.

    Raises:
        ConfigError: sources name different metastores; a session has one.
    """
    tables = [source for source in sources if isinstance(source, HiveSettings)]
    if not tables:
        return {}
    metastores = sorted({source.metastore for source in tables if source.metastore})
    if len(metastores) > 1:
        raise ConfigError(
            f"sources: metastores {' and '.join(metastores)}: a job can use one; name the same everywhere"
        )
    settings = {"spark.sql.catalogImplementation": "hive"}
    return settings | ({"spark.hadoop.hive.metastore.uris": metastores[0]} if metastores else {})


def _name(settings: SourceSettings) -> str:
    """Return what to call a source that is not found yet."""
    return str(getattr(settings, READERS[settings.kind].PLACE))
