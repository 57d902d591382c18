"""What a version was trained and tried on: the profile of its rows, its kept predictions and metrics. Driver, no Spark."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlspark import storage, tables
from mlspark.errors import MlsparkError, TableError
from mlspark.evaluation import predictions
from mlspark.evaluation.predictions import Predictions, PredictionsError
from mlspark.features.profile import of_numbers, of_values
from mlspark.features.profile_sum import added
from mlspark.registry.versions import ModelVersion
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.losses import key_text
from mlspark.tasks.metrics import Metrics
from mlspark.tasks.task import Task

_MOST_PROBABILITIES = 20
"""Most classes whose probabilities are compared, each as a column; of more the predicted class alone."""
_SPLITS = ("test", "validation")


@dataclass(frozen=True)
class TrainingRows:
    """Good rows of the feature table's version that a version was trained on: training, validation and test rows."""

    table: str
    version: int
    record: Mapping[str, Any]
    """Their profile; see `features.profile`."""
    num_read: int
    num_quarantined: int


@dataclass(frozen=True)
class KeptRows:
    """Rows that a version was tried on when it was trained."""

    split: str
    """The test rows, or the validation rows where there were none."""
    predictions: Predictions
    metrics: Metrics


def training_rows(model: ModelVersion) -> TrainingRows:
    """Return the rows of the feature table that a version was trained on, those that were appended among them.

    Raises:
        TableError: the table is gone, or not one that prepare wrote.
    """
    provenance = model.package.provenance
    table, number = provenance["table"], provenance["table_version"]
    commits = tables.commits(table)
    chosen = next((commit for commit in commits if commit.version == number), None)
    by_id = {commit.metadata["id"]: commit.metadata for commit in commits}
    ids = [] if chosen is None else chosen.metadata["ids"]
    if not ids or any(each not in by_id for each in ids):
        raise TableError(
            f"model {model.name} version {model.version} was trained on version {number} of {table}, which is not there, or "
            f"not whole, or not written by prepare: what its rows were like is not known; restore the table, or train a "
            f"version on one that jobs/prepare.py wrote"
        )
    record = added([tables.read_sidecar(table, each, "profile.json") for each in ids])
    num_read, num_quarantined = (sum(by_id[each][key] for each in ids) for key in ("rows_read", "rows_quarantined"))
    return TrainingRows(table, number, record, num_read, num_quarantined)


def kept_rows(model: ModelVersion, root: str) -> KeptRows:
    """Return the rows that a version was tried on; `root` is storage.root, where its run has them.

    Raises:
        MlsparkError: there were none, or their file is gone.
    """
    provenance = model.package.provenance
    split = next((each for each in _SPLITS if provenance["metrics"].get(each)), None)
    if split is None:
        raise MlsparkError("the version was tried on no rows: it has neither test nor validation rows")
    uri = predictions.uri_of(storage.join(root, "runs", provenance["run_id"]), split)
    try:
        kept = predictions.read(uri)
    except PredictionsError as error:
        raise MlsparkError(f"its predictions of {split} rows are not there: {error}") from error
    return KeptRows(split, kept, Metrics.from_json(provenance["metrics"][split]))


def number_columns(task: Task) -> list[str]:
    """Return the columns of the score table whose numbers are compared: probabilities, and predicted numbers."""
    if isinstance(task, ClassTask) and len(task.known_classes) > _MOST_PROBABILITIES:
        return []
    return [
        name
        for name, kind in task.prediction_types.items()
        if kind == "double" and (name != "prediction" or not isinstance(task, ClassTask))
    ]


def record_of_scores(kept: Predictions, task: Task) -> dict[str, Any]:
    """Return "rows" and "columns" of kept predictions, as the score table has them; classes as text."""
    columns = task.predictions(kept.outputs)
    records = {name: of_numbers(np.asarray(columns[name], np.float64)) for name in number_columns(task)}
    if isinstance(task, ClassTask):
        classes, rows = np.unique(columns["prediction"], return_counts=True)
        records["prediction"] = of_values(
            {key_text(c): n for c, n in zip(classes.tolist(), rows.tolist(), strict=True)}
        )
    return {"rows": len(kept), "columns": records}


def record_of_labels(training: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Return "rows" and "columns" of the labels in a training profile, classes by name, under the target's name."""
    if not isinstance(task, ClassTask):
        return {"rows": training["rows"], "columns": {task.target: training["columns"][task.target]}}
    if isinstance(task, BinaryTask):
        events, rows = training["events"], training["rows"]
        classes = {key_text(task.event_class): events, key_text(task.other_class): rows - events}
    else:
        classes = training["target"]["classes"]
    return {"rows": sum(classes.values()), "columns": {task.target: of_values(classes)}}


def record_of_targets(target: ArrayLike, task: Task) -> dict[str, Any]:
    """Return the same of labels as numbers (n,), as `Task.label_sql` makes them."""
    values: NDArray[np.float64] = np.asarray(target, np.float64)
    if not isinstance(task, ClassTask):
        return {"rows": len(values), "columns": {task.target: of_numbers(values)}}
    names = [key_text(value) for value in task.known_classes]
    if isinstance(task, BinaryTask):
        names = [key_text(task.other_class), key_text(task.event_class)]
    rows = np.bincount(values.astype(np.int64), minlength=len(names)).tolist()
    return {"rows": len(values), "columns": {task.target: of_values(dict(zip(names, rows, strict=True)))}}
