"""The metrics of a split for many weightings of its rows at once, for resampling. Numpy and scipy's sparse matrices.

`task.metrics` is the definition of each metric; here is the same for r weightings together, as sums over the rows: 2,000
resamples of 16,000 rows take seconds and not minutes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from mlspark.errors import MlsparkError
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.class_metrics import MOST_SINGLE, TOP_K, is_among_top
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.intervals import Floats
from mlspark.tasks.judgement import Classified, classified
from mlspark.tasks.metrics import CALIBRATION_BINS, calibration_bins
from mlspark.tasks.multiclass import MulticlassTask, softmax
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task, outputs_of

MOST_RANKED = 20
"""Classes up to which areas under curves are computed: each class takes a pass over all rows."""

_MOST_DENSE = 32
"""Classes up to which a table of ones and zeros is faster than a sparse one."""

ByWeight = Callable[[Floats], dict[str, Floats]]
"""Function of weights (r, n) that returns metric -> its value by each weighting (r,), NaN where it is not defined."""


def by_weight(task: Task, outputs: ArrayLike, target: ArrayLike) -> ByWeight:
    """Return the function of weightings of these rows.

    Args:
        task: resolved.
        outputs: (n, O) of the model.
        target: (n,) of the feature table's `label`.
    """
    if isinstance(task, ClassTask):
        return _of_classes(task, outputs_of(task, outputs), np.asarray(target))
    if isinstance(task, RegressionTask):
        return _of_numbers(task, outputs_of(task, outputs), np.asarray(target, np.float64))
    raise MlsparkError(f"task.kind={task.kind}: its metrics cannot be resampled")


def _of_classes(task: ClassTask, outputs: Floats, target: NDArray[Any]) -> ByWeight:
    rows = classified(task, outputs, target, None)
    is_ordered = isinstance(task, MulticlassTask) and task.ordered
    means, rankings = _class_means(task, rows, outputs)
    bins = calibration_bins(rows.event_probability)
    right = (rows.target == rows.predicted).astype(np.float64)
    blocks = {
        "means": np.column_stack(list(means.values())),
        "actual": _indicators(rows.target, rows.num_classes),
        "predicted": _indicators(rows.predicted, rows.num_classes),
        "right": _indicators(rows.target, rows.num_classes, right),
        "gaps": _indicators(bins, CALIBRATION_BINS, rows.event_probability - rows.is_event),
    }
    if is_ordered:
        first, second = rows.target.astype(np.float64), rows.predicted.astype(np.float64)
        blocks["kappa"] = np.column_stack([first, second, first**2, second**2, (first - second) ** 2])
    sums_by, names = _Sums(blocks), task.column_names if rows.num_classes <= MOST_SINGLE else ()

    def values(weight: Floats) -> dict[str, Floats]:
        total, sums = weight.sum(axis=1), sums_by(weight)
        found = dict(zip(means, (sums["means"] / total[:, None]).T, strict=True))
        found |= _of_counts(sums["right"], sums["actual"], sums["predicted"], names)
        found["calibration_error"] = np.abs(sums["gaps"]).sum(axis=1) / total
        if is_ordered:
            found["quadratic_kappa"] = _kappa(sums["kappa"], total)
        if rankings:
            found |= _areas(rankings, weight, is_single=isinstance(task, BinaryTask))
        return found

    return values


def _class_means(task: ClassTask, rows: Classified, outputs: Floats) -> "tuple[dict[str, Floats], list[_Ranked]]":
    """Return what metrics are means of, of each row, and the rankings whose areas are metrics."""
    means = {"accuracy": (rows.predicted == rows.target).astype(np.float64), "log_loss": rows.loss}
    if isinstance(task, BinaryTask):
        means["brier"] = (rows.event_probability - rows.is_event) ** 2
        return means, [_Ranked(outputs[:, 0], rows.is_event)]
    chances = softmax(outputs)
    is_class = np.arange(rows.num_classes) == rows.target[:, None]
    means["brier"] = ((chances - is_class) ** 2).sum(axis=1)
    for k in (k for k in TOP_K if k < rows.num_classes):
        means[f"top_{k}_accuracy"] = is_among_top(chances, rows.target, k).astype(np.float64)
    means["class_distance"] = np.abs(rows.target - rows.predicted).astype(np.float64)
    of_classes = range(rows.num_classes) if rows.num_classes <= MOST_RANKED else ()
    return means, [_Ranked(chances[:, of], is_class[:, of]) for of in of_classes]


class _Sums:
    """Sums over the rows of columns, for many weightings at once."""

    def __init__(self, blocks: Mapping[str, Floats | csr_array]) -> None:
        """Take columns (n, c) by name."""
        self._dense = {name: block for name, block in blocks.items() if isinstance(block, np.ndarray)}
        self._sparse = {name: block for name, block in blocks.items() if not isinstance(block, np.ndarray)}
        self._columns = np.column_stack(list(self._dense.values()))
        self._ends = np.cumsum([block.shape[1] for block in self._dense.values()])[:-1]

    def __call__(self, weight: Floats) -> dict[str, Floats]:
        """Return the sums (r, c) by name, for weights (r, n)."""
        sums = dict(zip(self._dense, np.split(weight @ self._columns, self._ends, axis=1), strict=True))
        return sums | {name: np.asarray(weight @ block) for name, block in self._sparse.items()}


def _indicators(ids: NDArray[Any], size: int, values: Floats | None = None) -> Floats | csr_array:
    """Return (n, size): each row's value at its id, 1 unless given; zeros elsewhere."""
    each, places = np.ones(len(ids)) if values is None else values, np.arange(len(ids))
    if size > _MOST_DENSE:
        return csr_array((each, (places, ids)), shape=(len(ids), size))
    dense = np.zeros((len(ids), size))
    dense[places, ids] = each
    return dense


