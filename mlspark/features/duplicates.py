"""Pictures that are there more than once: the same content, and pictures that look alike. Driver."""

from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf

from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import PREFIX, SOURCE_FILE, SPLIT
from mlspark.errors import PictureError
from mlspark.pictures import decoder

NUM_EXAMPLES = 5
LOOK = f"{PREFIX}look"


def duplicates(good: DataFrame, contract: Contract) -> dict[str, dict[str, Any]]:
    """Return how many pictures of each column are there more than once. Two Spark jobs a column; four with `alike`.

    {column: {"same": counts, "alike": counts}}, of those that the contract's `media.duplicates` asks for. Counts are {"rows"
    with a picture, "different": contents or looks, "repeated": rows beyond the first of each, "on_several_sides": how many
    of the different ones are on more than one side of the split, "examples": up to 5 of {"key": SHA-256 or dHash, "rows",
    "sides", "files": the first and last by name}}; in "alike", rows are different contents.

    Args:
        good: good rows with `SPLIT` and `SOURCE_FILE`.
        contract: theirs.
    """
    counted: dict[str, dict[str, Any]] = {}
    for column in contract.columns:
        if column.media is None or column.media.duplicates == "ignore":
            continue
        picture = F.col(column.name)
        rows = good.where(picture.isNotNull()).select(picture, SPLIT, SOURCE_FILE)
        counted[column.name] = {"same": _counts(rows, F.sha2(picture, 256))}
        if column.media.duplicates == "alike":
            look = _look(picture)
            counted[column.name]["alike"] = _counts(rows.withColumn(LOOK, look), F.col(LOOK), F.sha2(picture, 256))
    return counted


def _counts(rows: DataFrame, key: Column, content: Column | None = None) -> dict[str, Any]:
    """Return the counts of rows by their key; of equal rows with `content` one is counted."""
    number = F.count("*") if content is None else F.count_distinct(content)
    groups = (
        rows.groupBy(key.alias("key"))
        .agg(
            number.alias("rows"),
            F.sort_array(F.collect_set(SPLIT)).alias("sides"),
            F.array_distinct(F.array(F.min(SOURCE_FILE), F.max(SOURCE_FILE))).alias("files"),
        )
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    try:
        is_repeated = F.col("rows") > 1
        is_on_several = F.size("sides") > 1 if content is None else is_repeated & (F.size("sides") > 1)
        [totals] = groups.agg(
            F.coalesce(F.sum("rows"), F.lit(0)).alias("rows"),
            F.count("*").alias("different"),
            F.coalesce(F.sum(F.col("rows") - 1), F.lit(0)).alias("repeated"),
            F.count_if(is_on_several).alias("on_several_sides"),
        ).collect()
        commonest = groups.where(is_repeated).orderBy(F.desc("rows"), "key").limit(NUM_EXAMPLES).collect()
    finally:
        groups.unpersist()
    return {**totals.asDict(), "examples": [row.asDict() for row in commonest]}


def _look(picture: Column) -> Column:
    """Return the dHash of a picture in hexadecimal; null for one that cannot be decoded."""
    import pandas as pd

    # Spark looks at the types, which must be no texts.
    def looks(pictures: pd.Series) -> pd.Series:
        return pictures.map(_hash)

    return pandas_udf(looks, "string")(picture)  # type: ignore[call-overload,no-any-return]


def _hash(picture: bytes) -> str | None:
    try:
        return f"{decoder.perceptual_hash(picture):016x}"
    except PictureError:  # the contract does not ask that it decodes
        return None
