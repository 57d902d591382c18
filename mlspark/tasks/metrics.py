"""Metrics of a split: exact, over all rows together, with 95 % intervals. Numpy float64 only.

Rows are put in an order of their own (`sorted_rows`) before anything is summed: the order in which they come, and so the
number of ranks, changes no bit. Every value equals scikit-learn's; scikit-learn itself sums in the order of the rows and has
no intervals.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlspark.errors import MlsparkError
from mlspark.tasks.intervals import Floats, Interval, effective_rows, mean_interval, wilson_interval

Ints = NDArray[np.int64]

LOWER_IS_BETTER = frozenset(
    ("log_loss", "brier", "calibration_error", "class_distance", "rmse", "mae", "median_ae", "mape", "pinball")
)
"""All other metrics are better the higher they are."""

_INTERVAL = "_interval"
_TITLES = {
    "roc_auc": "ROC AUC",
    "roc_auc_weighted": "weighted ROC AUC",
    "macro_f1": "macro F1",
    "brier": "Brier score",
    "rmse": "RMSE",
    "mae": "MAE",
    "median_ae": "median AE",
    "r2": "R2",
    "mape": "MAPE",
    "pinball": "pinball loss",
}
_CLASS_TITLES = {"precision": "precision", "recall": "recall", "f1": "F1"}


def title(name: str) -> str:
    """Return what people call metric `name`: "ROC AUC", "log loss", "F1 of CLASS"."""
    of_class, _, class_name = name.partition("_")
    if of_class in _CLASS_TITLES:
        return f"{_CLASS_TITLES[of_class]} of {class_name}"
    return _TITLES.get(name, name.replace("_", " "))


class Metric(NamedTuple):
    """One figure of a split."""

    value: float | None
    """None where it cannot be computed, like the area under the ROC curve of rows of one class."""
    interval: Interval | None
    """95 % confidence interval; None without a value, and where it was not asked for or cannot be estimated."""


@dataclass(frozen=True)
class Metrics:
    """All figures of a split, by name."""

    num_rows: int
    values: Mapping[str, Metric]

    def __getitem__(self, name: str) -> float | None:
        return self.values[name].value

    def to_json(self) -> dict[str, Any]:
        """Return {"num_rows", NAME: value or None, NAME_interval: [low, high] or None, ...}."""
        flat: dict[str, Any] = {"num_rows": self.num_rows}
        for name, (value, interval) in self.values.items():
            flat[name] = value
            flat[name + _INTERVAL] = None if interval is None else list(interval)
        return flat

    @classmethod
    def from_json(cls, flat: Mapping[str, Any]) -> "Metrics":
        """Return what `to_json` wrote."""
        names = [name for name in flat if name + _INTERVAL in flat]
        intervals = {name: flat[name + _INTERVAL] for name in names}
        return cls(
            num_rows=flat["num_rows"],
            values={
                name: Metric(flat[name], None if (pair := intervals[name]) is None else (pair[0], pair[1]))
                for name in names
            },
        )


class Rows(NamedTuple):
    """Rows of a split that count, in the order of their own."""

    outputs: Floats
    """Outputs of the model (n, O)."""
    target: Floats
    """Target (n,)."""
    weight: Floats
    """Sample weights (n,), above 0; all 1 without a weight column."""


def sorted_rows(outputs: Floats, target: ArrayLike, weight: ArrayLike | None) -> Rows:
    """Return the rows of a weight above 0, sorted by all that they hold: equal sets of rows come out equal.

    Raises:
        MlsparkError: a weight is below 0 or not finite.
    """
    targets = np.asarray(target, np.float64)
    weights = np.ones(len(targets)) if weight is None else np.asarray(weight, np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise MlsparkError("sample weights must be finite and at least 0; correct the column that task.weight names")
    rows = np.column_stack([targets, weights, outputs])
    # Compared as bytes: any order does that depends on the values alone, and this one takes 2 ms for 16,000 rows.
    order = np.argsort(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel(), kind="stable")
    order = order[weights[order] > 0]
    return Rows(np.ascontiguousarray(outputs[order]), targets[order], weights[order])


def share(is_counted: NDArray[np.bool_], weight: Floats) -> Metric:
    """Return the weighted share of rows that count, with Wilson's interval; None without rows."""
    if not len(weight):
        return Metric(None, None)
    value = float(weight[is_counted].sum() / weight.sum())
    return Metric(value, wilson_interval(value, effective_rows(weight)))


def mean(values: Floats, weight: Floats, *, low: float = 0.0, high: float = math.inf) -> Metric:
    """Return the weighted mean of a figure of each row, with the interval of its robust standard error."""
    if (weight == 1.0).all():
        value = float(np.sort(values).sum() / len(values))
    else:
        value = float((weight * values).sum() / weight.sum())
    return Metric(value, mean_interval(values, weight, low=low, high=high))


