"""A contract on Spark: every row typed, with what is wrong with it, as native expressions. Driver, lazy.

The expressions are SQL, which Spark takes as one text: of 40 columns they are thousands, and each would be a call to Java.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
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
from mlspark.sql_literals import sql_double, sql_text

_ABOVE_BIGINT = sql_double(2.0**63)
_INFINITE = sql_double(float("inf"))
_BASE64 = r"\A[A-Za-z0-9+/]*={0,2}\z"
_TYPED_FLOAT = r"(?i)^\s*[+-]?(0x.*|[0-9.]+(e[+-]?[0-9]+)?[df])\s*$"
_DAY, _DAY_AND_TIME = r"^\s*\d{4}-\d{1,2}-\d{1,2}\s*$", r"^\s*\d{4}-\d{1,2}-\d{1,2}([T ]|\s*$)"
_BELOW_MICROSECOND = r"\.\d{6}\d*[1-9]"
_IS_BAD = f"size({REASONS}) > 0"
_REASONS_TYPE = "array<struct<`column`:string,rule:string,value:string>>"


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
    looked = dict(looked or {})
    raw, casts = _with_casts(raw, contract, types)
    cells = {column.name: _cell(column, types.get(column.name), casts.get(column.name)) for column in contract.columns}
    kept = list(looked.values())
    for column in contract.columns:
        if column.media is not None and column.name in types and column.name not in looked:
            looked[column.name] = f"{PREFIX}verdict_{column.name}"
            raw = raw.withColumn(looked[column.name], _verdict(column.media)(F.expr(cells[column.name].typed)))
    failures: list[tuple[str, str]] = []
    for column in contract.columns:
        cell = cells[column.name]
        shown = _shown(cell.source, column, cell.source_type)
        broken = _failures(column, cell)
        failures.extend((failed, _reason(column.name, sql_text(rule), shown)) for rule, failed in broken)
        if column.media is not None and column.name in types:
            verdict = f"`{looked[column.name]}`"
            told = _reason(column.name, f"{verdict}.rule", f"concat_ws(': ', {shown}, {verdict}.what)")
            failures.append((f"{verdict}.rule IS NOT NULL", told))
    malformed = f"array({_reason('', sql_text('malformed'), MALFORMED)})"
    reasons = _when(f"{MALFORMED} IS NOT NULL", f"CAST({malformed} AS {_REASONS_TYPE})", _reasons(failures))
    conformed = raw.selectExpr(
        *(f"{cell.typed} AS `{name}`" for name, cell in cells.items()),
        f"{reasons} AS {REASONS}",
        RAW,
        SOURCE_FILE,
        *(f"`{name}`" for name in kept),
    )
    conformed = _check_rules(conformed, contract)
    if contract.unique_key:
        same_key = Window.partitionBy(*contract.unique_key)
        shared = F.sum(F.when(is_bad(), 0).otherwise(1)).over(same_key) > 1
        columns = map(contract.column, contract.unique_key)
        key = ", ".join(_shown(f"`{column.name}`", column, column.type) for column in columns)
        reason = _only(_reason(",".join(contract.unique_key), sql_text("unique"), f"concat_ws(',', {key})"))
        present = F.expr(" AND ".join(f"`{name}` IS NOT NULL" for name in contract.unique_key))
        found = F.when(shared & present & ~is_bad(), reason).otherwise(F.col(REASONS))
        conformed = conformed.withColumn(REASONS, found)
    return conformed


def raw_text(rows: DataFrame) -> Column:
    """Return `RAW` of rows as text, which it is or becomes."""
    return F.to_json(F.col(RAW), AS_JSON) if isinstance(rows.schema[RAW].dataType, StructType) else F.col(RAW)


def without_raw(conformed: DataFrame) -> DataFrame:
    """Return conformed rows with `RAW` of bad rows alone, as text, to be kept in memory."""
    return conformed.withColumn(RAW, F.when(is_bad(), raw_text(conformed)))


def add_reason(conformed: DataFrame, broken: Column, *, column: str, rule: str) -> DataFrame:
    """Return conformed rows with a reason for those good ones that satisfy `broken`."""
    reason = _only(_reason(column, sql_text(rule), "NULL"))
    return conformed.withColumn(REASONS, F.when(broken & ~is_bad(), reason).otherwise(F.col(REASONS)))


def is_bad() -> Column:
    """Return whether a conformed row breaks its contract."""
    return F.expr(_IS_BAD)


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
    served, columns = contract.conditions, conformed.columns
    failures = []
    for place, rule in enumerate(contract.rules):
        if rule.batch_only:
            _check_free_sql(conformed, contract, rule)
            # As a column: it may end with a comment. Of good rows alone: it may fail where its values are bad.
            holds = f"{PREFIX}rule_{place}"
            conformed = conformed.withColumn(holds, F.when(~is_bad(), F.expr(rule.expression)))
        else:
            holds = served[rule.name].sql()
        failures.append((f"NOT ({holds})", _reason("", sql_text(rule.name), sql_text(rule.expression))))
    reasons = _when(_IS_BAD, REASONS, _reasons(failures))
    return conformed.selectExpr(*(f"{reasons} AS {REASONS}" if name == REASONS else f"`{name}`" for name in columns))


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
    """A value of one column, as SQL."""

    source: str
    """As the source has it, NULL where it has none."""
    source_type: str
    value: str
    """The same, null where it is NaN of a source that has types."""
    typed: str
    """In the contract's type, null where there is none."""
    is_missing: str


