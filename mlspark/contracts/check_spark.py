"""A contract on Spark: every row typed, with what is wrong with it, as native expressions. Driver, lazy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import StructType

from mlspark.contracts import bounds, column_types, free_sql, headers, patterns, schema_differences
from mlspark.contracts.contract import ColumnRule, Contract, RowRule
from mlspark.contracts.own_columns import AS_JSON, MALFORMED, PREFIX, RAW, REASONS, SOURCE_FILE
from mlspark.contracts.schema_differences import SchemaDifferences
from mlspark.errors import ContractError
from mlspark.pictures import media
from mlspark.pictures.media import Media

_ABOVE_BIGINT = 2.0**63
_REASONS_TYPE = "array<struct<column:string,rule:string,value:string>>"


def conform(raw: DataFrame, contract: Contract, *, looked: Mapping[str, str] | None = None) -> DataFrame:
    """Return every row typed, with what is wrong with it.

    Lazy; native expressions only, so it runs in the same job as what follows; pictures alone are looked at in Python. A
    unique key costs one shuffle. NaN is a missing value, as pandas writes one into a Parquet file; in an array it is an
    element that is not finite. No reason holds bytes: they are told by their SHA-256 and number.

    Args:
        raw: the contract's columns, as strings or in any type that casts, and `MALFORMED` (why the row could not be
            parsed, or null), `RAW` (the row), `SOURCE_FILE`. A column that is absent counts as null.
        contract: theirs.
        looked: column of pictures -> column of `raw`, a struct that holds what `pictures.media.problem` says of it (rule,
            what; null for a good one) and whatever else was made of the picture when it was decoded; it is kept. The other
            columns of pictures are looked at here.

    Returns:
        The contract's columns in its types, then `REASONS` (array of column, rule, value; empty for a good row),
        `RAW`, `SOURCE_FILE`, the columns of `looked`.

    Raises:
        ContractError: the expression of a row rule cannot be analysed.
    """
    types = {field.name: field.dataType.simpleString() for field in raw.schema}
    values = {name: F.col(name) if name in types else F.lit(None) for name in contract.names}
    raw, casts = _with_casts(raw, contract, types)
    cells = {
        column.name: _cell(values[column.name], column, types.get(column.name, "string"), casts.get(column.name))
        for column in contract.columns
    }
    looked = looked or {}
    failures: list[tuple[Column, Column]] = []
    for column in contract.columns:
        source_type = types.get(column.name, "string")
        shown = _shown(values[column.name], column, source_type)
        broken = _failures(column, cells[column.name], source_type)
        failures.extend((failed, _reason(column.name, rule, shown)) for rule, failed in broken)
        if column.media is not None and column.name in types:
            is_looked = column.name in looked
            verdict = F.col(looked[column.name]) if is_looked else _verdict(column.media)(cells[column.name].typed)
            told = F.concat_ws(": ", shown, verdict["what"])
            failures.append((verdict["rule"].isNotNull(), _reason(column.name, verdict["rule"], told)))
    malformed = F.array(_reason("", "malformed", F.col(MALFORMED)))
    reasons = F.when(F.col(MALFORMED).isNotNull(), malformed).otherwise(_reasons(failures))
    conformed = raw.select(
        *(cell.typed.alias(name) for name, cell in cells.items()),
        reasons.cast(_REASONS_TYPE).alias(REASONS),
        RAW,
        SOURCE_FILE,
        *looked.values(),
    )
    conformed = _check_rules(conformed, contract)
    if contract.unique_key:
        same_key = Window.partitionBy(*contract.unique_key)
        shared = F.sum(F.when(is_bad(), 0).otherwise(1)).over(same_key) > 1
        named = ",".join(contract.unique_key)
        columns = map(contract.column, contract.unique_key)
        key = F.concat_ws(",", *(_shown(F.col(column.name), column, column.type) for column in columns))
        present = ~_any_null(contract.unique_key)
        reason = F.array(_reason(named, "unique", key)).cast(_REASONS_TYPE)
        reasons = F.when(shared & present & ~is_bad(), reason).otherwise(F.col(REASONS))
        conformed = conformed.withColumn(REASONS, reasons)
    return conformed


def raw_text(rows: DataFrame) -> Column:
    """Return `RAW` of rows as text, which it is or becomes."""
    return F.to_json(F.col(RAW), AS_JSON) if isinstance(rows.schema[RAW].dataType, StructType) else F.col(RAW)


def without_raw(conformed: DataFrame) -> DataFrame:
    """Return conformed rows with `RAW` of bad rows alone, as text, to be kept in memory."""
    return conformed.withColumn(RAW, F.when(is_bad(), raw_text(conformed)))


def add_reason(conformed: DataFrame, broken: Column, *, column: str, rule: str) -> DataFrame:
    """Return conformed rows with a reason for those good ones that satisfy `broken`."""
    reason = F.array(_reason(column, rule, F.lit(None).cast("string"))).cast(_REASONS_TYPE)
    return conformed.withColumn(REASONS, F.when(broken & ~is_bad(), reason).otherwise(F.col(REASONS)))


def is_bad() -> Column:
    """Return whether a conformed row breaks its contract."""
    return F.size(REASONS) > 0


def differences(
    schema: StructType, contract: Contract, *, has_types: bool = True, ignored: Sequence[str] = ()
) -> SchemaDifferences:
    """Return how the columns of a source differ from the contract's. Looks at no row.

    Args:
        schema: of the source, before conforming.
        contract: what is expected.
        has_types: False for text, where every column is a string until it is conformed.
        ignored: columns that may be there: the label, in rows to be scored.
    """
    wanted = contract.names_by_header
    offered = [field.name for field in schema if "offered" in field.metadata and field.name not in wanted]
    return schema_differences.differences(
        {field.name: field.dataType.simpleString() for field in schema},
        contract,
        # Files of one source can differ: a column that only some have.
        partly_absent={
            field.name: field.metadata["absent_from"] for field in schema if "absent_from" in field.metadata
        },
        has_types=has_types,
        ignored=[*ignored, *offered],
    )


def _check_rules(conformed: DataFrame, contract: Contract) -> DataFrame:
    """Add the reasons of row rules; rows with other reasons keep those alone."""
    if not contract.rules:
        return conformed
    served = contract.conditions
    sql = {rule.name: rule.expression if rule.batch_only else served[rule.name].sql() for rule in contract.rules}
    for rule in contract.rules:
        if rule.batch_only:
            _check_free_sql(conformed, contract, rule)
    failures = [(~F.expr(sql[rule.name]), _reason("", rule.name, F.lit(rule.expression))) for rule in contract.rules]
    reasons = F.when(is_bad(), F.col(REASONS)).otherwise(_reasons(failures).cast(_REASONS_TYPE))
    return conformed.withColumn(REASONS, reasons)


def _check_free_sql(conformed: DataFrame, contract: Contract, rule: RowRule) -> None:
    """Refuse SQL that is no condition over a row's columns, or that anything else decides; raises ContractError."""
    try:
        free_sql.check(conformed.sparkSession, rule.expression, conformed.select(*contract.names).schema)
    except ValueError as error:
        answer = headers.in_expression(rule.expression, contract.names_by_header, is_refused=True)
        why = answer or f"{rule.expression!r} cannot be used: {error}"
        raise ContractError(f"contract {contract.name}: rule {rule.name}: {why}") from None


