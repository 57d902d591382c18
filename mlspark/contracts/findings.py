"""What is wrong with rows and with the data as a whole: everything, with examples. Driver; writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from mlspark.contracts import accounting, check_spark
from mlspark.contracts.accounting import Account
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import RAW, REASONS, SOURCE, SOURCE_FILE

NUM_EXAMPLES = 3
SHOWN_CHARACTERS = 200
"""Most characters shown of a value or a row; a row may have megabytes."""


@dataclass(frozen=True)
class Example:
    """One bad row."""

    value: str | None
    row: str | None
    """The row as text; value and row are cut at SHOWN_CHARACTERS."""
    file: str | None


@dataclass(frozen=True)
class Findings:
    """The account of the rows, examples of each broken rule, and why the data as a whole is refused."""

    account: Account
    examples: Mapping[str, Sequence[Example]]
    """Reason -> up to NUM_EXAMPLES rows that have it."""
    problems: tuple[str, ...]
    """Empty: the data meets the contract."""


def find(conformed: DataFrame, contract: Contract, *, sources: Sequence[str]) -> Findings:
    """Return what is wrong with conformed rows. One Spark job, and one for the examples when there are bad rows.

    Args:
        conformed: the result of `spark.conform` with a column `SOURCE`.
        contract: theirs.
        sources: all values of `SOURCE`.
    """
    account = accounting.account(conformed, contract, sources=sources)
    return Findings(
        account, _examples(conformed) if account.reasons else {}, tuple(accounting.problems(account, contract))
    )


def _examples(conformed: DataFrame) -> dict[str, list[Example]]:
    """Return the first bad rows of each reason in the order of file and text: the same ones every time."""
    bad = conformed.where(check_spark.is_bad()).select(
        F.col(SOURCE).alias("source"),
        F.col(SOURCE_FILE).alias("file"),
        F.col(RAW).alias("raw"),
        F.explode(REASONS).alias("reason"),
    )
    reasons = bad.select("source", "file", "raw", "reason.*")
    first = Window.partitionBy("column", "rule").orderBy("source", "file", "raw", "value")
    rows = (
        reasons.withColumn("number", F.row_number().over(first))
        .where(F.col("number") <= NUM_EXAMPLES)
        .select("column", "rule", "number", _cut("value"), _cut("raw"), "file")
    )  # fmt: skip
    examples: dict[str, list[Example]] = {}
    for row in sorted(rows.collect(), key=lambda row: (row.column, row.rule, row.number)):
        reason = f"{row.column}.{row.rule}" if row.column else row.rule
        examples.setdefault(reason, []).append(Example(row.value, row.raw, row.file))
    return examples


def _cut(name: str) -> Column:
    text = F.col(name)
    cut = F.concat(F.substring(text, 1, SHOWN_CHARACTERS), F.lit("..."))
    return F.when(F.char_length(text) > SHOWN_CHARACTERS, cut).otherwise(text).alias(name)