def _with_casts(raw: DataFrame, contract: Contract, types: Mapping[str, str]) -> tuple[DataFrame, dict[str, str]]:
    """Return rows with a column for each text that is cast, by its name: Spark casts anew wherever a cast stands."""
    cast = [
        column
        for column in contract.columns
        if not column.is_text and column_types.family(types.get(column.name, "")) == "string"
    ]
    names = {column.name: f"`{PREFIX}cast_{place}`" for place, column in enumerate(cast)}
    values = (f"{_typed(f'`{c.name}`', c, types[c.name])} AS {names[c.name]}" for c in cast)
    return raw.selectExpr("*", *values), names


def _cell(column: ColumnRule, source_type: str | None, cast: str | None = None) -> _Cell:
    """Return a value typed, by the cast that there is of it, if any; `source_type` None: the source has no such column.

    NaN is missing: of a float whatever the contract's type, as text where that is a float.
    """
    source = "NULL" if source_type is None else f"`{column.name}`"
    source_type = source_type or "string"
    family = column_types.family(source_type)
    value = _when(f"NOT isnan({source})", source) if family == "floating" else source
    typed, is_missing = _typed(value, column, source_type) if cast is None else cast, f"{value} IS NULL"
    if family == "string" and column.type in ("float", "double"):
        is_missing, typed = f"({is_missing} OR isnan({typed}))", _when(f"NOT isnan({typed})", typed)
    return _Cell(source, source_type, value, typed, is_missing)


def typed(raw: DataFrame, column: ColumnRule) -> Column:
    """Return a column of `raw` in its contract's type, null where there is none: as `conform` types it."""
    return F.expr(_cell(column, raw.schema[column.name].dataType.simpleString()).typed)


def _typed(value: str, column: ColumnRule, source_type: str) -> str:
    """Return the value in its contract's type, null where there is none or the cast changes it.

    Texts that say more than the type holds have a value here, see `_says_all`. Arrays may come as JSON text.
    """
    family = column_types.family(source_type)
    if family == "string" and column.is_array:
        return f"from_json(CAST({value} AS STRING), '{column.type}')"
    if family == "string" and column.is_binary:
        is_base64 = f"{_like(value, _BASE64)} AND length({value}) % 4 = 0"
        return _when(is_base64, f"unbase64({value})")
    typed = f"try_cast({value} AS {column.type})"
    if column.is_text or family == "string" or column.type == source_type:
        return typed
    if not column_types.is_cast(source_type, column.type):
        return f"CAST(NULL AS {column.type})"
    stays = []
    if family == "floating" and column_types.family(column.type) in ("whole", "decimal"):
        # Greater ones have lost their last digits on the way through a double (or float).
        stays.append(f"abs({value}) < {sql_double(2.0**24 if source_type == 'float' else 2.0**53)}")
    if column.type not in ("float", "array<float>"):
        # 1.5 casts to int, and would be 1.
        stays.append(f"try_cast({typed} AS {source_type}) <=> {value}")
    if column.type == "double" and source_type == "bigint":
        # The greatest bigint becomes the double 2^63, and Spark casts that back to the greatest bigint.
        stays.append(f"coalesce({typed}, 0.0D) < {_ABOVE_BIGINT}")
    if column.type == "array<double>" and source_type == "array<bigint>":
        stays.append(f"NOT exists({typed}, element -> coalesce(element, 0.0D) >= {_ABOVE_BIGINT})")
    return _when(" AND ".join(stays), typed) if stays else typed


def _shown(value: str, column: ColumnRule, source_type: str) -> str:
    """Return a value as reasons tell it: as text, of bytes and of their base64 the SHA-256 and number."""
    if column.is_binary and column_types.family(source_type) in ("string", "binary"):
        return f"concat('sha256:', sha2(CAST({value} AS BINARY), 256), ', ', octet_length({value}), ' bytes')"
    return f"CAST({value} AS STRING)"


def _verdict(rules: Media) -> Callable[[Column], Column]:
    """Return a function of Spark that tells what is wrong with pictures: struct of rule and what, null for good ones."""

    import pandas as pd

    # Spark looks at the types, which must be no texts.
    def problems(pictures: pd.Series) -> pd.DataFrame:
        told = [media.problem(picture, rules) or (None, None) for picture in pictures]
        return pd.DataFrame(told, columns=["rule", "what"], dtype=object)

    return pandas_udf(problems, "rule string, what string")  # type: ignore[call-overload,no-any-return]


def _survives(column: ColumnRule, cell: _Cell) -> str:
    """Return whether a value is still what it was in its contract's type."""
    survives = f"{cell.typed} IS NOT NULL"
    if column.is_array:
        return f"({survives} AND NOT exists({cell.typed}, element -> element IS NULL))"
    if column_types.family(cell.source_type) == "string" and (says_all := _says_all(cell, column.type)):
        return f"({survives} AND {says_all})"
    return f"({survives})"


