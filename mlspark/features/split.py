"""Which side a row is on, from its content alone. Driver, lazy."""

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from mlspark.config import SplitSettings

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_BUCKETS = 1_000_000


def row_id(columns: Sequence[str]) -> Column:
    """Return the 64-bit hash of a row's content: xxhash64 of the values as text, a missing one unlike any text.

    Leave out the label: rows that differ in nothing else must share a side, and rows to be scored have none.
    """
    return F.xxhash64(*(F.coalesce(F.col(name).cast("string"), F.lit("\u0000")) for name in columns)).alias("row_id")


def side(row_hash: Column, settings: SplitSettings) -> Column:
    """Return "validation" for `validation_share` of all row hashes, else "train".

    A row never changes sides as rows come and go, and duplicates stay together.
    """
    bucket = F.pmod(F.xxhash64(row_hash, F.lit(settings.seed)), F.lit(_BUCKETS))
    return F.when(bucket < round(settings.validation_share * _BUCKETS), VALIDATION).otherwise(TRAIN)
