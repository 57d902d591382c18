"""A table or query of a database. Driver, lazy."""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, NumericType, StructType

from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import AS_JSON
from mlspark.errors import SourceError
from mlspark.sources import database_values, typed_rows
from mlspark.sources.database_values import Quote, Relation
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
    uri = _uri(settings)
    schema = _stored(spark, settings)
    try:
        with reading(uri, is_only_reading=True):
            if settings.url.startswith(_POSTGRESQL):
                [state] = _load(spark, settings, query=_FINGERPRINT.format(relation=_relation(settings))).collect()
            else:
                everything = _whole(spark, settings, schema, dict.fromkeys(schema.fieldNames(), "string"))
                [state] = _sums(_load(spark, settings, dbtable=everything.sql, **everything.options)).collect()
    except SourceError as error:
        raise SourceError(f"{error}{_hint(settings, str(error))}") from error
    if not state[0]:
        raise SourceError(f"{uri}: no row")
    return Source(
        uri, settings, (Part(uri, f"{state[0]} rows, {' '.join(map(str, state[1:]))}"),), "a checksum of all rows"
    )


def _sums(rows: DataFrame) -> DataFrame:
    """Return what `_FINGERPRINT` computes, on Spark: number of rows, and two sums over a hash of each."""
    row = F.to_json(F.struct("*"), AS_JSON)
    hashes = (F.xxhash64(F.lit(half), row).cast("decimal(38,0)") for half in ("head", "tail"))
    return rows.agg(F.count("*"), *(F.coalesce(F.sum(number), F.lit(0)).cast("string") for number in hashes))


def _hint(settings: JdbcSettings, message: str) -> str:
    if re.search("authentication|password|credential", message):
        return (
            f"; user and password are those of the environment variables {settings.user_variable} and "
            f"{settings.password_variable}"
        )
    if "Unrecognized SQL type" in message:
        return "; have `query` name the columns to read, without that of this type or with its cast to text"
    return "; put the driver on spark.jars.packages" if re.search("[Dd]river", message) else ""


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return the result's columns by name and type."""
    settings = source.settings
    assert isinstance(settings, JdbcSettings)
    stored = _stored(spark, settings)
    whole = _whole(spark, settings, stored, {})
    read_as = _load(spark, settings, dbtable=whole.sql, **whole.options).schema
    # Numbers that are read as doubles are more than that: see `database_values`.
    fields = [
        field if isinstance(field.dataType, NumericType) else now for field, now in zip(stored, read_as, strict=True)
    ]
    return typed_rows.schema(StructType(fields))


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the result, by ranges of the partition column where there is one; see `typed_rows.conformable`.

    Asks the database for the column's bounds.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns, no column of the contract is there, or
            `partition_column` cannot share the rows.
    """
    settings = source.settings
    assert isinstance(settings, JdbcSettings)
    schema = _stored(spark, settings)
    wanted = {column.source_name: column.type for column in contract.columns}
    whole = _whole(spark, settings, schema, wanted)
    shares = {}
    if settings.partition_column and settings.num_partitions > 1:
        shares = _shares(spark, settings, whole, _named(settings.partition_column, schema, contract))
    rows = _load(spark, settings, dbtable=whole.sql, **whole.options, **shares)
    return typed_rows.conformable(
        rows, source, contract, file=F.lit(source.uri), instead=whole.values(), flaws=whole.flaws(rows)
    )


def _stored(spark: SparkSession, settings: JdbcSettings) -> StructType:
    """Return the query's columns as Spark knows them by the driver."""
    try:
        with reading(_uri(settings), is_only_reading=True):
            return _load(spark, settings, dbtable=_relation(settings)).schema
    except SourceError as error:
        raise SourceError(f"{error}{_hint(settings, str(error))}") from error


def _whole(spark: SparkSession, settings: JdbcSettings, schema: StructType, wanted: Mapping[str, str]) -> Relation:
    """Return the query as `database_values` puts it."""
    relation = _relation(settings)
    if settings.url.startswith(_POSTGRESQL):
        return database_values.of_postgresql(relation, schema, wanted)
    return database_values.of_any(relation, schema, wanted, _quote(spark, settings))


def _quote(spark: SparkSession, settings: JdbcSettings) -> Quote:
    jvm: Any = spark._jvm
    dialect = jvm.org.apache.spark.sql.jdbc.JdbcDialects.get(settings.url)
    return lambda name: str(dialect.quoteIdentifier(name))


def _load(spark: SparkSession, settings: JdbcSettings, **options: str) -> DataFrame:
    """Return a table or query, with the credentials that the environment holds."""
    options |= {"url": settings.url, "fetchsize": str(_ROWS_AT_A_TIME), "preferTimestampNTZ": "true"}
    if settings.url.startswith(_POSTGRESQL):
        options["driver"] = "org.postgresql.Driver"  # Java does not look for drivers in Spark's packages
    for option, variable in (("user", settings.user_variable), ("password", settings.password_variable)):
        if variable in os.environ:
            options[option] = os.environ[variable]
    return spark.read.format("jdbc").options(**options).load()


def _uri(settings: JdbcSettings) -> str:
    return f"{settings.url}#{' '.join(settings.query.split())}"


def _relation(settings: JdbcSettings) -> str:
    """Return the query as it stands after "from"."""
    query = settings.query.strip().rstrip("; \n")
    return f"({query}) mlspark_source" if re.match(r"(?i)(select|with)\b", query) else query


def _bound(value: Column, kind: DataType) -> Column:
    """Return a bound as Spark takes it: whole, or in years that databases can read; it only says where to cut."""
    if isinstance(kind, NumericType):
        return value.try_cast("bigint").cast("string")
    first, last = (
        F.lit(day).cast(value_type) for day, value_type in ((day, kind) for day in ("0001-01-01", "9999-12-31"))
    )
    return F.greatest(F.least(value, last), first).cast("string")


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


def _shares(spark: SparkSession, settings: JdbcSettings, relation: Relation, column: str) -> dict[str, str]:
    """Return the options by which connections share the rows by a column; none for one without values.

    Raises:
        SourceError: the column is of another type, or has bounds that are none.
    """
    read_as = _load(spark, settings, dbtable=relation.sql, **relation.options).schema[column].dataType
    if not isinstance(read_as, (NumericType, *database_values.TIMES)):
        raise SourceError(
            f"sources.*.partition_column (scoring.source.partition_column): {settings.partition_column} is "
            f"{read_as.simpleString()}, which connections cannot share out; name a column of numbers, dates or times, "
            f"or leave it out"
        )
    quoted = _quote(spark, settings)(column)  # any header: "education-num" is no difference
    bounds = _load(
        spark, settings, query=f"select min({quoted}) as smallest, max({quoted}) as greatest from {relation.sql}"  # noqa: S608
    )  # fmt: skip
    names = bounds.columns  # in capitals from some databases
    [extremes] = bounds.select(
        *(_bound(F.col(name), read_as).alias(f"bound_{place}") for place, name in enumerate(names)),
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
