"""Where rows went: counts by source and reason, and why data as a whole is refused. Driver."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.contracts.check_spark import reason_name
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import REASONS, SOURCE
from mlspark.errors import ContractError

_AHEAD_SECONDS = 86_400.0
"""How far a value may be ahead of this machine's clock: today's date is, in other zones."""


@dataclass(frozen=True)
class Account:
    """Where the rows went: read = good + quarantined, in all and for each source."""

    reasons: Mapping[str, int]
    """Reason ("age.min", "malformed") -> bad rows with it, the commonest first; a row may have several."""
    sources: Mapping[str, Mapping[str, int]]
    """Source -> {"rows_read", "rows_good", "rows_quarantined", "missing_COLUMN" of good rows, and each extra count}."""
    newest: Mapping[str, float] = field(default_factory=dict)
    """Source -> greatest value of the freshness column in good rows that is not in the future, in seconds since 1970."""

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
        conformed: the result of `conform` with a column `SOURCE`.
        contract: theirs.
        sources: all values of `SOURCE`; one without rows is counted as 0.
        good_rows_with: name -> condition: also count the good rows that satisfy it.
    """
    counted = dict(good_rows_with or {})
    counted |= {f"missing_{c.name}": F.col(c.name).isNull() for c in contract.columns if c.nullable}
    newest = _newest_past(contract.freshness.column) if contract.freshness else F.lit(None)
    names = F.transform(REASONS, reason_name).alias("reasons")
    groups = conformed.groupBy(F.col(SOURCE).alias("source"), names).agg(
        F.count("*").alias("rows"),
        newest.alias("newest"),
        *(F.count_if(condition).alias(name) for name, condition in counted.items()),
    )
    counts = {name: dict.fromkeys(("rows_read", "rows_good", "rows_quarantined", *counted), 0) for name in sources}
    reasons: dict[str, int] = {}
    newest_by_source: dict[str, float] = {}
    for group in groups.collect():
        source = counts[group["source"]]
        source["rows_read"] += group["rows"]
        source["rows_quarantined" if group["reasons"] else "rows_good"] += group["rows"]
        if not group["reasons"]:
            if group["newest"] is not None:
                newest_by_source[group["source"]] = group["newest"]
            for name in counted:
                source[name] += group[name]
        for reason in group["reasons"]:
            reasons[reason] = reasons.get(reason, 0) + group["rows"]
    by_count = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return Account(by_count, counts, newest_by_source)


def _newest_past(column: str) -> Column:
    """Return the greatest value, in seconds since 1970; one value of the year 9999 does not make all others fresh."""
    seconds = F.col(column).cast("timestamp").cast("double")
    return F.max(F.when(seconds <= time.time() + _AHEAD_SECONDS, seconds))


def check_account(account: Account, contract: Contract) -> None:
    """Refuse data that does not meet its contract as a whole, before anything is written.

    Raises:
        ContractError: names every one of its `problems`.
    """
    reasons = problems(account, contract)
    if reasons:
        raise ContractError(f"contract {contract.name}: {'; '.join(reasons)}; nothing was written")


def problems(account: Account, contract: Contract) -> list[str]:
    """Return why data does not meet its contract as a whole.

    Too many bad rows, too few good ones, a column without values, no recent row, or rows of the future alone.
    """
    reasons = []
    bad, read = account.totals["rows_quarantined"], account.totals["rows_read"]
    if bad > contract.max_quarantined_share * read:
        worst = ", ".join(f"{reason} {count:,}" for reason, count in list(account.reasons.items())[:5])
        reasons.append(
            f"{bad:,} of {read:,} rows are bad ({worst}), more than max_quarantined_share="
            f"{contract.max_quarantined_share}: check the source and its settings, or raise the share in the contract"
        )
    for name, counts in account.sources.items():
        rows = counts["rows_good"]
        if rows < contract.min_rows:
            reasons.append(
                f"{name}: {rows:,} good rows of {counts['rows_read']:,} read, fewer than min_rows={contract.min_rows:,}"
            )
            continue
        for column in contract.columns:
            missing = counts.get(f"missing_{column.name}", 0)
            limit = column.max_missing_share
            if rows and (missing == rows if limit is None else missing > limit * rows):
                what = "no value at all" if limit is None else f"more missing than max_missing_share={limit}"
                reasons.append(f"{name}: {column.name}: {missing:,} of {rows:,} values are missing: {what}")
        newest = account.newest.get(name)
        if contract.freshness and newest is None and counts.get(f"missing_{contract.freshness.column}", 0) < rows:
            reasons.append(
                f"{name}: every {contract.freshness.column} is in the future, so nothing tells how old the data is; check "
                f"the values and this machine's clock"
            )
        if contract.freshness and newest is not None:  # a column without any value is named above
            age_hours = (time.time() - newest) / 3600
            if age_hours > contract.freshness.max_age_hours:
                reasons.append(
                    f"{name}: newest {contract.freshness.column} is {age_hours:,.1f} hours old, "
                    f"more than freshness.max_age_hours={contract.freshness.max_age_hours:g}"
                )
    return reasons
