"""Which side a row is on, from its content alone. Driver, lazy."""

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import Column
from pyspark.sql import functions as F

from mlspark.config import SplitSettings
from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_BUCKETS = 1_000_000


def row_id(columns: Sequence[str]) -> Column:
    """Return the 64-bit hash of a row's content: xxhash64 of the values as text, a missing one unlike any text.

    Leave out the label: rows that differ in nothing else must share a side, and rows to be scored have none.
    """
    return F.xxhash64(*(F.coalesce(F.col(name).cast("string"), F.lit("\u0000")) for name in columns)).alias("row_id")


def side(row_hash: Column, settings: SplitSettings) -> Column:
    """Return the side of a row to learn from: "train", "validation" or "test".

    A row never changes sides as rows come and go, and duplicates stay together.

    Args:
        row_hash: `row_id` of what keeps rows together.
        settings: shares, or moments.
    """
    if settings.by == "time":
        time = F.col(settings.time).cast("timestamp")
        is_test = time >= F.lit(settings.test_from or None).cast("timestamp")
        is_validation = time >= F.lit(settings.validation_from).cast("timestamp")
        return F.when(is_test, TEST).when(is_validation, VALIDATION).otherwise(TRAIN)
    bucket = F.pmod(F.xxhash64(row_hash, F.lit(settings.seed)), F.lit(_BUCKETS))
    validation = round(settings.validation_share * _BUCKETS)
    test = validation + round(settings.test_share * _BUCKETS)
    return F.when(bucket < validation, VALIDATION).when(bucket < test, TEST).otherwise(TRAIN)


def check(settings: SplitSettings, contract: Contract) -> None:
    """Refuse a split by columns that the contract does not have, or not as they must be.

    Raises:
        ConfigError: names setting, column and remedy.
    """
    columns = {column.name: column for column in contract.columns}
    problems = [
        f"split.key: {name}: not a column of contract {contract.name}" for name in settings.key if name not in columns
    ]
    if contract.label in settings.key:
        problems.append(f"split.key: {contract.label}: is the label")
    if settings.by == "time":
        rule = columns.get(settings.time)
        if rule is None or rule.type not in ("date", "timestamp"):
            problems.append(f"split.time: {settings.time}: not a date or timestamp column of contract {contract.name}")
        elif rule.nullable:
            problems.append(f'split.time: {settings.time}: may be missing; give it "nullable": false in the contract')
        for name in ("validation_from", "test_from"):
            text = getattr(settings, name)
            try:
                datetime.fromisoformat(text or "2000-01-01")
            except ValueError:
                problems.append(f"split.{name}: {text!r}: not a moment like 2024-01-31 or 2024-01-31 18:00:00")
    if problems:
        raise ConfigError("; ".join(problems))