@dataclass(frozen=True)
class _Cell:
    """A value of one column."""

    value: Column
    """As it came, null where it is NaN of a source that has types."""
    typed: Column
    """In the contract's type, null where there is none."""
    is_missing: Column


def _with_casts(raw: DataFrame, contract: Contract, types: Mapping[str, str]) -> tuple[DataFrame, dict[str, Column]]:
    """Return rows with a column for each text that is cast, by its name: Spark casts anew wherever a cast stands."""
    cast = [
        column
        for column in contract.columns
        if not column.is_text and column_types.family(types.get(column.name, "")) == "string"
    ]
    names = {column.name: f"{PREFIX}cast_{place}" for place, column in enumerate(cast)}
    values = {names[column.name]: _typed(F.col(column.name), column, types[column.name]) for column in cast}
    return raw.withColumns(values), {name: F.col(kept) for name, kept in names.items()}


def _cell(value: Column, column: ColumnRule, source_type: str, cast: Column | None = None) -> _Cell:
    """Return a value typed, by the cast that there is of it, if any.

    NaN is missing: of a float whatever the contract's type, as text where that is a float.
    """
    if column_types.family(source_type) == "floating":
        value = F.when(~F.isnan(value), value)
    typed, is_missing = _typed(value, column, source_type) if cast is None else cast, value.isNull()
    if column_types.family(source_type) == "string" and column.type in ("float", "double"):
        is_missing, typed = is_missing | F.isnan(typed), F.when(~F.isnan(typed), typed)
    return _Cell(value, typed, is_missing)


