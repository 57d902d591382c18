"""The same rows as two versions predicted them, row by row. Runs anywhere; needs no Spark."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import MlsparkError
from mlspark.evaluation.predictions import Predictions
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.losses import key_text
from mlspark.tasks.task import Task

Names = tuple[str, str]
"""Two versions in words, for messages."""


class ComparisonError(MlsparkError):
    """Two versions cannot be compared: their predictions are of other rows, or mean something else."""


def check_tasks(first: Task, second: Task, *, names: Names) -> None:
    """Refuse versions that do not predict the same; threshold, transform and loss may differ.

    Raises:
        ComparisonError: names what differs.
    """
    mine, theirs = _meaning(first), _meaning(second)
    shared = (name for name in mine if name in theirs)
    different = [f"task.{name} {mine[name]} and {theirs[name]}" for name in shared if mine[name] != theirs[name]]
    if different:
        raise ComparisonError(
            f"{names[0]}, {names[1]}: not versions for the same task ({'; '.join(different)}); compare versions that "
            f"predict the same"
        )


def _meaning(task: Task) -> dict[str, str]:
    """Return what labels and metrics mean."""
    found = {"kind": task.kind, "target": task.target, "weight": str(task.weight)}
    if isinstance(task, BinaryTask):
        found |= {"event": key_text(task.event_class), "other class": key_text(task.other_class)}
    elif isinstance(task, ClassTask):
        found["classes"] = ", ".join(map(key_text, task.known_classes))
    return found


def same_rows(first: Predictions, second: Predictions, *, names: Names) -> tuple[Predictions, Predictions]:
    """Return both versions' predictions of the same rows, in one order: that of row_id, target and weight.

    Equal rows have equal ids; as all that they hold is equal, it does not matter which of them goes with which.

    Raises:
        ComparisonError: a row is in one file alone, or has another target or weight there; says how many and names one.
    """
    if (first.weight is None) != (second.weight is None):
        raise ComparisonError(
            f"{names[0]}, {names[1]}: only one has sample weights; compare versions of one task.weight"
        )
    one, other = _in_order(first), _in_order(second)
    if not len(one) or not len(other):
        raise ComparisonError(f"{names[0]}, {names[1]}: no rows were predicted; give the split rows and train again")
    if len(one) != len(other) or (one.row_id != other.row_id).any():
        raise ComparisonError(
            f"{names[0]}, {names[1]}: predictions of other rows ({_only_in(one, other, names[0])}; "
            f"{_only_in(other, one, names[1])}); score both on one version of the table"
        )
    differs = one.target != other.target
    if one.weight is not None and other.weight is not None:
        differs |= one.weight != other.weight
    if differs.any():
        raise ComparisonError(
            f"{names[0]}, {names[1]}: {int(differs.sum()):,} rows have another target or weight in one than in the other, "
            f"as row_id {one.row_id[differs][0]}; score both on one version of the table"
        )
    return one, other


def _in_order(rows: Predictions) -> Predictions:
    keys = [rows.target, rows.row_id]  # the last is the first to sort by
    return picked(rows, np.lexsort(keys if rows.weight is None else [rows.weight, *keys]))


def _only_in(rows: Predictions, others: Predictions, name: str) -> str:
    """Return how many rows are not among the others, counting equal rows one by one."""
    ids, counts = np.unique(rows.row_id, return_counts=True)
    known, of_others = np.unique(others.row_id, return_counts=True)
    places = np.searchsorted(known, ids).clip(0, len(known) - 1)
    more = counts - np.where(known[places] == ids, of_others[places], 0)
    if not (more > 0).any():
        return f"none only in {name}"
    return f"{int(more[more > 0].sum()):,} of {len(rows):,} only in {name}, as row_id {ids[more > 0][0]}"


def counting(rows: Predictions) -> Predictions:
    """Return the rows of a weight above 0, all of them without weights."""
    return rows if rows.weight is None else picked(rows, np.flatnonzero(rows.weight > 0))


def picked(rows: Predictions, places: NDArray[np.intp]) -> Predictions:
    """Return the rows at these places, in this order."""
    return replace(
        rows,
        row_id=rows.row_id[places],
        target=rows.target[places],
        outputs=rows.outputs[places],
        weight=None if rows.weight is None else rows.weight[places],
    )