def _divided(part: Floats, whole: Floats, otherwise: float) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, otherwise), where=whole > 0))


def _mean_where(values: Floats, is_in: NDArray[np.bool_]) -> Floats:
    """Return the mean along each row of what is in (r,)."""
    return _divided(np.where(is_in, values, 0.0).sum(axis=1), is_in.sum(axis=1).astype(np.float64), np.nan)


def _of_counts(right: Floats, actual: Floats, predicted: Floats, names: tuple[str, ...]) -> dict[str, Floats]:
    """Return what counts of classes say, (r, K) each; `names` of the classes that have metrics of their own, if any."""
    precision, recall = _divided(right, predicted, np.nan), _divided(right, actual, np.nan)
    f1 = _divided(2 * right, actual + predicted, np.nan)
    occurs = (actual > 0) | (predicted > 0)
    found = {
        "balanced_accuracy": _mean_where(recall, actual > 0),
        "macro_precision": _mean_where(np.nan_to_num(precision), occurs),
        "macro_recall": _mean_where(np.nan_to_num(recall), occurs),
        "macro_f1": _mean_where(f1, occurs),
    }
    for place, name in enumerate(names):
        found |= {f"precision_{name}": precision[:, place], f"recall_{name}": recall[:, place]}
        found[f"f1_{name}"] = f1[:, place]
    return found


def _kappa(sums: Floats, total: Floats) -> Floats:
    """Return the quadratic kappa from sums of both ids, their squares and their squared difference (r, 5)."""
    by_chance = sums[:, 2] + sums[:, 3] - 2 * sums[:, 0] * sums[:, 1] / total
    return 1 - _divided(sums[:, 4], by_chance, np.nan)


class _Ranked:
    """Rows of one class, the events, against the others, in the order of their scores."""

    def __init__(self, scores: Floats, is_event: NDArray[np.bool_]) -> None:
        order = np.argsort(scores, kind="stable")
        self._events, self._others = order[is_event[order]], order[~is_event[order]]
        events, others = scores[self._events], scores[self._others]
        self._below, self._upto = (np.searchsorted(others, events, side) for side in ("left", "right"))
        """Other rows with lower scores than each event's, and with scores that are not higher."""
        self._first = np.searchsorted(events, events, "left")
        """First event of each event's score."""
        self._has_ties = bool((self._below != self._upto).any())

    def areas(self, weight: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the area under the ROC curve, the average precision and the weight of the class, (r,) each."""
        event, zero = weight[:, self._events], np.zeros((len(weight), 1))
        event_upto = np.hstack([zero, np.cumsum(event, axis=1)])
        other_upto = np.hstack([zero, np.cumsum(weight[:, self._others], axis=1)])
        num_event, num_other = event_upto[:, -1], other_upto[:, -1]
        below = other_upto[:, self._below]
        halves = (below + other_upto[:, self._upto]) / 2 if self._has_ties else below
        pairs = (event * halves).sum(axis=1)
        events_above = num_event[:, None] - event_upto[:, self._first]
        others_above = num_other[:, None] - below
        precision = (event * _divided(events_above, events_above + others_above, 0.0)).sum(axis=1)
        return _divided(pairs, num_event * num_other, np.nan), _divided(precision, num_event, np.nan), num_event


def _areas(rankings: list[_Ranked], weight: Floats, *, is_single: bool) -> dict[str, Floats]:
    parts = [ranked.areas(weight) for ranked in rankings]
    roc, precision, of_class = (np.column_stack(of) for of in zip(*parts, strict=True))  # (r, classes)
    if is_single:
        no_others = np.isnan(roc[:, 0])
        return {"roc_auc": roc[:, 0], "average_precision": np.where(no_others, np.nan, precision[:, 0])}
    present = of_class > 0
    is_defined = present.sum(axis=1) > 1
    shares = of_class / of_class.sum(axis=1, keepdims=True)
    found = {
        "roc_auc": _mean_where(roc, present),
        "roc_auc_weighted": np.where(present, roc * shares, 0.0).sum(axis=1),
        "average_precision": _mean_where(precision, present),
    }
    return {name: np.where(is_defined, value, np.nan) for name, value in found.items()}


def _of_numbers(task: RegressionTask, outputs: Floats, target: Floats) -> ByWeight:
    means = task.row_losses(outputs, target)
    order = np.argsort(means["mae"], kind="stable")
    absolute = means["mae"][order]
    centred = target - target.mean()
    columns = np.column_stack([*means.values(), centred, centred**2])

    def values(weight: Floats) -> dict[str, Floats]:
        sums = weight @ columns / weight.sum(axis=1, keepdims=True)
        found = dict(zip(means, sums.T, strict=False))
        first, second = sums[:, -2], sums[:, -1]
        found["r2"] = 1 - _divided(found["rmse"], second - first**2, np.nan)
        found["rmse"] = np.sqrt(found["rmse"])
        found["median_ae"] = _medians(absolute, weight[:, order])
        return found

    return values


def _medians(values: Floats, weight: Floats) -> Floats:
    """Return `weighted_median` by each weighting.

    Args:
        values: ascending (n,).
        weight: (r, n), in their order.
    """
    upto = np.cumsum(weight, axis=1)
    half = upto[:, -1:] / 2
    place = (upto >= half).argmax(axis=1)
    reached = np.take_along_axis(upto, place[:, None], axis=1)
    # Where the half of the weight falls between two rows; rows of weight 0 are none.
    after = (upto > reached).argmax(axis=1)
    is_between = np.isclose(reached, half, rtol=1e-12, atol=0.0)[:, 0]
    return np.asarray((values[place] + values[np.where(is_between, after, place)]) / 2)