def typed(raw: DataFrame, column: ColumnRule) -> Column:
    """Return a column of `raw` in its contract's type, null where there is none: as `conform` types it."""
    return _cell(F.col(column.name), column, raw.schema[column.name].dataType.simpleString()).typed


def _typed(value: Column, column: ColumnRule, source_type: str) -> Column:
    """Return the value in its contract's type, null where there is none or the cast changes it.

    Texts that say more than the type holds have a value here, see `_says_all`. Arrays may come as JSON text.
    """
    if column_types.family(source_type) == "string" and column.is_array:
        return F.from_json(value.cast("string"), column.type)
    if column_types.family(source_type) == "string" and column.is_binary:
        is_base64 = value.rlike(r"\A[A-Za-z0-9+/]*={0,2}\z") & (F.length(value) % 4 == 0)
        return F.when(is_base64, F.unbase64(value))
    if column.is_text or column_types.family(source_type) == "string" or column.type == source_type:
        return value.try_cast(column.type)
    if not column_types.is_cast(source_type, column.type):
        return F.lit(None).cast(column.type)
    typed, stays = value.try_cast(column.type), F.lit(True)
    if column_types.family(source_type) == "floating" and column_types.family(column.type) in ("whole", "decimal"):
        # Greater ones have lost their last digits on the way through a double (or float).
        stays = F.abs(value) < F.lit(2.0**24 if source_type == "float" else 2.0**53)
    if column.type not in ("float", "array<float>"):
        # 1.5 casts to int, and would be 1.
        stays = stays & typed.try_cast(source_type).eqNullSafe(value)
    if column.type == "double" and source_type == "bigint":
        # The greatest bigint becomes the double 2^63, and Spark casts that back to the greatest bigint.
        stays = stays & (F.coalesce(typed, F.lit(0.0)) < _ABOVE_BIGINT)
    if column.type == "array<double>" and source_type == "array<bigint>":
        stays = stays & ~F.exists(typed, lambda element: F.coalesce(element, F.lit(0.0)) >= _ABOVE_BIGINT)
    return F.when(stays, typed)


def _shown(value: Column, column: ColumnRule, source_type: str) -> Column:
    """Return a value as reasons tell it: as text, of bytes and of their base64 the SHA-256 and number."""
    if column.is_binary and column_types.family(source_type) in ("string", "binary"):
        num_bytes = F.octet_length(value).cast("string")
        return F.concat(F.lit("sha256:"), F.sha2(value.cast("binary"), 256), F.lit(", "), num_bytes, F.lit(" bytes"))
    return value.cast("string")


def _verdict(rules: Media) -> Callable[[Column], Column]:
    """Return a function of Spark that tells what is wrong with pictures: struct of rule and what, null for good ones."""

    import pandas as pd

    # Spark looks at the types, which must be no texts.
    def problems(pictures: pd.Series) -> pd.DataFrame:
        told = [media.problem(picture, rules) or (None, None) for picture in pictures]
        return pd.DataFrame(told, columns=["rule", "what"], dtype=object)

    return pandas_udf(problems, "rule string, what string")  # type: ignore[call-overload,no-any-return]


def _survives(value: Column, typed: Column, column: ColumnRule, source_type: str) -> Column:
    """Return whether a value is still what it was in its contract's type."""
    survives = typed.isNotNull()
    if column.is_array:
        return survives & ~F.exists(typed, lambda element: element.isNull())
    if column_types.family(source_type) == "string":
        return survives & _says_all(value, typed, column.type)
    return survives


