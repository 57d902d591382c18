"""What became of each row of a split, and what that says of a classifier or of predicted numbers. Numpy only.

Figures count rows by their sample weights, as the metrics do; rows of weight 0 are left out.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlspark.tasks.binary import BinaryTask, probabilities
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.intervals import Floats, Interval, effective_rows, mean_interval, wilson_interval
from mlspark.tasks.metrics import CALIBRATION_BINS, ClassCounts, Ints, Metric, calibration_bins, f1
from mlspark.tasks.multiclass import log_softmax, softmax
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import outputs_of

_TENTHS = 10


@dataclass(frozen=True)
class Classified:
    """Rows of a classifier."""

    num_classes: int
    target: Ints
    """(n,): class ids, places in the task's classes."""
    predicted: Ints
    """(n,): class ids."""
    probability: Floats
    """(n,): of the predicted class."""
    true_probability: Floats
    """(n,): of the true class."""
    runner_up: Ints
    """(n,): the class that a prediction is held against: the true one, or where that is predicted the next probable."""
    loss: Floats
    """(n,): minus the logarithm of the true class's probability."""
    event_probability: Floats
    """(n,): what calibration is about: probability of the event class, or with several classes of the predicted one."""
    is_event: NDArray[np.bool_]
    """(n,): whether the row is of the event class, or with several classes whether the prediction is right."""
    weight: Floats
    """(n,)."""

    @cached_property
    def scale(self) -> float:
        """Effective rows for each unit of weight."""
        return effective_rows(self.weight) / float(self.weight.sum())

    @cached_property
    def confusion(self) -> Floats:
        """Weight of the rows of each true class (rows) by predicted class (columns): (K, K)."""
        places = self.target * self.num_classes + self.predicted
        counts = np.bincount(places, self.weight, self.num_classes**2).astype(np.float64)
        return counts.reshape(self.num_classes, self.num_classes)

    def confused(self, most: int) -> list[tuple[int, int, float]]:
        """Return (true class, predicted class, weight) of the most frequent mistakes, the most frequent first."""
        places = self.target * self.num_classes + self.predicted
        is_wrong = self.target != self.predicted
        cells, cell_of_row = np.unique(places[is_wrong], return_inverse=True)
        weights = np.bincount(cell_of_row, self.weight[is_wrong], len(cells))
        order = np.lexsort([cells, -weights])[:most]
        return [(*divmod(int(cells[place]), self.num_classes), float(weights[place])) for place in order]

    def by_class(self) -> list["ClassFigures"]:
        """Return the figures of each class."""
        counts = ClassCounts.of(self.target, self.predicted, self.weight, self.num_classes)
        figures = []
        for right, actual, predicted in zip(counts.right, counts.actual, counts.predicted, strict=True):
            precision, recall = (_share(float(right), float(whole), self.scale) for whole in (predicted, actual))
            of_both = f1(float(right), float(actual), float(predicted), self.scale)
            figures.append(ClassFigures(float(actual), float(predicted), precision, recall, of_both))
        return figures

    def reliability(self) -> list["Bin"]:
        """Return the bins of the calibration error that hold rows, the least probability first."""
        bins = calibration_bins(self.event_probability)
        found = []
        for place in range(CALIBRATION_BINS):
            is_in = bins == place
            weight = self.weight[is_in]
            if total := float(weight.sum()):
                share = float(weight[self.is_event[is_in]].sum()) / total
                mean = float((weight * self.event_probability[is_in]).sum()) / total
                found.append(Bin(place, total, mean, share, wilson_interval(share, effective_rows(weight))))
        return found


class ClassFigures(NamedTuple):
    """Figures of one class."""

    actual: float
    """Weight of its rows."""
    predicted: float
    """Weight of the rows that are predicted as it."""
    precision: Metric
    recall: Metric
    f1: Metric


class Bin(NamedTuple):
    """Rows of about the same predicted probability."""

    place: int
    """Number of the bin, of CALIBRATION_BINS."""
    weight: float
    mean: float
    """Mean of the predicted probabilities."""
    share: float
    """Share of events among the rows."""
    interval: Interval
    """Of the share."""


class Curve(NamedTuple):
    """What each threshold gives: points from the highest threshold to the lowest."""

    threshold: Floats
    recall: Floats
    """Share of the event's rows at or above the threshold."""
    fall_out: Floats
    """Share of the other rows at or above it."""
    precision: Floats
    """Share of the event's rows among those at or above it."""


