"""Labels that came later, put to the scored rows that they are of. Driver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.contracts import own_columns
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import ConfigError, SourceError
from mlspark.intake.rows import take_in
from mlspark.registry.package import Package
from mlspark.sources.source import Source, reading
from mlspark.tasks.task import Task

_LABEL, _KEY, _COUNT = (f"{own_columns.PREFIX}{name}" for name in ("label", "key", "count"))
_SHOWN = 3
"""Repeated keys that an error names."""


@dataclass(frozen=True)
class Labelled:
    """Scored rows that have a label, and the account of all others."""

    predictions: Mapping[str, NDArray[Any]]
    """Columns of the score table that are predictions: (n,) each, or (n,) of arrays."""
    target: NDArray[np.float64]
    """Labels (n,), as `Task.label_sql` makes them."""
    counts: Mapping[str, Any]
    """See `of_source` and `of_scores`."""

    def __len__(self) -> int:
        return len(self.target)


def of_scores(scored: DataFrame, package: Package, names: Mapping[str, str]) -> Labelled | None:
    """Return the rows that were scored with their label beside them; None where there are none.

    Args:
        scored: rows of one commit of the score table.
        package: the version that scored them.
        names: column of the contract -> its name in the score table.

    Returns:
        "counts" has "scored", "labelled" and "unlabelled" rows, and "no_class": those whose label is no class or number
        of the task.
    """
    label = package.contract.label
    if label is None or scored.where(F.col(names[label]).isNotNull()).isEmpty():
        return None
    task, known = package.task, scored.where(F.col(names[label]).isNotNull())
    columns = [F.col(name).alias(f"{own_columns.PREFIX}{name}") for name in task.prediction_types]
    rows = known.select(*columns, F.col(names[label]).alias(label)).select(
        *(F.col(f"{own_columns.PREFIX}{name}").alias(name) for name in task.prediction_types),
        _label(package).alias(_LABEL),
    )
    found, target = _collected(rows.where(F.col(_LABEL).isNotNull()), task)
    num_scored, num_known = scored.count(), known.count()
    counts = {
        "scored": num_scored,
        "labelled": len(target),
        "unlabelled": num_scored - num_known,
        "no_class": num_known - len(target),
    }
    return Labelled(found, target, counts)


def key_of(
    settings_key: Sequence[str], package: Package, names: Mapping[str, str], scored: DataFrame, columns: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns of the score table by which labels are put to its rows.

    Args:
        settings_key: monitoring.label_key.
        package: the version.
        names: column of the contract -> its name in the score table.
        scored: rows of the score table.
        columns: of the source of labels; empty where it does not name them.

    Raises:
        ConfigError: the score table has no such column.
    """
    if missing := [name for name in settings_key if name not in scored.columns]:
        raise ConfigError(
            f"monitoring.label_key: {', '.join(missing)}: no column of the score table ({', '.join(scored.columns)}); "
            f"name others, or have scoring.keep pass it through"
        )
    if settings_key:
        return tuple(settings_key)
    if package.contract.unique_key:
        return tuple(names[name] for name in package.contract.unique_key)
    return ("row_number",) if "row_number" in columns else ("row_id",)


def of_source(
    spark: SparkSession,
    source: Source,
    scored: DataFrame,
    package: Package,
    names: Mapping[str, str],
    *,
    key: Sequence[str],
) -> Labelled:
    """Return the scored rows that a source has labels of.

    Args:
        spark: the session of the job.
        source: of labels; a row without a value is a label that is not known yet.
        scored: rows of one commit of the score table.
        package: the version that scored them.
        names: column of the contract -> its name in the score table.
        key: columns of the score table, from `key_of`.

    Returns:
        "counts" has "scored", "labelled" and "unlabelled" rows; of the source "labels" (rows with a value), of which
        "no_class" are no class or number of the task and "without_score" are of no row of the commit, and "bad_rows" with
        "reasons" {reason: rows}, which are left out; and "key".

    Raises:
        SourceError: the source cannot be read; or a key stands twice in it, or several scored rows have it.
        ContractError: the source lacks a column, or too many of its rows are bad.
    """
    contract = _contract(scored, package, names, key)
    label = contract.columns[-1].name
    with take_in(spark, {"labels": source}, contract) as taken, reading(source.uri):
        known = taken.good.where(F.col(label).isNotNull())
        _refuse_repeated(known, key, f"{source.uri}: keys with several labels", "keep one label for each key")
        _refuse_repeated(
            scored, key, "monitoring.label_key: keys of several scored rows",
            "name columns that tell all rows apart: row_number, or a key that scoring.keep passes through",
        )  # fmt: skip
        keys = [F.col(name).alias(f"{_KEY}{place}") for place, name in enumerate(key)]
        labels = known.select(*keys, _label(package).alias(_LABEL)).where(F.col(_LABEL).isNotNull())
        is_same = reduce(and_, (F.col(name) == F.col(f"{_KEY}{place}") for place, name in enumerate(key)))
        found, target = _collected(scored.join(labels, on=is_same, how="inner"), package.task)
        num_known, num_labels, num_scored = known.count(), labels.count(), scored.count()
    counts = {
        "scored": num_scored,
        "labelled": len(target),
        "unlabelled": num_scored - len(target),
        "labels": num_known,
        "no_class": num_known - num_labels,
        "without_score": num_labels - len(target),
        "bad_rows": taken.account.totals["rows_quarantined"],
        "reasons": dict(taken.account.reasons),
        "key": list(key),
    }
    return Labelled(found, target, counts)


def _contract(scored: DataFrame, package: Package, names: Mapping[str, str], key: Sequence[str]) -> Contract:
    """Return what a source of labels holds: the key, by its names in the score table, then the label."""
    headers = {names[rule.name]: rule.source_name for rule in package.contract.columns if rule.name in names}
    types = {field.name: field.dataType.simpleString() for field in scored.schema}
    rules = [ColumnRule(name=name, header=headers.get(name), type=types[name], nullable=False) for name in key]
    label = package.contract.column(package.task.target)
    rules.append(label.model_copy(update={"nullable": True, "max_missing_share": 1.0}))
    share = package.contract.max_quarantined_share
    return Contract(name="labels", columns=tuple(rules), min_rows=0, max_quarantined_share=share)


def _label(package: Package) -> Column:
    return F.expr(package.task.label_sql(package.contract.column(package.task.target).type)).cast("double")


def _refuse_repeated(rows: DataFrame, key: Sequence[str], what: str, remedy: str) -> None:
    """Raise SourceError where rows share a key; rows without one share nothing."""
    has_key = reduce(and_, (F.col(name).isNotNull() for name in key))
    repeated = rows.where(has_key).groupBy(*key).agg(F.count("*").alias(_COUNT)).where(F.col(_COUNT) > 1)
    examples = repeated.orderBy(*key).limit(_SHOWN).collect()
    if examples:
        shown = "; ".join(", ".join(f"{name}={row[name]}" for name in key) for row in examples)
        raise SourceError(f"{what}: {repeated.count():,} keys, for example {shown}; {remedy}")


def _collected(rows: DataFrame, task: Task) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Return the predictions and labels of rows; 8 bytes of the driver's memory for each."""
    table: pa.Table = rows.select(*task.prediction_types, _LABEL).toArrow()
    found = {name: table[name].to_numpy() for name in task.prediction_types}
    return found, np.asarray(table[_LABEL].to_numpy(), np.float64)