def _failures(column: ColumnRule, cell: _Cell, source_type: str) -> list[tuple[str, Column]]:
    """Return (rule, whether a row breaks it) for each rule of a column, in the order of `check_arrow`."""
    failures = []
    value, typed = cell.value, cell.typed
    survives = _survives(value, typed, column, source_type)
    if (column.type != source_type and not column.is_text) or column.is_array:
        failures.append(("type", ~cell.is_missing & ~survives))
    if column.type in ("date", "timestamp"):
        # What Spark promises for these types, and all that Python and Parquet's readers know.
        is_date = column.type == "date"
        units = F.unix_date(typed) if is_date else F.unix_micros(typed)
        first, last = (bounds.FIRST_DAY, bounds.LAST_DAY) if is_date else (bounds.FIRST_MICROS, bounds.LAST_MICROS)
        failures.append(("range", survives & ~units.between(first, last)))
    if column.type in ("float", "double"):
        failures.append(("finite", F.abs(typed).eqNullSafe(float("inf"))))
    if column.is_array:
        failures.append(("finite", F.exists(typed, _is_not_finite)))
    if not column.nullable:
        failures.append(("null", cell.is_missing))
    if (least := column.bound("min")) is not None:
        failures.append(("min", typed < _literal(least, column.type)))
    if (greatest := column.bound("max")) is not None:
        failures.append(("max", typed > _literal(greatest, column.type)))
    if column.allowed is not None:
        failures.append(("allowed", ~typed.isin(*column.allowed)))
    if column.pattern is not None:
        failures.append(("pattern", ~typed.rlike(patterns.spark(column.pattern))))
    length = F.size(typed) if column.is_array else F.char_length(typed)
    if column.min_length is not None:
        failures.append(("min_length", length < column.min_length))
    if column.max_length is not None:
        failures.append(("max_length", length > column.max_length))
    return failures


def _literal(bound: bounds.Value, column_type: str) -> Column:
    """Return a bound; dates and decimals go as text, which no driver of Python rounds or moves."""
    if isinstance(bound, datetime):
        return F.timestamp_micros(F.lit(bounds.micros(bound)))
    if isinstance(bound, date):
        return F.lit(bound.isoformat()).cast("date")
    return F.lit(f"{bound:f}").cast(column_type) if isinstance(bound, Decimal) else F.lit(bound)


def _is_not_finite(number: Column) -> Column:
    return F.isnan(number) | F.abs(number).eqNullSafe(float("inf"))


def _says_all(text: Column, typed: Column, kind: str) -> Column:
    """Return whether a text that casts says no more and no less than its value.

    Spark takes "1f", "2020", "2020-01-01 or so", "10:30" (of today), rounds decimals, and drops digits below a microsecond.
    """
    if kind in ("float", "double"):
        return ~text.rlike(r"(?i)^\s*[+-]?(0x.*|[0-9.]+(e[+-]?[0-9]+)?[df])\s*$")
    if kind == "date":
        return text.rlike(r"^\s*\d{4}-\d{1,2}-\d{1,2}\s*$")
    if kind == "timestamp":
        is_whole = text.rlike(r"^\s*\d{4}-\d{1,2}-\d{1,2}([T ]|\s*$)")
        return is_whole & ~text.rlike(r"\.\d{6}\d*[1-9]")
    if kind.startswith("decimal"):
        digits, scale = (int(number) for number in kind[len("decimal(") : -1].split(","))
        return typed.eqNullSafe(text.try_cast(f"decimal(38,{38 - digits + scale})"))
    return F.lit(True)


def _reasons(failures: Sequence[tuple[Column, Column]]) -> Column:
    """Return the reasons of those failures that a row has."""
    none = F.array().cast(_REASONS_TYPE)
    if not failures:
        return none
    reasons = F.array_compact(F.array(*(F.when(failed, reason) for failed, reason in failures))).cast(_REASONS_TYPE)
    # Most rows are good: they are not made to fill an array that is then emptied.
    return F.when(reduce(or_, (F.coalesce(failed, F.lit(False)) for failed, _ in failures)), reasons).otherwise(none)


def _any_null(names: Sequence[str]) -> Column:
    return reduce(or_, (F.col(name).isNull() for name in names), F.lit(False))


def _reason(column: str, rule: str | Column, value: Column) -> Column:
    named = F.lit(rule) if isinstance(rule, str) else rule
    return F.struct(F.lit(column).alias("column"), named.alias("rule"), value.alias("value"))


def reason_name(reason: Any) -> Column:
    return F.when(reason["column"] == "", reason["rule"]).otherwise(F.concat_ws(".", reason["column"], reason["rule"]))
