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
    "sides", "files": the first and last by name, "contents": the first and last SHA-256}}; in "alike", rows are different
    contents.

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
        content = F.sha2(picture, 256)
        counted[column.name] = {"same": _counts(rows, content, content)}
        if column.media.duplicates == "alike":
            looked = rows.withColumn(LOOK, _look(picture)).where(F.col(LOOK).isNotNull())
            counted[column.name]["alike"] = _counts(looked, F.col(LOOK), content, once=True)
    return counted


def _counts(rows: DataFrame, key: Column, content: Column, *, once: bool = False) -> dict[str, Any]:
    """Return the counts of rows by their key; of those of the same content one is counted if `once`."""
    number = F.count_distinct(content) if once else F.count("*")
    groups = (
        rows.groupBy(key.alias("key"))
        .agg(
            number.alias("rows"),
            F.sort_array(F.collect_set(SPLIT)).alias("sides"),
            F.array_distinct(F.array(F.min(SOURCE_FILE), F.max(SOURCE_FILE))).alias("files"),
            F.array_distinct(F.array(F.min(content), F.max(content))).alias("contents"),
        )
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    try:
        is_repeated = F.col("rows") > 1
        is_on_several = is_repeated & (F.size("sides") > 1)
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
