"""A contract on Spark: every row typed, with what is wrong with it, as native expressions. Driver, lazy."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import ContractError

_REASONS_TYPE = "array<struct<column:string,rule:string,value:string>>"
_OWN = ("_malformed", "_raw", "_source_file")


def conform(raw: DataFrame, contract: Contract) -> DataFrame:
    """Return every row typed, with what is wrong with it.

    Lazy; native expressions only, so it runs in the same job as what follows. A unique key costs one shuffle.

    Args:
        raw: the contract's columns, as strings or in any type that casts, and `_malformed` (why the row could not be
            parsed, or null), `_raw` (the row as text), `_source_file`. A column that is absent counts as null.

    Returns:
        The contract's columns in its types, then `_reasons` (array of column, rule, value; empty for a good row),
        `_raw`, `_source_file`.

    Raises:
        ContractError: the expression of a row rule cannot be analysed.
    """
    given = {field.name: field.dataType.simpleString() for field in raw.schema}
    values = {name: F.col(name) if name in given else F.lit(None) for name in (c.name for c in contract.columns)}
    typed = {column.name: _typed(values[column.name], column) for column in contract.columns}
    failures = [
        (failed, _reason(column.name, rule, values[column.name].cast("string")))
        for column in contract.columns
        for rule, failed in _failures(column, values[column.name], typed[column.name], given.get(column.name, "string"))
    ]
    malformed = F.array(_reason("", "malformed", F.col("_malformed")))
    reasons = F.when(F.col("_malformed").isNotNull(), malformed).otherwise(_reasons(failures))
    conformed = raw.select(
        *(value.alias(name) for name, value in typed.items()), reasons.cast(_REASONS_TYPE).alias("_reasons"), *_OWN[1:]
    )
    conformed = _check_rules(conformed, contract)
    if contract.unique_key:
        same_key = Window.partitionBy(*contract.unique_key)
        shared = F.sum(F.when(is_bad(), 0).otherwise(1)).over(same_key) > 1
        named = ",".join(contract.unique_key)
        key = F.concat_ws(",", *(F.col(name).cast("string") for name in contract.unique_key))
        present = ~_any_null(contract.unique_key)
        reason = F.array(_reason(named, "unique", key)).cast(_REASONS_TYPE)
        found = F.when(shared & present & ~is_bad(), reason).otherwise(F.col("_reasons"))
        conformed = conformed.withColumn("_reasons", found)
    return conformed


def without_raw(conformed: DataFrame) -> DataFrame:
    """Return conformed rows with `_raw` of bad rows alone, to be kept in memory."""
    return conformed.withColumn("_raw", F.when(is_bad(), F.col("_raw")))


def add_reason(conformed: DataFrame, broken: Column, *, column: str, rule: str) -> DataFrame:
    """Return conformed rows with a reason for those good ones that satisfy `broken`."""
    reason = F.array(_reason(column, rule, F.lit(None).cast("string"))).cast(_REASONS_TYPE)
    return conformed.withColumn("_reasons", F.when(broken & ~is_bad(), reason).otherwise(F.col("_reasons")))


def is_bad() -> Column:
    """Return whether a conformed row breaks its contract."""
    return F.size("_reasons") > 0


@dataclass(frozen=True)
class Drift:
    """How a source's columns differ from the contract's."""

    extra: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    """ "age: bigint, expected int"."""
    reordered: bool = False

    def to_json(self) -> dict[str, Any]:
        found = {"extra": list(self.extra), "missing": list(self.missing), "retyped": list(self.retyped)}
        return {name: names for name, names in found.items() if names} | ({"reordered": True} if self.reordered else {})


def drift(schema: StructType, contract: Contract, *, has_types: bool = True) -> Drift:
    """Return how named columns differ from the contract's, `_malformed` and the like aside. Looks at no row.

    Args:
        schema: of the source, before conforming.
        contract: what is expected.
        has_types: False for text, where every column is a string until it is conformed.

    Raises:
        ContractError: a difference that the contract's drift policy refuses; names each.
    """
    given = {field.name: field.dataType.simpleString() for field in schema if field.name not in _OWN}
    # Files of one source can differ: a column that only some have.
    partly = {field.name: field.metadata["absent_from"] for field in schema if "absent_from" in field.metadata}
    wanted = {column.name: column.type for column in contract.columns}
    found = Drift(
        extra=tuple(name for name in given if name not in wanted),
        missing=(
            *(name for name in wanted if name not in given),
            *(f"{name}: not in {file}" for name, file in partly.items() if name in wanted),
        ),
        retyped=tuple(
            f"{name}: {given[name]}, expected {kind}"
            for name, kind in wanted.items()
            if has_types and name in given and given[name] != kind
        ),
        reordered=[name for name in given if name in wanted] != [name for name in wanted if name in given],
    )
    policy = contract.drift
    refused = [
        f"{what} columns ({', '.join(names)})"
        for what, names, is_refused in (
            ("extra", found.extra, policy.extra == "refuse"),
            ("missing", found.missing, policy.missing == "refuse"),
            ("re-typed", found.retyped, policy.retyped == "refuse"),
            ("re-ordered", tuple(given) if found.reordered else (), policy.reordered == "refuse"),
        )
        if names and is_refused
    ]
    if refused:
        raise ContractError(
            f"contract {contract.name}: the source has {'; '.join(refused)}; nothing was written. "
            f"Mend the source, or the contract's columns or drift policy"
        )
    return found


@dataclass(frozen=True)
class Account:
    """Where the rows went: read = good + quarantined, in all and for each source."""

    reasons: Mapping[str, int]
    """Reason ("age.min", "malformed") -> bad rows with it, the commonest first; a row may have several."""
    sources: Mapping[str, Mapping[str, int]]
    """Source -> {"rows_read", "rows_good", "rows_quarantined", "missing_COLUMN" of good rows, and each extra count}."""
    newest: Mapping[str, float] = field(default_factory=dict)
    """Source -> greatest value of the freshness column in good rows, in seconds since 1970."""

    @property
    def totals(self) -> dict[str, int]:
        """Return {"rows_read", "rows_good", "rows_quarantined"} over all sources."""
        names = ("rows_read", "rows_good", "rows_quarantined")
        return {name: sum(source[name] for source in self.sources.values()) for name in names}


def account(
    conformed: DataFrame,
    contract: Contract,
    *,
    sources: Sequence[str],
    good_rows_with: Mapping[str, Column] | None = None,
) -> Account:
    """Return the account of conformed rows. One Spark job.

    Args:
        conformed: the result of `conform` with a column `source`.
        contract: theirs.
        sources: all values of `source`; one without rows is counted as 0.
        good_rows_with: name -> condition: also count the good rows that satisfy it.
    """
    counted = dict(good_rows_with or {})
    counted |= {f"missing_{c.name}": F.col(c.name).isNull() for c in contract.columns if c.nullable}
    newest = (
        F.max(F.col(contract.freshness.column).cast("timestamp").cast("double")) if contract.freshness else F.lit(None)
    )
    names = F.transform("_reasons", _reason_name).alias("reasons")
    groups = conformed.groupBy("source", names).agg(
        F.count("*").alias("rows"),
        newest.alias("newest"),
        *(F.count_if(condition).alias(name) for name, condition in counted.items()),
    )
    counts = {name: dict.fromkeys(("rows_read", "rows_good", "rows_quarantined", *counted), 0) for name in sources}
    reasons: dict[str, int] = {}
    found_newest: dict[str, float] = {}
    for group in groups.collect():
        source = counts[group["source"]]
        source["rows_read"] += group["rows"]
        source["rows_quarantined" if group["reasons"] else "rows_good"] += group["rows"]
        if not group["reasons"]:
            if group["newest"] is not None:
                found_newest[group["source"]] = group["newest"]
            for name in counted:
                source[name] += group[name]
        for reason in group["reasons"]:
            reasons[reason] = reasons.get(reason, 0) + group["rows"]
    by_count = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return Account(by_count, counts, found_newest)


def check_account(account: Account, contract: Contract) -> None:
    """Refuse data that does not meet its contract as a whole, before anything is written.

    Raises:
        ContractError: names every one of its `problems`.
    """
    found = problems(account, contract)
    if found:
        raise ContractError(f"contract {contract.name}: {'; '.join(found)}; nothing was written")


def problems(account: Account, contract: Contract) -> list[str]:
    """Return why data does not meet its contract as a whole.

    Too many bad rows, too few good ones, a column without values, no recent row.
    """
    found = []
    bad, read = account.totals["rows_quarantined"], account.totals["rows_read"]
    if bad > contract.max_quarantined_share * read:
        worst = ", ".join(f"{reason} {count:,}" for reason, count in list(account.reasons.items())[:5])
        found.append(
            f"{bad:,} of {read:,} rows are bad ({worst}), more than max_quarantined_share="
            f"{contract.max_quarantined_share}: check the source and its settings, or raise the share in the contract"
        )
    for name, counts in account.sources.items():
        rows = counts["rows_good"]
        if rows < contract.min_rows:
            found.append(
                f"{name}: {rows:,} good rows of {counts['rows_read']:,} read, fewer than min_rows={contract.min_rows:,}"
            )
            continue
        for column in contract.columns:
            missing = counts.get(f"missing_{column.name}", 0)
            limit = column.max_missing_share
            if rows and (missing == rows if limit is None else missing > limit * rows):
                what = "no value at all" if limit is None else f"more missing than max_missing_share={limit}"
                found.append(f"{name}: {column.name}: {missing:,} of {rows:,} values are missing: {what}")
        newest = account.newest.get(name)
        if contract.freshness and newest is not None:  # a column without any value is named above
            age_hours = (time.time() - newest) / 3600
            if age_hours > contract.freshness.max_age_hours:
                found.append(
                    f"{name}: newest {contract.freshness.column} is {age_hours:,.1f} hours old, "
                    f"more than freshness.max_age_hours={contract.freshness.max_age_hours:g}"
                )
    return found


def _check_rules(conformed: DataFrame, contract: Contract) -> DataFrame:
    """Add the reasons of row rules; rows with other reasons keep those alone."""
    if not contract.rules:
        return conformed
    failures = [(~F.expr(rule.expression), _reason("", rule.name, F.lit(rule.expression))) for rule in contract.rules]
    found = F.when(is_bad(), F.col("_reasons")).otherwise(_reasons(failures).cast(_REASONS_TYPE))
    try:
        return conformed.withColumn("_reasons", found)
    except AnalysisException as error:
        listed = "; ".join(f"{rule.name}: {rule.expression}" for rule in contract.rules)
        message = (error.getMessage() or "").split("\n", 1)[0]
        raise ContractError(f"contract {contract.name}: a row rule cannot be used ({listed}): {message}") from None


def _typed(value: Column, column: ColumnRule) -> Column:
    """Return the value in its contract's type, null where it is none. Arrays come as JSON text."""
    return F.from_json(value.cast("string"), column.type) if column.is_array else value.try_cast(column.type)