def _failures(column: ColumnRule, cell: _Cell) -> list[tuple[str, str]]:
    """Return (rule, whether a row breaks it) for each rule of a column, in the order of `check_arrow`."""
    failures = []
    typed, survives = cell.typed, _survives(column, cell)
    if (column.type != cell.source_type and not column.is_text) or column.is_array:
        failures.append(("type", f"NOT ({cell.is_missing}) AND NOT {survives}"))
    if column.type in ("date", "timestamp"):
        # What Spark promises for these types, and all that Python and Parquet's readers know.
        is_date = column.type == "date"
        units = f"unix_date({typed})" if is_date else f"unix_micros({typed})"
        first, last = (bounds.FIRST_DAY, bounds.LAST_DAY) if is_date else (bounds.FIRST_MICROS, bounds.LAST_MICROS)
        failures.append(("range", f"{survives} AND {units} NOT BETWEEN {first} AND {last}"))
    if column.type in ("float", "double"):
        failures.append(("finite", f"abs({typed}) <=> {_INFINITE}"))
    if column.is_array:
        is_not_finite = f"element -> isnan(element) OR abs(element) <=> {_INFINITE}"
        failures.append(("finite", f"exists({typed}, {is_not_finite})"))
    if not column.nullable:
        failures.append(("null", cell.is_missing))
    if (least := column.bound("min")) is not None:
        failures.append(("min", f"{typed} < {_literal(least, column.type)}"))
    if (greatest := column.bound("max")) is not None:
        failures.append(("max", f"{typed} > {_literal(greatest, column.type)}"))
    if column.allowed is not None:
        others = f"{typed} NOT IN ({', '.join(map(sql_text, column.allowed))})"
        failures.append(("allowed", others if column.allowed else f"{typed} IS NOT NULL"))
    if column.pattern is not None:
        failures.append(("pattern", f"NOT {_like(typed, patterns.spark(column.pattern))}"))
    length = f"size({typed})" if column.is_array else f"char_length({typed})"
    if column.min_length is not None:
        failures.append(("min_length", f"{length} < {column.min_length}"))
    if column.max_length is not None:
        failures.append(("max_length", f"{length} > {column.max_length}"))
    return failures


def _literal(bound: bounds.Value, column_type: str) -> str:
    """Return a bound; decimals go as text, which nothing rounds."""
    if isinstance(bound, datetime):
        return f"timestamp_micros({bounds.micros(bound)})"
    if isinstance(bound, date):
        return f"CAST('{bound.isoformat()}' AS DATE)"
    if isinstance(bound, Decimal):
        return f"CAST('{bound:f}' AS {column_type})"
    return sql_double(bound) if isinstance(bound, float) else str(bound)


def _says_all(cell: _Cell, kind: str) -> str | None:
    """Return whether a text that casts says no more and no less than its value; None: it does.

    Spark takes "1f", "2020", "2020-01-01 or so", "10:30" (of today), rounds decimals, and drops digits below a microsecond.
    """
    text = cell.value
    if kind in ("float", "double"):
        return f"NOT {_like(text, _TYPED_FLOAT)}"
    if kind == "date":
        return _like(text, _DAY)
    if kind == "timestamp":
        return f"{_like(text, _DAY_AND_TIME)} AND NOT {_like(text, _BELOW_MICROSECOND)}"
    if kind.startswith("decimal"):
        digits, scale = column_types.decimal_digits(kind)
        return f"{cell.typed} <=> try_cast({text} AS decimal(38,{38 - digits + scale}))"
    return None


def _like(text: str, pattern: str) -> str:
    """Return whether a text has a part that matches a pattern of Java's."""
    return f"({text} RLIKE {sql_text(pattern)})"


def _when(condition: str, value: str, otherwise: str = "NULL") -> str:
    return f"CASE WHEN {condition} THEN {value} ELSE {otherwise} END"


def _reasons(failures: Sequence[tuple[str, str]]) -> str:
    """Return the reasons of those (condition, reason) whose condition a row meets."""
    none = f"CAST(array() AS {_REASONS_TYPE})"
    if not failures:
        return none
    reasons = f"array_compact(array({', '.join(_when(failed, reason) for failed, reason in failures)}))"
    # Most rows are good: they are not made to fill an array that is then emptied.
    has_any = " OR ".join(f"coalesce({failed}, false)" for failed, _ in failures)
    return _when(has_any, f"CAST({reasons} AS {_REASONS_TYPE})", none)


def _only(reason: str) -> Column:
    """Return the reasons of a row that has one."""
    return F.expr(f"CAST(array({reason}) AS {_REASONS_TYPE})")


def _reason(column: str, rule: str, value: str) -> str:
    """Return a reason of a column, which may be none; rule and value are SQL."""
    return f"named_struct('column', {sql_text(column)}, 'rule', {rule}, 'value', {value})"


def reason_name(reason: Any) -> Column:
    return F.when(reason["column"] == "", reason["rule"]).otherwise(F.concat_ws(".", reason["column"], reason["rule"]))
