"""What the gate asks of parts of the rows, like those of each sex: none may lose much of what all gain. Driver."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from mlspark.evaluation import slices
from mlspark.evaluation.comparison import RESAMPLES, SEED
from mlspark.evaluation.paired_rows import picked
from mlspark.evaluation.predictions import Predictions
from mlspark.evaluation.slices import Judged
from mlspark.registry import gate
from mlspark.registry.gate import Check, SliceLimits
from mlspark.registry.versions import ModelVersion
from mlspark.settings.pipeline import Settings
from mlspark.stages import raw_rows

Spark = Callable[[], SparkSession]
"""Starts Spark when it is first asked for: only slices need it, whose values are in the sources."""


def checks(
    settings: Settings,
    champion: tuple[ModelVersion, Predictions],
    challenger: tuple[ModelVersion, Predictions],
    spark: Spark,
) -> Iterator[Check]:
    """Yield for each column of `promotion.slices` whether any of its slices loses too much.

    Args:
        settings: of the pipeline.
        champion: with its predictions.
        challenger: with its predictions, of the same rows in the same order.
        spark: starts Spark.

    Raises:
        ConfigError: a column is not there.
        SourceError: the sources cannot be read.
    """
    of = settings.promotion.slices
    if of is not None:
        task = champion[0].package.task
        raw = raw_rows.of_split(spark(), settings, settings.promotion.split, of.columns, task)
        yield from of_raw_rows(settings, of, champion, challenger, raw)


def of_raw_rows(
    settings: Settings,
    of: SliceLimits,
    champion: tuple[ModelVersion, Predictions],
    challenger: tuple[ModelVersion, Predictions],
    raw: pa.Table,
) -> Iterator[Check]:
    """Yield the same from raw rows, with their ids; predictions of rows that are not among them are left out."""
    task = champion[0].package.task
    rows, places = _known(champion[1].row_id, raw[raw_rows.OWN[0]].to_numpy())
    if len(rows) < settings.promotion.min_rows:
        yield gate.of_few_rows(settings.promotion, len(rows), "in the sources still", rule="slices")
        return
    judged = [
        Judged(f"version {version.version}", version.package.task, picked(kept, rows))
        for version, kept in (champion, challenger)
    ]
    metric = of.metric or slices.default_metric(task)
    for column in of.columns:
        values = raw[column].take(places).to_pylist()
        by_value = slices.by_slice(
            column,
            values,
            judged,
            metric=metric,
            confidence=settings.promotion.confidence,
            resamples=RESAMPLES,
            seed=SEED,
        )
        yield gate.of_slices(of, task, by_value)


def _known(wanted: NDArray[np.int64], known: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the places of those rows that are known, and where each is; equal ids are equal rows."""
    ids, first = np.unique(known, return_index=True)
    found = np.searchsorted(ids, wanted).clip(0, max(0, len(ids) - 1))
    rows = np.flatnonzero(ids[found] == wanted) if len(ids) else np.array([], np.intp)
    return rows, first[found[rows]]
