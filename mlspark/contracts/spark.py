"""A contract on Spark: every row typed, with what is wrong with it, as native expressions. Driver, lazy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.contracts.contract import ColumnRule, Contract

_REASONS_TYPE = "array<struct<column:string,rule:string,value:string>>"


def conform(raw: DataFrame, contract: Contract) -> DataFrame:
    """Return every row typed, with what is wrong with it.

    Lazy; native expressions only, so it runs in the same job as what follows.

    Args:
        raw: the contract's columns as strings, and `_malformed` (why the row could not be parsed, or null),
            `_raw` (the row as it was read), `_source_file`.

    Returns:
        The contract's columns in its types, then `_reasons` (array of column, rule, value; empty for a good row),
        `_raw` (null for a good row), `_source_file`.
    """
    typed = {column.name: F.col(column.name).try_cast(column.type) for column in contract.columns}
    broken = [
        F.when(failed, _reason(column.name, rule, F.col(column.name)))
        for column in contract.columns
        for rule, failed in _failures(column, typed[column.name])
    ]
    malformed = F.array(_reason("", "malformed", F.col("_malformed")))
    reasons = F.when(F.col("_malformed").isNotNull(), malformed).otherwise(F.array_compact(F.array(*broken)))
    return raw.select(
        *(value.alias(name) for name, value in typed.items()),
        reasons.cast(_REASONS_TYPE).alias("_reasons"),
        F.col("_raw"),
        F.col("_source_file"),
    ).withColumn("_raw", F.when(is_bad(), F.col("_raw")))


def is_bad() -> Column:
    """Return whether a conformed row breaks its contract."""
    return F.size("_reasons") > 0


@dataclass(frozen=True)
class Account:
    """Where the rows went: read = good + quarantined, in all and for each source."""

    reasons: Mapping[str, int]
    """Reason ("age.min", "malformed") -> bad rows with it, the commonest first; a row may have several."""
    sources: Mapping[str, Mapping[str, int]]
    """Source -> {"rows_read", "rows_good", "rows_quarantined", and each extra count}."""

    @property
    def totals(self) -> dict[str, int]:
        """Return {"rows_read", "rows_good", "rows_quarantined"} over all sources."""
        names = ("rows_read", "rows_good", "rows_quarantined")
        return {name: sum(source[name] for source in self.sources.values()) for name in names}


def account(conformed: DataFrame, *, sources: Sequence[str], good_rows_with: Mapping[str, Column]) -> Account:
    """Return the account of conformed rows. One Spark job.

    Args:
        conformed: the result of `conform` with a column `source`.
        sources: all values of `source`; one without rows is counted as 0.
        good_rows_with: name -> condition: also count the good rows that satisfy it.
    """
    names = F.transform("_reasons", _reason_name).alias("reasons")
    groups = conformed.groupBy("source", names).agg(
        F.count("*").alias("rows"), *(F.count_if(condition).alias(name) for name, condition in good_rows_with.items())
    )
    counts = {
        name: dict.fromkeys(("rows_read", "rows_good", "rows_quarantined", *good_rows_with), 0) for name in sources
    }
    reasons: dict[str, int] = {}
    for group in groups.collect():
        source = counts[group["source"]]
        source["rows_read"] += group["rows"]
        source["rows_quarantined" if group["reasons"] else "rows_good"] += group["rows"]
        if not group["reasons"]:
            for name in good_rows_with:
                source[name] += group[name]
        for reason in group["reasons"]:
            reasons[reason] = reasons.get(reason, 0) + group["rows"]
    return Account(dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))), counts)


def _reason_name(reason: Any) -> Column:
    return F.when(reason["column"] == "", reason["rule"]).otherwise(F.concat_ws(".", reason["column"], reason["rule"]))


def _failures(column: ColumnRule, typed: Column) -> list[tuple[str, Column]]:
    """Return (rule, whether a row breaks it) for each rule of a column."""
    given = F.col(column.name)
    failures = []
    if column.type != "string":
        failures.append(("type", given.isNotNull() & typed.isNull()))
    if column.type in ("float", "double"):
        failures.append(("finite", F.isnan(typed) | F.abs(typed).eqNullSafe(float("inf"))))
    if not column.nullable:
        failures.append(("null", given.isNull()))
    if column.min is not None:
        failures.append(("min", typed < column.min))
    if column.max is not None:
        failures.append(("max", typed > column.max))
    if column.allowed is not None:
        failures.append(("allowed", ~typed.isin(*column.allowed)))
    return failures


def _reason(column: str, rule: str, value: Column) -> Column:
    return F.struct(F.lit(column).alias("column"), F.lit(rule).alias("rule"), value.alias("value"))
