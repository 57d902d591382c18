"""How a query of a database is put so that no value changes on its way through driver and Spark. Driver, lazy.

Drivers give times of nanoseconds as microseconds, infinite dates as years, times of day as moments of 1970; Spark cuts
decimals of more than 38 digits, or of no declared number. What does not fit becomes text, or makes its row bad.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DateType, DecimalType, StructField, StructType, TimestampNTZType, TimestampType

from mlspark.contracts import column_types
from mlspark.contracts.own_columns import PREFIX
from mlspark.sources.source import named

TIMES = (DateType, TimestampNTZType, TimestampType)
_FLAW = f"{PREFIX}flaw"
_EXACT = f"{PREFIX}exact_"
_TIMES_OF_POSTGRESQL = ("_date", "_time", "_timestamp", "_timestamptz", "_timetz")
_LARGEST, _SMALLEST = "1.7976931348623157e308", "1e-300"
Quote = Callable[[str], str]


@dataclass(frozen=True)
class Relation:
    """What stands after "from", and how Spark is to read it."""

    sql: str
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of Spark's jdbc format."""
    exact: Mapping[str, str] = field(default_factory=dict)
    """Column of the source -> column of this relation with its text, to be taken in its place."""
    twins: Mapping[str, str] = field(default_factory=dict)
    """Column of times -> column of this relation with what the driver says of each as text."""
    has_flaws: bool = False

    def values(self) -> dict[str, Column]:
        """Return column of the source -> what to take in its place."""
        return {name: named(text) for name, text in self.exact.items()}

    def flaws(self, rows: DataFrame) -> list[Column]:
        """Return texts that say why a row is none, null for the others."""
        flaws = [F.col(_FLAW)] if self.has_flaws else []
        return flaws + [_lost(name, rows.schema[name].dataType, named(twin)) for name, twin in self.twins.items()]


def of_postgresql(relation: str, schema: StructType, wanted: Mapping[str, str]) -> Relation:
    """Return a relation of PostgreSQL whose values Spark reads as they are.

    Timestamps without zone are taken as UTC: the driver would take them in the zone of the machine, where one hour of the
    year is not. Infinite dates and times of `wanted` columns are flaws. NaN of numeric is null, as that of floats is
    missing; numbers with more digits than Spark's decimals are doubles, and where another type is wanted
    `Relation.exact` has all digits. Times of day, and arrays of times, are text.

    Args:
        relation: as the user gives it, after "from".
        schema: its columns as Spark reads them.
        wanted: column -> type of the contract, for those that are read.
    """
    columns, flaws, exact = [], [], {}
    for place, column in enumerate(schema):
        name = _quoted(column.name)
        columns.append(f"{_postgresql_value(name, column)} as {name}")
        kind = wanted.get(column.name)
        if kind is None:
            continue
        if isinstance(column.dataType, TIMES) and not _is_time_of_day(column):
            what = _literal(f"{column.name} is ")
            flaws.append(f"when not isfinite({name}) then {what} || {name}::text")
        elif isinstance(column.dataType, DecimalType) and not _is_whole(column) and _is_exact(kind):
            columns.append(f"{_postgresql_text(name, kind)} as {_quoted(f'{_EXACT}{place}')}")
            exact[column.name] = f"{_EXACT}{place}"
    if flaws:
        columns.append(f"case {' '.join(flaws)} end as {_quoted(_FLAW)}")
    sql = f"(select {', '.join(columns)} from {relation}) mlspark_source_utc"  # noqa: S608 (the user's own query)
    return Relation(sql, exact=exact, has_flaws=bool(flaws))