def _failures(column: ColumnRule, given: Column, typed: Column, given_type: str) -> list[tuple[str, Column]]:
    """Return (rule, whether a row breaks it) for each rule of a column."""
    failures = []
    survives = typed.isNotNull()
    if column.is_array:
        survives = survives & ~F.exists(typed, lambda element: element.isNull())
    if column.type != given_type and not column.is_text:
        if given_type == "string":
            survives = survives & _says_all(given, typed, column.type)
        elif column.type != "float":
            # 1.5 casts to int, and would be 1.
            survives = survives & typed.try_cast(given_type).eqNullSafe(given)
        failures.append(("type", given.isNotNull() & ~survives))
    if column.type in ("date", "timestamp"):
        # What Spark promises for these types, and all that Python and Parquet's readers know.
        first, last = (F.lit(text).cast(column.type) for text in ("0001-01-01", "9999-12-31 23:59:59.999999"))
        failures.append(("range", survives & ~typed.between(first, last)))
    if column.type in ("float", "double"):
        failures.append(("finite", _is_not_finite(typed)))
    if column.is_array:
        failures.append(("finite", F.exists(typed, _is_not_finite)))
    if not column.nullable:
        failures.append(("null", given.isNull()))
    bound_type = column.type if column.type in ("date", "timestamp") else "double"
    if column.min is not None:
        failures.append(("min", typed < F.lit(column.min).cast(bound_type)))
    if column.max is not None:
        failures.append(("max", typed > F.lit(column.max).cast(bound_type)))
    if column.allowed is not None:
        failures.append(("allowed", ~typed.isin(*column.allowed)))
    if column.pattern is not None:
        failures.append(("pattern", ~typed.rlike(rf"\A(?:{column.pattern})\z")))
    length = F.size(typed) if column.is_array else F.char_length(typed)
    if column.min_length is not None:
        failures.append(("min_length", length < column.min_length))
    if column.max_length is not None:
        failures.append(("max_length", length > column.max_length))
    return failures


