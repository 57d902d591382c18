"""A table or query of a database. Driver, lazy."""

import os
import re
from typing import Annotated, Any, Literal

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DateType, NumericType, StructType, TimestampNTZType, TimestampType

from mlspark.contracts.contract import Contract
from mlspark.errors import SourceError
from mlspark.sources import typed_rows
from mlspark.sources.settings import SourceSettings
from mlspark.sources.source import Part, Source, reading

Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
"""Name of an environment variable; in capitals, so that nobody gives the password in its place unnoticed."""


class JdbcSettings(SourceSettings):
    """A table or query of a database; its driver must be on Spark's class path (spark.jars.packages)."""

    kind: Literal["jdbc"]
    url: str
    """jdbc:postgresql://host:port/database, without credentials."""
    query: str
    """Table to read, or a SELECT statement."""
    partition_column: str = ""
    """Numeric, date or timestamp column, as the source or the contract calls it, by whose ranges connections share the rows;
    empty: one connection reads all."""
    num_partitions: Annotated[int, Field(ge=1)] = 1
    """Connections that read at a time; ignored without `partition_column`."""
    user_variable: Variable = "MLSPARK_JDBC_USER"
    """Environment variable that holds the user's name."""
    password_variable: Variable = "MLSPARK_JDBC_PASSWORD"  # noqa: S105 (a name)
    """Environment variable that holds the password."""


Settings = JdbcSettings
HAS_TYPES = True
PLACE = "url"
EXTENSIONS: tuple[str, ...] = ()

_POSTGRESQL = "jdbc:postgresql:"
_TIMES = (DateType, TimestampNTZType, TimestampType)
_ROWS_AT_A_TIME = 10_000
"""Without it PostgreSQL's driver holds the whole result in memory."""
_FINGERPRINT = """
select count(*) as num_rows,
    coalesce(sum(('x' || substr(hash, 1, 16))::bit(64)::bigint::numeric), 0)::text as head,
    coalesce(sum(('x' || substr(hash, 17, 16))::bit(64)::bigint::numeric), 0)::text as tail
from (select md5(row::text) as hash from (select * from {relation}) as row) as hashed
"""
"""Sums, so that the order of rows does not matter and two equal rows are not none."""


def find(spark: SparkSession, settings: JdbcSettings, *, root: str) -> Source:
    """Return the source with the query's result as its part. The database reads it once.

    A database does not say whether rows have changed. So the part's state is the number of rows and sums over a hash of
    each, which PostgreSQL computes itself; of another database Spark reads all rows for it. Connections do not share a
    transaction, so anyone who reads compares it before and after.

    Raises:
        SourceError: no connection, no such table, or no row.
    """
    uri = f"{settings.url}#{' '.join(settings.query.split())}"
    relation = _relation(settings)
    try:
        with reading(uri, is_only_reading=True):
            if settings.url.startswith(_POSTGRESQL):
                [state] = _load(spark, settings, query=_FINGERPRINT.format(relation=relation)).collect()
            else:
                [state] = _sums(_load(spark, settings, dbtable=relation)).collect()
    except SourceError as error:
        raise SourceError(f"{error}{_hint(settings, str(error))}") from error
    if not state[0]:
        raise SourceError(f"{uri}: no row")
    return Source(
        uri, settings, (Part(uri, f"{state[0]} rows, {' '.join(map(str, state[1:]))}"),), "a checksum of all rows"
    )


def _sums(rows: DataFrame) -> DataFrame:
    """Return what `_FINGERPRINT` computes, on Spark: number of rows, and two sums over a hash of each."""
    row = F.to_json(F.struct("*"), {"ignoreNullFields": "false"})
    hashes = (F.xxhash64(F.lit(half), row).cast("decimal(38,0)") for half in ("head", "tail"))
    return rows.agg(F.count("*"), *(F.coalesce(F.sum(number), F.lit(0)).cast("string") for number in hashes))