def classified(task: ClassTask, outputs: ArrayLike, target: ArrayLike, weight: ArrayLike | None) -> Classified:
    """Return what became of rows that count: those of a weight above 0.

    Args:
        task: resolved.
        outputs: (n, O) of the model.
        target: (n,) of the feature table's `label`.
        weight: (n,) sample weights; None: all weigh the same.
    """
    values, labels = outputs_of(task, outputs), np.asarray(target)
    weights = np.ones(len(labels)) if weight is None else np.asarray(weight, np.float64)
    if isinstance(task, BinaryTask):
        event = task.known_classes.index(task.event_class)
        logits = values[:, 0]
        of_event = probabilities(logits)
        chances = np.empty((len(logits), 2))
        chances[:, event], chances[:, 1 - event] = of_event, probabilities(-logits)
        ids = np.where(labels > 0.5, event, 1 - event)
        predicted = np.where(of_event >= task.threshold, event, 1 - event)
        loss = np.logaddexp(0.0, np.where(labels > 0.5, -logits, logits))
        runner_up = 1 - predicted
        about, is_event = of_event, labels > 0.5
    else:
        ids, rows = labels.astype(np.int64), np.arange(len(labels))
        loss = -log_softmax(values)[rows, ids]
        chances = softmax(values)
        predicted = chances.argmax(axis=1)
        about, is_event = chances[rows, predicted], predicted == ids
        chances[rows, predicted] = -1.0  # not a copy: of many classes it would take gigabytes
        runner_up = np.where(is_event, chances.argmax(axis=1), ids)
        chances[rows, predicted] = about
    rows, counts = np.arange(len(ids)), weights > 0
    return Classified(
        len(task.known_classes),
        target=ids.astype(np.int64)[counts],
        predicted=predicted.astype(np.int64)[counts],
        probability=chances[rows, predicted][counts],
        true_probability=chances[rows, ids][counts],
        runner_up=runner_up.astype(np.int64)[counts],
        loss=loss[counts],
        event_probability=about[counts],
        is_event=is_event[counts],
        weight=weights[counts],
    )


def curve(rows: Classified) -> Curve | None:
    """Return the points of the ROC and precision-recall curves of an event; None where all rows are of one kind."""
    order = np.argsort(-rows.event_probability, kind="stable")
    scores, events = rows.event_probability[order], rows.is_event[order]
    weight = rows.weight[order]
    if not len(events) or events.all() or not events.any():
        return None
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # equal scores pass a threshold together
    event, other = np.cumsum(weight * events)[last], np.cumsum(weight * ~events)[last]
    return Curve(scores[last], event / event[-1], other / other[-1], event / (event + other))


@dataclass(frozen=True)
class Estimated:
    """Rows of predicted numbers."""

    target: Floats
    """(n,)."""
    predicted: Floats
    """(n,), in the target's own unit."""
    weight: Floats
    """(n,)."""

    @cached_property
    def error(self) -> Floats:
        """Prediction less target: above 0 where it is too high."""
        return self.predicted - self.target

    def by_tenth(self) -> list["Tenth"]:
        """Return figures of tenths of the rows, by prediction; equal predictions may fall into two. Fewer of few rows."""
        order = np.argsort(self.predicted, kind="stable")
        parts = [part for part in np.array_split(order, min(_TENTHS, len(order))) if len(part)]
        return [self._tenth(part) for part in parts]

    def _tenth(self, rows: NDArray[np.intp]) -> "Tenth":
        weight, error = self.weight[rows], self.error[rows]

        def mean(values: Floats) -> float:
            return float((weight * values).sum() / weight.sum())

        return Tenth(
            len(rows),
            mean(self.predicted[rows]),
            mean(self.target[rows]),
            Metric(mean(error), mean_interval(error, weight)),
            Metric(mean(np.abs(error)), mean_interval(np.abs(error), weight, low=0.0)),
        )


class Tenth(NamedTuple):
    """Rows of similar predictions."""

    num_rows: int
    predicted: float
    """Mean prediction."""
    target: float
    """Mean of the true numbers."""
    bias: Metric
    """Mean of prediction less target."""
    absolute: Metric
    """Mean absolute error."""


def estimated(task: RegressionTask, outputs: ArrayLike, target: ArrayLike, weight: ArrayLike | None) -> Estimated:
    """Return what became of rows that count; arguments as for `classified`."""
    values, numbers = task.predictions(outputs)["prediction"], np.asarray(target, np.float64)
    weights = np.ones(len(numbers)) if weight is None else np.asarray(weight, np.float64)
    counts = weights > 0
    return Estimated(numbers[counts], values[counts], weights[counts])


def _share(part: float, whole: float, scale: float) -> Metric:
    if whole <= 0:
        return Metric(None, None)
    return Metric(part / whole, wilson_interval(part / whole, whole * scale))