def _is_not_finite(number: Column) -> Column:
    return F.isnan(number) | F.abs(number).eqNullSafe(float("inf"))


def _says_all(text: Column, typed: Column, kind: str) -> Column:
    """Return whether a text that casts says no more and no less than its value.

    Spark takes "1f", "2020", "2020-01-01 or so" and "10:30" (of today), and rounds decimals.
    """
    if kind in ("float", "double"):
        return ~text.rlike(r"(?i)^\s*[+-]?(0x.*|[0-9.]+(e[+-]?[0-9]+)?[df])\s*$")
    if kind == "date":
        return text.rlike(r"^\s*\d{4}-\d{1,2}-\d{1,2}\s*$")
    if kind == "timestamp":
        return text.rlike(r"^\s*\d{4}-\d{1,2}-\d{1,2}([T ]|\s*$)")
    if kind.startswith("decimal"):
        digits, scale = (int(number) for number in kind[len("decimal(") : -1].split(","))
        return typed.eqNullSafe(text.try_cast(f"decimal(38,{38 - digits + scale})"))
    return F.lit(True)


def _reasons(failures: Sequence[tuple[Column, Column]]) -> Column:
    """Return the reasons of those failures that a row has."""
    none = F.array().cast(_REASONS_TYPE)
    if not failures:
        return none
    found = F.array_compact(F.array(*(F.when(failed, reason) for failed, reason in failures))).cast(_REASONS_TYPE)
    # Most rows are good: they are not made to fill an array that is then emptied.
    return F.when(reduce(or_, (F.coalesce(failed, F.lit(False)) for failed, _ in failures)), found).otherwise(none)


def _any_null(names: Sequence[str]) -> Column:
    found = F.lit(False)
    for name in names:
        found = found | F.col(name).isNull()
    return found


def _reason(column: str, rule: str, value: Column) -> Column:
    return F.struct(F.lit(column).alias("column"), F.lit(rule).alias("rule"), value.alias("value"))


def _reason_name(reason: Any) -> Column:
    return F.when(reason["column"] == "", reason["rule"]).otherwise(F.concat_ws(".", reason["column"], reason["rule"]))
