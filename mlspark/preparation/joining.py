"""Other sources joined to the pipeline's rows: what was known of a row's key just before it. Driver."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.config import JoinSettings, Settings
from mlspark.contracts import contract as contracts
from mlspark.contracts import spark as conforming
from mlspark.contracts.contract import Contract
from mlspark.contracts.spark import Account
from mlspark.errors import FeatureError
from mlspark.features import joins
from mlspark.features.joins import Aggregate, Function
from mlspark.sources import catalog
from mlspark.sources.source import Source, reading

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Join:
    """A source to be joined, as it was found."""

    settings: JoinSettings
    source: Source
    contract: Contract

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two joins to give equal columns."""
        return {
            **self.source.identity,
            "contract": self.contract.fingerprint,
            "settings": self.settings.model_dump(exclude={"source"}),
        }

    @property
    def columns(self) -> dict[str, str]:
        """New column -> column of the source."""
        return {f"{self.settings.name}_{column}": column for column in self.settings.columns}

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        found = []
        for wanted in self.settings.aggregates:
            function: Function = wanted.function
            named = "_".join([self.settings.name, *([wanted.column] if wanted.column else [])])
            output = joins.aggregate_name(function, named, wanted.window_seconds)
            found.append(Aggregate(output, function, wanted.column, wanted.window_seconds))
        return tuple(found)


def find(spark: SparkSession, settings: Settings) -> tuple[Join, ...]:
    """Return the configured joins, with their sources as they are now.

    Raises:
        SourceError: a source is absent, empty or cannot be reached.
        ContractError: a contract file is wrong.
    """
    return tuple(
        Join(
            join,
            catalog.find(spark, join.source, root=settings.sources.root),
            contracts.load(join.contract),
        )
        for join in settings.joins
    )


def types(spark: SparkSession, found: Sequence[Join], contract: Contract) -> dict[str, str]:
    """Return each new column -> its Spark type, of rows that satisfy `contract`. Looks at no row.

    Raises:
        FeatureError: names join, column and what is wrong with it.
    """
    if not found:
        return {}
    labels = _empty(spark, contract)
    attached = attach(labels, {join.settings.name: _empty(spark, join.contract) for join in found}, found)
    return {field.name: field.dataType.simpleString() for field in attached.schema if field.name not in labels.columns}


def attach(rows: DataFrame, events: Mapping[str, DataFrame], found: Sequence[Join]) -> DataFrame:
    """Return `rows`, each once, with the columns of all joins. Lazy; a shuffle for each.

    Args:
        rows: good rows of the pipeline.
        events: join -> good rows of its source.
        found: the joins.

    Raises:
        FeatureError: names join, column and what is wrong with it.
    """
    for join in found:
        settings, of_join = join.settings, events[join.settings.name]
        times: dict[str, Any] = settings.model_dump(include={"keys", "label_time", "event_time"})
        try:
            if settings.columns:
                rows = joins.point_in_time_join(
                    rows, of_join, columns=join.columns, max_age_seconds=settings.max_age_seconds, **times
                )
            if settings.aggregates:
                rows = joins.aggregate_windows(rows, of_join, aggregates=join.aggregates, **times)
        except FeatureError as error:
            raise FeatureError(f"joins: {settings.name}: {error}") from None
    return rows


@dataclass(frozen=True)
class Read:
    """Joined sources as they were read: what is good of them, what is bad, and the account."""

    good: Mapping[str, DataFrame]
    bad: Sequence[DataFrame]
    """Conformed rows with a column `source`."""
    accounts: Mapping[str, Account]

    @property
    def num_bad(self) -> int:
        return sum(account.totals["rows_quarantined"] for account in self.accounts.values())

    def with_bad(self, bad: DataFrame) -> DataFrame:
        """Return the bad rows of the pipeline and of all joined sources, as `tables.write_quarantine` wants them."""
        kept = ("source", "_source_file", "_reasons", "_raw")
        return reduce(DataFrame.unionByName, (frame.select(*kept) for frame in (bad, *self.bad)))

    def to_json(self, found: Sequence[Join]) -> dict[str, Any]:
        """Return {join: identity, counts and reasons}."""
        return {
            join.settings.name: {
                **join.identity,
                **self.accounts[join.settings.name].sources[join.settings.name],
                "reasons": self.accounts[join.settings.name].reasons,
            }
            for join in found
        }


@contextmanager
def read(spark: SparkSession, found: Sequence[Join]) -> Iterator[Read]:
    """Give the joined sources, conformed and kept while the context lasts. A job for each.

    Raises:
        SourceError: a source cannot be read.
        ContractError: a source as a whole does not meet its contract, or has columns that its policy refuses.
    """
    good: dict[str, DataFrame] = {}
    bad: list[DataFrame] = []
    accounts: dict[str, Account] = {}
    with ExitStack() as stack:
        for join in found:
            name = join.settings.name
            if (columns := catalog.columns(spark, join.source)) is not None:
                conforming.drift(columns, join.contract, has_types=catalog.has_types(join.source))
            rows = conforming.conform(catalog.read(spark, join.source, join.contract), join.contract)
            rows = conforming.without_raw(rows.withColumn("source", F.lit(name))).persist(StorageLevel.MEMORY_AND_DISK)
            stack.callback(rows.unpersist)
            with reading(join.source.uri):
                accounts[name] = conforming.account(rows, join.contract, sources=[name])
            conforming.check_account(accounts[name], join.contract)
            counts = accounts[name].totals
            logger.info("%s: read %s rows, kept %s, rejected %s", name, *(f"{count:,}" for count in counts.values()))
            good[name] = rows.where(~conforming.is_bad()).select(*(column.name for column in join.contract.columns))
            bad.append(rows.where(conforming.is_bad()))
        yield Read(good, bad, accounts)


def _empty(spark: SparkSession, contract: Contract) -> DataFrame:
    return spark.createDataFrame([], ", ".join(f"`{column.name}` {column.type}" for column in contract.columns))