def of_any(relation: str, schema: StructType, wanted: Mapping[str, str], quote: Quote) -> Relation:
    """Return a relation of a database other than PostgreSQL with the text of what Spark does not read whole.

    Args:
        relation: as the user gives it, after "from".
        schema: its columns as Spark reads them.
        wanted: column -> type of the contract, for those that are read.
        quote: makes a name an identifier of the database.
    """
    texts = [f"{_identifier(column.name)} STRING" for column in schema if _is_time_of_day(column)]
    exact, twins, columns = {}, {}, []
    for place, column in enumerate(schema):
        if column.name not in wanted or _is_time_of_day(column):
            continue
        twin = f"{_EXACT}{place}"
        if isinstance(column.dataType, TimestampNTZType | TimestampType):
            twins[column.name] = twin
        elif isinstance(column.dataType, DecimalType) and not _is_whole(column):
            exact[column.name] = twin
        else:
            continue
        columns.append(f"mlspark_rows.{quote(column.name)} as {quote(twin)}")
        texts.append(f"{_identifier(twin)} STRING")
    options = {"customSchema": ", ".join(texts)} if texts else {}
    if not columns:
        return Relation(relation, options)
    whole = f"select mlspark_rows.*, {', '.join(columns)} from (select * from {relation}) mlspark_rows"  # noqa: S608
    return Relation(f"({whole}) mlspark_texts", options, exact, twins)


def _is_time_of_day(column: StructField) -> bool:
    return bool(column.metadata.get("logical_time_type"))


def _is_whole(column: StructField) -> bool:
    """Return whether Spark's decimal has as many digits after the point as the database's."""
    assert isinstance(column.dataType, DecimalType)
    return column.metadata.get("scale") == column.dataType.scale


def _is_exact(kind: str) -> bool:
    return column_types.family(kind) != "floating"


def _postgresql_value(name: str, column: StructField) -> str:
    """Return SQL of a column's value as Spark can take it."""
    kind, stored = column.dataType, str(column.metadata.get("jdbcClientType"))
    if stored in _TIMES_OF_POSTGRESQL:
        return f"to_json({name})::text"
    if stored == "_numeric":
        return f"{name}::float8[]"
    if _is_time_of_day(column):
        return f"{name}::text"
    if isinstance(kind, TIMES):
        value = f"{name} at time zone 'UTC'" if isinstance(kind, TimestampNTZType) else name
        return f"case when isfinite({name}) then {value} end"
    if not isinstance(kind, DecimalType) or stored != "numeric":
        return name
    if _is_whole(column):
        return f"nullif({name}, 'NaN')"
    # PostgreSQL refuses to make a double of a number that is too large for one, or too small.
    return (
        f"case when {name} = 'NaN' then null when {name} > {_LARGEST} then 'Infinity'::float8 "
        f"when {name} < -{_LARGEST} then '-Infinity'::float8 when abs({name}) < {_SMALLEST} then 0.0::float8 "
        f"else {name}::float8 end"
    )


def _postgresql_text(name: str, kind: str) -> str:
    """Return SQL of all digits of a number, for a type that is exact: 5.00 is the whole number 5."""
    text = f"nullif({name}, 'NaN')::text"
    return (
        text
        if kind == "string"
        else f"case when {name} = trunc({name}) then nullif(trunc({name}), 'NaN')::text else {text} end"
    )


def _lost(name: str, kind: DataType, text: Column) -> Column:
    """Return what the driver dropped of a time, or changed, by its own text of it; null where nothing."""
    has_more = text.rlike(r"[.,]\d{6}\d*[1-9]")
    flaw = F.when(has_more, F.concat(F.lit(f"{name}: digits below a microsecond: "), text))
    if isinstance(kind, TimestampNTZType):
        # In the zone of the machine, one hour of the year is not.
        said = F.when(text.rlike(r"^\d{4}-\d\d-\d\d[ T]\d\d:"), text.try_cast("timestamp_ntz"))
        flaw = F.coalesce(flaw, F.when(said != named(name), F.concat(F.lit(f"{name}: read as another time: "), text)))
    return flaw


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _literal(text: str) -> str:
    # No backslash is an escape in E'' without one: doubled, so that neither setting of PostgreSQL matters.
    return "E'" + re.sub(r"[\\']", lambda match: match[0] * 2, text) + "'"