def weighted_counts(places: NDArray[np.integer[Any]], weight: Floats, size: int) -> Floats:
    """Return the weight at each place from 0 to size - 1."""
    return np.bincount(places, weight, size).astype(np.float64, copy=False)


@dataclass(frozen=True)
class ClassCounts:
    """Weighted rows of each class: (K,) each."""

    right: Floats
    """Rows of the class that are predicted as such."""
    actual: Floats
    predicted: Floats

    @classmethod
    def of(cls, target: Ints, predicted: Ints, weight: Floats, num_classes: int) -> "ClassCounts":
        right = target == predicted
        return cls(
            weighted_counts(target[right], weight[right], num_classes),
            weighted_counts(target, weight, num_classes),
            weighted_counts(predicted, weight, num_classes),
        )

    def macro(self) -> tuple[float, float, float]:
        """Return precision, recall and F1, each the mean over the classes that occur; 0 where one has no rows."""
        occurs = (self.actual > 0) | (self.predicted > 0)
        right, actual, predicted = self.right[occurs], self.actual[occurs], self.predicted[occurs]
        precision = right / np.where(predicted > 0, predicted, 1.0)
        recall = right / np.where(actual > 0, actual, 1.0)
        return float(precision.mean()), float(recall.mean()), float((2 * right / (actual + predicted)).mean())


def f1(right: float, actual: float, predicted: float, scale: float) -> Metric:
    """Return the F1 of one class; None where it neither occurs nor is predicted.

    F1 = 2 J / (1 + J) with J the share of right rows among those that are of the class or predicted as such: the limits are
    those of Wilson's interval of J.

    Args:
        scale: effective rows / weight of all rows.
    """
    either = actual + predicted - right
    if either <= 0:
        return Metric(None, None)
    low, high = wilson_interval(right / either, either * scale)
    return Metric(2 * right / (actual + predicted), (2 * low / (1 + low), 2 * high / (1 + high)))


class Ranking(NamedTuple):
    """How the scores order the rows of one class against the others."""

    auc: float
    event_shares: Floats
    """For each row of the class, the share of the others' weight below it, ties counting half."""
    other_shares: Floats
    """For each other row, the share of the class's weight above it."""
    average_precision: float


def ranking(scores: Floats, is_event: NDArray[np.bool_], weight: Floats) -> Ranking:
    """Return areas under the ROC curve and the precision-recall steps; rows of both sides must be there."""
    _, group = np.unique(scores, return_inverse=True)
    event = np.bincount(group, weight * is_event)
    other = np.bincount(group, weight * ~is_event)
    num_event, num_other = event.sum(), other.sum()
    other_below = np.cumsum(other) - other / 2
    event_above = num_event - np.cumsum(event) + event / 2
    # Divided last: without weights the sum is of halves, and exact.
    auc = float((weight[is_event] * other_below[group[is_event]]).sum() / (num_event * num_other))
    events_selected = np.cumsum(event[::-1])
    precision = events_selected / np.cumsum((event + other)[::-1])
    return Ranking(
        auc,
        other_below[group[is_event]] / num_other,
        event_above[group[~is_event]] / num_event,
        float((event[::-1] * precision).sum() / num_event),
    )


CALIBRATION_BINS = 10


def calibration_bins(probability: Floats) -> NDArray[np.intp]:
    """Return which of 10 bins of equal width each probability is in; a bound belongs to the bin below it."""
    return np.searchsorted(np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)[1:-1], probability)


def calibration_error(bins: NDArray[np.intp], differences: Floats, weight: Floats) -> float:
    """Return the expected calibration error: how far a bin's mean probability is from its share of events, on average.

    A bin weighs as its rows do (Naeini, Cooper, Hauskrecht 2015, AAAI, 2901-2907).

    Args:
        bins: from `calibration_bins` (n,).
        differences: probability of the event less 1 where it is one (n,).
        weight: (n,).
    """
    return float(np.abs(np.bincount(bins, weight * differences, CALIBRATION_BINS)).sum() / weight.sum())


def quadratic_kappa(target: Ints, predicted: Ints, weight: Floats) -> float:
    """Return Cohen's kappa with quadratic weights (Cohen 1968); NaN where all rows are of one class and predicted so."""
    total = weight.sum()
    first, second = target.astype(np.float64), predicted.astype(np.float64)
    by_chance = (weight * first**2).sum() + (weight * second**2).sum()
    by_chance -= 2 * (weight * first).sum() * (weight * second).sum() / total
    return float(1 - (weight * (first - second) ** 2).sum() / by_chance) if by_chance > 0 else math.nan


def weighted_median(values: Floats, weight: Floats) -> float:
    """Return the value with half of the weight on each side; the mean of two where the half falls between them."""
    order = np.argsort(values, kind="stable")
    upto, half = np.cumsum(weight[order]), weight.sum() / 2
    place = int(np.searchsorted(upto, half))
    after = min(place + 1, len(values) - 1) if math.isclose(upto[place], half, rel_tol=1e-12) else place
    return float((values[order[place]] + values[order[after]]) / 2)
