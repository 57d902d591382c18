"""Other sources joined to the pipeline's rows: what was known of a row's key just before it. Driver."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, Literal

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pydantic import Field
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from mlspark.contracts import contract as contracts
from mlspark.contracts.accounting import Account
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import RAW, REASONS, SOURCE, SOURCE_FILE
from mlspark.errors import FeatureError
from mlspark.features.point_in_time import point_in_time_join
from mlspark.features.timeline import DatesKnown
from mlspark.features.windows import Aggregate, Function, aggregate_name, aggregate_windows, leaves_bigint
from mlspark.intake import rows
from mlspark.section import Section
from mlspark.sources import catalog
from mlspark.sources.catalog import AnySource
from mlspark.sources.source import Source


class AggregateSettings(Section):
    """One number from the events of a key in the time before a row."""

    function: Literal["count", "sum", "mean", "min", "max", "distinct", "last"]
    column: str | None = None
    """Column of the joined source to aggregate; without one, `count` counts the events themselves."""
    window_seconds: Annotated[int, Field(ge=1)]
    """Seconds before the row's label_time, without that moment, whose events are aggregated."""


class JoinSettings(Section):
    """Another source, of which each row gets what was known of its key just before it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Name of the join, part of its new columns' names: NAME_COLUMN, count_NAME_7d, mean_NAME_COLUMN_1h."""
    source: AnySource
    contract: str
    """Contract file of the joined source's rows."""
    keys: Annotated[dict[str, str], Field(min_length=1)]
    """Columns that must be equal: column of the pipeline's rows -> column of the joined source."""
    label_time: str
    """Date or timestamp column of the pipeline's rows: the moment at which they are to be predicted."""
    event_time: str
    """Date or timestamp column of the joined source; a row at exactly label_time is not used."""
    dates_known: DatesKnown = "end_of_day"
    """Moment at which a row is known whose event_time is a date: the end of that day, as its totals are, or its start.
    Without effect on a timestamp."""
    columns: tuple[str, ...] = ()
    """Columns taken from the newest row of the same keys that is older than label_time."""
    max_age_seconds: Annotated[int, Field(ge=1)] | None = None
    """Greatest age in seconds of the row that `columns` are taken from; unset: no limit."""
    aggregates: tuple[AggregateSettings, ...] = ()


@dataclass(frozen=True)
class Join:
    """A source to be joined, as it was found."""

    settings: JoinSettings
    source: Source
    contract: Contract

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two joins to yield equal columns."""
        return {
            **self.source.identity,
            "contract": self.contract.fingerprint,
            "settings": self.settings.model_dump(exclude={"source"}),
        }

    @property
    def known(self) -> str:
        """When a row of the source is known, in words for the report."""
        is_date = self.contract.types.get(self.settings.event_time) == "date"
        return f"{self.settings.dates_known.replace('_', ' ')} (UTC)" if is_date else "event_time"

    @property
    def columns(self) -> dict[str, str]:
        """New column -> column of the source."""
        return {f"{self.settings.name}_{column}": column for column in self.settings.columns}

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        aggregates = []
        for wanted in self.settings.aggregates:
            function: Function = wanted.function
            named = "_".join([self.settings.name, *([wanted.column] if wanted.column else [])])
            output = aggregate_name(function, named, wanted.window_seconds)
            aggregates.append(Aggregate(output, function, wanted.column, wanted.window_seconds))
        return tuple(aggregates)


def find(spark: SparkSession, joins: Sequence[JoinSettings], *, root: str) -> tuple[Join, ...]:
    """Return the configured joins, with their sources as they are now.

    Raises:
        SourceError: a source is absent, empty or cannot be reached.
        ContractError: a contract file is wrong.
    """
    return tuple(
        Join(
            join,
            catalog.find(spark, join.source, root=root),
            contracts.load(join.contract),
        )
        for join in joins
    )


def sources(spark: SparkSession, joins: Sequence[JoinSettings], *, root: str) -> dict[str, Source]:
    """Return the joined sources by the joins' names, as they are now; raises what `find` raises."""
    return {join.settings.name: join.source for join in find(spark, joins, root=root)}


def attach(rows: DataFrame, events: Mapping[str, DataFrame], joins: Sequence[Join]) -> DataFrame:
    """Return `rows`, each once, with the columns of all joins. Lazy; a shuffle for each.

    Args:
        rows: good rows of the pipeline.
        events: join -> good rows of its source.
        joins: those to attach.

    Raises:
        FeatureError: names join, column and what is wrong with it.
    """
    for join in joins:
        settings, of_join = join.settings, events[join.settings.name]
        times: dict[str, Any] = settings.model_dump(include={"keys", "label_time", "event_time", "dates_known"})
        try:
            if settings.columns:
                rows = point_in_time_join(
                    rows, of_join, columns=join.columns, max_age_seconds=settings.max_age_seconds, **times
                )
            if settings.aggregates:
                rows = aggregate_windows(rows, of_join, aggregates=join.aggregates, **times)
        except FeatureError as error:
            raise FeatureError(f"joins: {settings.name}: {error}") from None
    return rows


@contextmanager
def computing(joins: Sequence[Join]) -> Iterator[None]:
    """Turn a failure of Spark to compute a column of the joins into a FeatureError that names join and column."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if not (message := leaves_bigint(error)):
            raise
        names = [
            join.settings.name for join in joins if any(message.startswith(f"{a.output}:") for a in join.aggregates)
        ]
        raise FeatureError(f"joins: {', '.join(names)}: {message}; nothing was written") from error


@dataclass(frozen=True)
class Read:
    """Joined sources as they were read: what is good of them, what is bad, and the account."""

    good: Mapping[str, DataFrame]
    bad: Sequence[DataFrame]
    """Bad rows of each joined source, conformed, with a column `SOURCE`."""
    accounts: Mapping[str, Account]

    @property
    def num_bad(self) -> int:
        return sum(account.totals["rows_quarantined"] for account in self.accounts.values())

    def with_bad(self, bad: DataFrame) -> DataFrame:
        """Return the bad rows of the pipeline and of all joined sources, as `quarantine.write` wants them."""
        kept = (SOURCE, SOURCE_FILE, REASONS, RAW)
        return reduce(DataFrame.unionByName, (frame.select(*kept) for frame in (bad, *self.bad)))

    def to_json(self, joins: Sequence[Join]) -> dict[str, Any]:
        """Return {join: identity, counts and reasons}."""
        return {
            join.settings.name: {
                **join.identity,
                "known": join.known,
                **self.accounts[join.settings.name].sources[join.settings.name],
                "reasons": self.accounts[join.settings.name].reasons,
            }
            for join in joins
        }


@contextmanager
def read(spark: SparkSession, joins: Sequence[Join]) -> Iterator[Read]:
    """Yield the joined sources, conformed and kept while the context lasts. A job for each.

    Raises:
        SourceError: a source cannot be read.
        ContractError: a source as a whole does not meet its contract, or has columns that its policy refuses.
    """
    with ExitStack() as stack:
        taken = {
            join.settings.name: stack.enter_context(
                rows.take_in(spark, {join.settings.name: join.source}, join.contract)
            )
            for join in joins
        }
        yield Read(
            good={join.settings.name: taken[join.settings.name].good.select(*join.contract.names) for join in joins},
            bad=[join_rows.bad for join_rows in taken.values()],
            accounts={name: join_rows.account for name, join_rows in taken.items()},
        )