def _hint(settings: JdbcSettings, message: str) -> str:
    if re.search("authentication|password|credential", message):
        return (
            f"; user and password are those of the environment variables {settings.user_variable} and "
            f"{settings.password_variable}"
        )
    return "; put the driver on spark.jars.packages" if re.search("[Dd]river", message) else ""


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return the result's columns by name and type."""
    assert isinstance(source.settings, JdbcSettings)
    return typed_rows.schema(_load(spark, source.settings, dbtable=_relation(source.settings)).schema)


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the result, by ranges of the partition column where there is one; see `typed_rows.conformable`.

    Asks the database for the column's bounds.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns, no column of the contract is there, or
            `partition_column` cannot share the rows.
    """
    settings = source.settings
    assert isinstance(settings, JdbcSettings)
    relation = _relation(settings)
    schema = _load(spark, settings, dbtable=relation).schema
    if settings.url.startswith(_POSTGRESQL):
        relation = _in_utc(relation, schema)
    shares = {}
    if settings.partition_column and settings.num_partitions > 1:
        shares = _shares(spark, settings, relation, _named(settings.partition_column, schema, contract))
    rows = _load(spark, settings, dbtable=relation, **shares)
    return typed_rows.conformable(rows, source, contract, file=F.lit(source.uri))


def _load(spark: SparkSession, settings: JdbcSettings, **options: str) -> DataFrame:
    """Return a table or query, with the credentials that the environment holds."""
    options |= {"url": settings.url, "fetchsize": str(_ROWS_AT_A_TIME), "preferTimestampNTZ": "true"}
    if settings.url.startswith(_POSTGRESQL):
        options["driver"] = "org.postgresql.Driver"  # Java does not look for drivers in Spark's packages
    for option, variable in (("user", settings.user_variable), ("password", settings.password_variable)):
        if variable in os.environ:
            options[option] = os.environ[variable]
    return spark.read.format("jdbc").options(**options).load()


def _relation(settings: JdbcSettings) -> str:
    """Return the query as it stands after "from"."""
    query = settings.query.strip().rstrip("; \n")
    return f"({query}) mlspark_source" if re.match(r"(?i)(select|with)\b", query) else query


def _in_utc(relation: str, schema: StructType) -> str:
    """Return a relation of PostgreSQL with timestamps without zone taken as UTC, and infinite times in the year 20000.

    The driver would take the former in the zone of the machine, where one hour of the year is not, and the latter as the
    years 1 and 9999. The year 20000 is beyond what any contract takes: such a row is bad for the rule `range`.
    """
    if not any(isinstance(field.dataType, _TIMES) for field in schema):
        return relation
    named = {f'"{field.name.replace(chr(34), chr(34) * 2)}"': field.dataType for field in schema}
    columns = ", ".join(
        f"{_finite(name, kind)} as {name}" if isinstance(kind, _TIMES) else name for name, kind in named.items()
    )
    return f"(select {columns} from {relation}) mlspark_source_utc"  # noqa: S608 (the user's own query)


def _finite(name: str, kind: DataType) -> str:
    """Return SQL of a time or date of PostgreSQL that has no infinite values."""
    type_ = "date" if isinstance(kind, DateType) else "timestamptz"
    value = f"{name} at time zone 'UTC'" if isinstance(kind, TimestampNTZType) else name
    return f"case when isfinite({name}) or {name} is null then {value} else {type_} '20000-01-01' end"


def _named(column: str, schema: StructType, contract: Contract) -> str:
    """Return the column of the result that a setting names: as it is there, in another case, or as the contract calls it.

    Raises:
        SourceError: there is none.
    """
    headers = {name: header for header, name in contract.names_by_header.items()}
    wanted = (column, headers.get(column, column), column.lower())
    names = {**{name.lower(): name for name in schema.fieldNames()}, **{name: name for name in schema.fieldNames()}}
    for name in wanted:
        if name in names:
            return names[name]
    raise SourceError(f"partition_column {column!r}: not a column of the source ({', '.join(schema.fieldNames())})")


def _shares(spark: SparkSession, settings: JdbcSettings, relation: str, column: str) -> dict[str, str]:
    """Return the options by which connections share the rows by a column; none for one without values."""
    jvm: Any = spark._jvm
    # Any header: "education-num" is no difference.
    quoted = jvm.org.apache.spark.sql.jdbc.JdbcDialects.get(settings.url).quoteIdentifier(column)
    bounds = _load(
        spark, settings, query=f"select min({quoted}) as smallest, max({quoted}) as greatest from {relation}"  # noqa: S608
    )  # fmt: skip
    # Spark takes bounds of numbers as whole ones; they only say where to cut.
    kind = "bigint" if isinstance(bounds.schema[0].dataType, NumericType) else "string"
    names = bounds.columns  # in capitals from some databases
    [extremes] = bounds.select(
        *(F.col(name).try_cast(kind).cast("string").alias(f"bound_{place}") for place, name in enumerate(names)),
        *(F.col(name).cast("string").alias(f"value_{place}") for place, name in enumerate(names)),
    ).collect()
    if extremes["value_0"] is None:
        return {}
    if None in (extremes["bound_0"], extremes["bound_1"]):
        raise SourceError(
            f"sources.*.partition_column (scoring.source.partition_column): {settings.partition_column} is from "
            f"{extremes['value_0']} to {extremes['value_1']}, which connections cannot share out; name a column of whole "
            f"numbers, dates or times, or leave it out"
        )
    return {
        "partitionColumn": column,
        "lowerBound": extremes["bound_0"],
        "upperBound": extremes["bound_1"],
        "numPartitions": str(settings.num_partitions),
    }
