"""Rows whose columns have types of their own, as the catalog promises them. Driver, lazy."""

from collections.abc import Mapping, Sequence

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    MapType,
    NumericType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
    VariantType,
)

from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import AS_JSON, MALFORMED, PREFIX, RAW, SOURCE_FILE, is_own
from mlspark.errors import SourceError
from mlspark.sources.source import Source, filtered, named

_NESTED = (ArrayType, MapType, StructType, VariantType)
_NESTED_JSON = {name: option for name, option in AS_JSON.items() if name.startswith("timestamp")}
_PLAIN = (StringType, NumericType, BooleanType, DateType, TimestampType, BinaryType)


def schema(source_schema: StructType) -> StructType:
    """Return the columns of a source in the types that `conformable` casts them to."""
    fields = [StructField(field.name, _type(field.dataType), metadata=field.metadata) for field in source_schema]
    return StructType(fields)


UNREADABLE = "unreadable"
"""Key of a column's metadata: why it is there and cannot be read."""


def unreadable(source_schema: StructType) -> dict[str, str]:
    """Return the columns that cannot be read, and why."""
    return {field.name: field.metadata[UNREADABLE] for field in source_schema if UNREADABLE in field.metadata}


def refuse_unreadable(source_schema: StructType, source: Source, contract: Contract) -> None:
    """Raise SourceError where a contract names columns that cannot be read; those that nobody asks for stop nothing."""
    asked = {column.source_name.lower() for column in contract.columns}
    if refused := [why for name, why in unreadable(source_schema).items() if name.lower() in asked]:
        raise SourceError(f"{source.uri}: contract {contract.name}: {'; '.join(refused)}; nothing was written")


def conformable(
    rows: DataFrame,
    source: Source,
    contract: Contract,
    *,
    file: Column,
    malformed: Column | None = None,
    place: Mapping[str, Column] | None = None,
    instead: Mapping[str, Column] | None = None,
    flaws: Sequence[Column] = (),
) -> DataFrame:
    """Return the rows of a source with the contract's columns only; Spark then reads no others.

    Wall-clock timestamps are taken in the session's time zone. Nested values become JSON text; bytes where the contract says
    another type than binary, and types that Spark does not cast to the contract's, become text. A text that is not UTF-8
    makes its row bad. `RAW` has the SHA-256 and the number of bytes of what is binary in place of it.

    Args:
        rows: all columns of the source.
        source: theirs; its filter is applied before anything else.
        contract: names the columns to keep, and the types that they will be cast to.
        file: where a row comes from.
        malformed: why a row is none, or null; such rows pass every filter.
        place: name -> what `RAW` says besides the contract's columns.
        instead: column of the source -> what to take in its place; the filter sees the column itself.
        flaws: texts that say why a row is bad, or null; such rows pass the filter as any other.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns, or no column of the contract is there.
    """
    types = {field.name: field.dataType for field in rows.schema if not is_own(field.name)}
    present = [column for column in contract.columns if column.source_name in types]
    wanted = {column.name: column.type for column in present}
    if not wanted:
        raise SourceError(
            f"{source.uri}: has none of the columns of contract {contract.name}, but {', '.join(types)}; "
            f"check sources.*.path (scoring.source.path) and the contract"
        )
    instead = instead or {}
    values = {
        column.name: instead[column.source_name]
        if column.source_name in instead
        else _value(column.source_name, types[column.source_name], column.type)
        for column in present
    }
    for name, kind in wanted.items():
        if not _casts(rows, values[name], kind):
            values[name] = values[name].cast("string")
    is_malformed = None if malformed is None else malformed.isNotNull()
    kept = filtered(rows, source.settings, contract, kept=is_malformed, columns=list(types)).select(
        *(value.alias(name) for name, value in values.items()),
        file.alias(SOURCE_FILE),
        (F.lit(None).cast("string") if malformed is None else malformed).alias(MALFORMED),
        *(value.alias(f"{PREFIX}place_{name}") for name, value in (place or {}).items()),
        *(flaw.alias(f"{PREFIX}flaw_{number}") for number, flaw in enumerate(flaws)),
    )
    sources = {column.name: types[column.source_name] for column in present}
    texts = [name for name, kind in sources.items() if _is_text(kind, wanted[name])]
    schema_kept = kept.schema
    raw = {name: F.col(f"{PREFIX}place_{name}") for name in place or {}}
    raw |= {column.source_name: _shown(column.name, schema_kept) for column in present}
    reasons = [F.col(f"{PREFIX}flaw_{number}") for number, _ in enumerate(flaws)]
    reasons += [F.when(~F.is_valid_utf8(F.col(name)), F.lit(f"{name}: not UTF-8")) for name in texts]
    return kept.select(
        *wanted,
        F.coalesce(F.col(MALFORMED), *reasons).alias(MALFORMED),
        F.struct(*(shown.alias(name) for name, shown in raw.items())).alias(RAW),
        SOURCE_FILE,
    )


def _is_text(source_type: DataType, kind: str) -> bool:
    return isinstance(source_type, StringType) or (isinstance(source_type, BinaryType) and kind != "binary")


def _shown(name: str, kept: StructType) -> Column:
    """Return a value as `RAW` shows it: of bytes what tells them apart."""
    value = F.col(name)
    if not isinstance(kept[name].dataType, BinaryType):
        return value
    named_bytes = F.struct(F.sha2(value, 256).alias("sha256"), F.octet_length(value).alias("bytes"))
    return F.when(value.isNotNull(), named_bytes)


def _type(source_type: DataType) -> DataType:
    if isinstance(source_type, TimestampNTZType):
        return TimestampType()
    return source_type if isinstance(source_type, _PLAIN) else StringType()


def _value(name: str, source_type: DataType, kind: str) -> Column:
    if isinstance(source_type, _NESTED):
        return F.to_json(named(name), _NESTED_JSON)
    if isinstance(source_type, BinaryType):
        return named(name) if kind == "binary" else named(name).cast("string")
    return named(name) if isinstance(source_type, _PLAIN) else named(name).cast(_type(source_type))


def _casts(rows: DataFrame, value: Column, kind: str) -> bool:
    """Return whether Spark casts the value to a type of the contract, and back to see what was lost."""
    source_type = rows.select(value).schema[0].dataType
    try:
        rows.select(value.try_cast(kind).cast(source_type))
    except AnalysisException:
        return False
    return True
