"""The rows that two files of predictions have in common. Runs anywhere; needs no Spark."""

import numpy as np
from numpy.typing import NDArray

from mlspark.evaluation.paired_rows import picked
from mlspark.evaluation.predictions import Predictions


def shared(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Return the rows of each that are in the other, too: of the same row_id, target and weight, each as often as in both.

    Two versions of a table share the rows that stayed in the same split: none of them was learnt from by either model.

    Returns:
        Predictions of the same rows, in the same order; empty where there are none, or where only one has weights.
    """
    if (first.weight is None) != (second.weight is None):
        return picked(first, np.array([], np.intp)), picked(second, np.array([], np.intp))
    _, places, places_there = np.intersect1d(_keys(first), _keys(second), assume_unique=True, return_indices=True)
    return picked(first, places), picked(second, places_there)


def _keys(rows: Predictions) -> NDArray[np.void]:
    """Return what a row of each file is known by (n,); of equal rows the first is 0, the next 1."""
    keys = np.zeros(
        len(rows), [("row_id", np.int64), ("target", np.float64), ("weight", np.float64), ("turn", np.int64)]
    )
    keys["row_id"], keys["target"] = rows.row_id, rows.target
    if rows.weight is not None:
        keys["weight"] = rows.weight
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(rows) else np.array([], np.intp)
    of_begin = np.repeat(begins, np.diff(np.r_[begins, len(rows)]))
    keys["turn"][order] = np.arange(len(rows)) - of_begin
    return keys
