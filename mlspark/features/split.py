"""Which side a row is on, from its content alone. Driver, lazy."""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import GROUP, ROW_ID, SOURCE, SPLIT
from mlspark.errors import ConfigError
from mlspark.section import Section

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_BUCKETS = 1_000_000
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?")


class SplitSettings(Section):
    """Which side each row of `sources.learn` is on. It never changes sides as other rows come and go."""

    by: Literal["hash", "time"] = "hash"
    """Rule of the split. hash: by a hash of what identifies the row, so that duplicates are in one split. time: older rows
    train."""
    validation_share: Annotated[float, Field(ge=0.0, le=0.9)] = 0.1
    """Share of the rows held out for choosing the best checkpoint; only with by: hash."""
    test_share: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0
    """Share of the rows held out for the final evaluation, besides `sources.test`; only with by: hash."""
    seed: int = 0
    """Seed that decides which rows are held out; only with by: hash."""
    key: tuple[str, ...] = ()
    """Columns whose equal values keep rows in one split and one fold; a row that lacks one of them stands alone. Empty: the
    contract's pictures, by their content; without pictures its unique key, else all columns but the label."""
    time: str = ""
    """Date or timestamp column of the contract, without missing values, to split by; only with by: time."""
    validation_from: str = ""
    """First moment (UTC, like 2024-01-31 or 2024-01-31 18:00:00) of the validation rows; only with by: time."""
    test_from: str = ""
    """First moment (UTC) of the test rows; empty: no test rows. Only with by: time."""
    folds: Annotated[int, Field(ge=0, le=100)] = 0
    """Number of folds for cross-validation, written as column `fold`, 0 to folds - 1; 0: no such column."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "SplitSettings":
        if self.by == "time":
            if not self.time or not self.validation_from:
                raise ValueError("by: time needs time and validation_from")
            moments = {name: moment(getattr(self, name), name) for name in ("validation_from", "test_from")}
            if self.test_from and moments["test_from"] <= moments["validation_from"]:
                raise ValueError(f"test_from {self.test_from} is not after validation_from {self.validation_from}")
        elif self.time or self.validation_from or self.test_from:
            raise ValueError("time, validation_from and test_from need by: time")
        elif self.validation_share + self.test_share > 0.95:
            raise ValueError("validation_share and test_share leave fewer than 5 % of the rows to train on")
        return self


def moment(text: str, setting: str) -> datetime:
    """Return a moment of the settings, UTC where it names no zone; the first of all for an empty text.

    Raises:
        ValueError: names the setting.
    """
    if not text:
        return datetime.min.replace(tzinfo=UTC)
    try:
        if not _MOMENT.fullmatch(text):
            raise ValueError
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"split.{setting}: {text!r}: not a moment like 2024-01-31 or 2024-01-31 18:00:00") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def row_id(columns: Sequence[str], *, binary: Collection[str] = ()) -> Column:
    """Return the 64-bit hash of a row's content: xxhash64 of the values as text, a missing one unlike any text.

    Leave out the label: rows that differ in nothing else must share a side, and rows to be scored have none.

    Args:
        columns: what the row is known by.
        binary: those of them that hold bytes, which count by their SHA-256.
    """
    texts = (F.sha2(F.col(name), 256) if name in binary else F.col(name).cast("string") for name in columns)
    return F.xxhash64(*(F.coalesce(text, F.lit("\u0000")) for text in texts)).alias("row_id")


def side(row_hash: Column, settings: SplitSettings) -> Column:
    """Return the side of a row to learn from: "train", "validation" or "test".

    A row never changes sides as rows come and go, and duplicates stay together.

    Args:
        row_hash: `row_id` of what keeps rows together.
        settings: shares, or moments.
    """
    if settings.by == "time":
        time = F.col(settings.time).cast("timestamp")
        is_test = time >= _timestamp(settings.test_from, "test_from") if settings.test_from else F.lit(False)
        is_validation = time >= _timestamp(settings.validation_from, "validation_from")
        return F.when(is_test, TEST).when(is_validation, VALIDATION).otherwise(TRAIN)
    bucket = F.pmod(F.xxhash64(row_hash, F.lit(settings.seed)), F.lit(_BUCKETS))
    validation = round(settings.validation_share * _BUCKETS)
    test = validation + round(settings.test_share * _BUCKETS)
    return F.when(bucket < validation, VALIDATION).when(bucket < test, TEST).otherwise(TRAIN)


def _timestamp(text: str, setting: str) -> Column:
    return F.timestamp_micros(
        F.lit((moment(text, setting) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
    )


def has_key(key: Sequence[str]) -> Column:
    """Return whether a row has all columns of a key."""
    return reduce(and_, (F.col(name).isNotNull() for name in key), F.lit(True))


def place(rows: DataFrame, settings: SplitSettings, contract: Contract, *, weight: str | None = None) -> DataFrame:
    """Return rows with `ROW_ID`, `GROUP` (hash of what keeps rows on one side) and `SPLIT`. Lazy.

    Args:
        rows: conformed rows with their `SOURCE`: those of a source that is not "learn" are on the side of its name.
        settings: how the rows of "learn" are divided.
        contract: its unique key, or else all columns but label and weight, is what a row is known by.
        weight: column of the sample weight, which rows to be scored need not have either.
    """
    content = [column.name for column in contract.columns if column.name not in (contract.label, weight)]
    known_by = contract.unique_key or content
    rows = rows.withColumn(ROW_ID, row_id(known_by, binary=contract.binary))
    # What rows show, whatever they are called: one picture in training and test rows would be learned by heart.
    key = settings.key or contract.pictures
    # A missing key is no key: rows without one have nothing in common.
    group = F.when(has_key(key), row_id(key, binary=contract.binary)).otherwise(F.col(ROW_ID)) if key else F.col(ROW_ID)
    rows = rows.withColumn(GROUP, group)
    # Files that are given as one side are on it.
    learned = F.when(F.col(SOURCE) == "learn", side(F.col(GROUP), settings))
    return rows.withColumn(SPLIT, learned.otherwise(F.col(SOURCE)))


def check(settings: SplitSettings, contract: Contract) -> None:
    """Refuse a split by columns that the contract does not have, or not as they must be.

    Raises:
        ConfigError: names setting, column and remedy.
    """
    columns = {column.name: column for column in contract.columns}
    problems = [f"split.key: {name}: {contract.no_column(name)}" for name in settings.key if name not in columns]
    if contract.label in settings.key:
        problems.append(f"split.key: {contract.label}: is the label")
    if settings.by == "time":
        rule = columns.get(settings.time)
        if rule is None:
            problems.append(f"split.time: {settings.time}: {contract.no_column(settings.time)}")
        elif rule.type not in ("date", "timestamp"):
            problems.append(f"split.time: {settings.time}: type {rule.type}, expected a date or timestamp")
        elif rule.nullable:
            problems.append(f'split.time: {settings.time}: may be missing; give it "nullable": false in the contract')
    if problems:
        raise ConfigError("; ".join(problems))
