"""The raw rows of a split, as the sources hold them now, each with the id by which predictions know it. Driver."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import tables
from mlspark.contracts import check_spark
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import ROW_ID, SPLIT
from mlspark.errors import ConfigError
from mlspark.features import split
from mlspark.features.labels import label_columns
from mlspark.intake import join_types
from mlspark.intake import joins as joining
from mlspark.intake.pictures import PictureFeature
from mlspark.intake.rows import conform
from mlspark.session import computed_in_utc
from mlspark.settings.pipeline import Settings
from mlspark.stages.check import check_prepare
from mlspark.stages.preparation import find_sources
from mlspark.tasks.task import Task

OWN = "_mlspark_row_id", "_mlspark_label", "_mlspark_weight"
"""Columns beside those that were asked for: row id, label and, where the task has one, sample weight."""


def check_columns(settings: Settings, columns: Sequence[str]) -> Contract:
    """Return the pipeline's contract; refuse columns that neither it nor a join has.

    Raises:
        ConfigError: names them, and those that there are.
    """
    contract = check_prepare(settings)
    known = [*contract.names, *join_types.declared(settings.joins, contract)]
    if unknown := [name for name in columns if name not in known]:
        raise ConfigError(f"{', '.join(unknown)}: not a column of contract {contract.name} ({', '.join(known)})")
    return contract


@computed_in_utc
def of_split(spark: SparkSession, settings: Settings, name: str, columns: Sequence[str], task: Task) -> pa.Table:
    """Return the good rows of a split on the driver, with `OWN` in front; arguments and errors of `opened`."""
    with opened(spark, settings, name, columns, task) as rows:
        return rows.toArrow()


@contextmanager
def opened(
    spark: SparkSession,
    settings: Settings,
    name: str,
    columns: Sequence[str],
    task: Task,
    picture_features: Sequence[PictureFeature] = (),
) -> Iterator[DataFrame]:
    """Yield the good rows of a split, with `OWN` in front. Lazy, but for a job for each join; in a session of UTC.

    Args:
        spark: the session.
        settings: sources, contract, split and joins of the pipeline.
        name: of the split.
        columns: of the contract or of joins.
        task: resolved; says what label and weight are.
        picture_features: rows are bad whose pictures cannot be decoded for them.

    Raises:
        ConfigError: a column is not there.
        SourceError: a source is absent or cannot be read.
    """
    contract = check_columns(settings, columns)
    with ExitStack() as stack:
        media = {rule.name for rule in contract.columns if rule.media}
        looked_at = [feature for feature in picture_features if feature.column in media]
        rows = conform(spark, find_sources(spark, settings), contract, looked_at)
        rows = split.place(rows, settings.split, contract, weight=settings.task.weight)
        good = rows.where(~check_spark.is_bad()).where(F.col(SPLIT) == name)
        if not set(columns) <= set(contract.names):
            joins = joining.find(spark, settings.joins, root=settings.sources.root)
            stack.enter_context(joining.computing(joins))
            good = joining.attach(good, stack.enter_context(joining.read(spark, joins)).good, joins)
        label, *weight = label_columns(task, contract)
        selected = good.select(
            F.col(ROW_ID).alias(OWN[0]), label.alias(OWN[1]), *(each.alias(OWN[2]) for each in weight), *columns
        )
        yield selected.where(F.col(OWN[1]).isNotNull())


@computed_in_utc
def training_ids(spark: SparkSession, table: str, version: int) -> Any:
    """Return the row ids (n,) that a version of a feature table has for training, int64.

    Raises:
        TableError: the version is not there any more.
    """
    rows = tables.read(spark, table, version=version).where(F.col("split") == split.TRAIN).select("row_id")
    return rows.toArrow()["row_id"].to_numpy()
