"""Metrics of classifiers, from rows in an order of their own; see `metrics`. Numpy float64 only."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlspark.tasks.intervals import (
    Floats,
    auc_interval,
    bootstrap,
    effective_rows,
    mean_of_shares_interval,
    normal_interval,
    standard_error,
    wilson_interval,
)
from mlspark.tasks.metrics import (
    ClassCounts,
    Ints,
    Metric,
    Ranking,
    calibration_bins,
    calibration_error,
    f1,
    quadratic_kappa,
    ranking,
    share,
    weighted_counts,
)

TOP_K = (2, 5)
OF_CLASSES = ("precision_", "recall_", "f1_", *(f"top_{k}_accuracy" for k in TOP_K))
"""What the names of those metrics begin with that depend on the classes."""
MOST_SINGLE = 100
"""Classes up to which each has metrics of its own."""
NONE = Metric(None, None)


def prediction_metrics(target: Ints, predicted: Ints, weight: Floats, names: Sequence[str]) -> dict[str, Metric]:
    """Return accuracy, balanced accuracy, macro precision and recall, and precision, recall and F1 of each class.

    The mean of the recalls of the classes that have rows is the balanced accuracy; macro figures also count classes that
    are predicted only, as 0.

    Args:
        target: class ids (n,).
        predicted: class ids (n,).
        weight: (n,).
        names: of the classes.
    """
    counts = ClassCounts.of(target, predicted, weight, len(names))
    scale = effective_rows(weight) / float(weight.sum())
    precision, recall = _shares(counts.right, counts.predicted, scale), _shares(counts.right, counts.actual, scale)
    macro_precision, macro_recall, _ = counts.macro()
    occurs = (counts.actual > 0) | (counts.predicted > 0)
    metrics = {
        "accuracy": share(target == predicted, weight),
        "balanced_accuracy": _mean_share([metric for metric in recall if metric.value is not None]),
        "macro_precision": Metric(macro_precision, _mean_share(_or_zero(precision, occurs)).interval),
        "macro_recall": Metric(macro_recall, _mean_share(_or_zero(recall, occurs)).interval),
    }
    if len(names) <= MOST_SINGLE:
        for place, name in enumerate(names):
            metrics[f"precision_{name}"] = precision[place]
            metrics[f"recall_{name}"] = recall[place]
            right, actual, guessed = (float(part[place]) for part in (counts.right, counts.actual, counts.predicted))
            metrics[f"f1_{name}"] = f1(right, actual, guessed, scale)
    return metrics


def _shares(parts: Floats, totals: Floats, scale: float) -> list[Metric]:
    return [
        Metric(value := float(part / total), wilson_interval(value, float(total * scale))) if total > 0 else NONE
        for part, total in zip(parts, totals, strict=True)
    ]


def _or_zero(shares: Sequence[Metric], occurs: NDArray[np.bool_]) -> list[Metric]:
    """Return the shares of the classes that occur; one without rows counts as 0, and may be anything."""
    return [
        metric if metric.value is not None else Metric(0.0, (0.0, 1.0))
        for metric, is_in in zip(shares, occurs, strict=True)
        if is_in
    ]


def _mean_share(shares: Sequence[Metric]) -> Metric:
    if not shares:
        return NONE
    values = np.array([metric.value for metric in shares], np.float64)
    lows, highs = np.array([metric.interval for metric in shares], np.float64).T
    return Metric(float(values.mean()), mean_of_shares_interval(values, lows, highs))


def resampled_metrics(
    target: Ints,
    predicted: Ints,
    probability: Floats,
    is_event: NDArray[np.bool_],
    weight: Floats,
    *,
    num_classes: int,
    is_ordered: bool,
    intervals: bool,
) -> dict[str, Metric]:
    """Return macro F1 and expected calibration error, of ordered classes also the quadratic kappa.

    Args:
        target: class ids (n,).
        predicted: class ids (n,).
        probability: of the event (n,): the event class, or that the prediction is right.
        is_event: (n,).
        weight: (n,).
        num_classes: K.
        is_ordered: whether class ids are ranks.
        intervals: whether to resample.
    """
    bins, differences = calibration_bins(probability), probability - is_event
    # Cells of the confusion matrix that have rows: a resample counts each row once, not once for each figure.
    cells, cell_of_row = np.unique(target * num_classes + predicted, return_inverse=True)
    cell_targets, cell_predictions = np.divmod(cells, num_classes)

    def statistics(weights: Floats) -> tuple[float, ...]:
        counts = weighted_counts(cell_of_row, weights, len(cells))
        macro_f1 = ClassCounts.of(cell_targets, cell_predictions, counts, num_classes).macro()[2]
        values = macro_f1, calibration_error(bins, differences, weights)
        return (*values, quadratic_kappa(cell_targets, cell_predictions, counts)) if is_ordered else values

    bounds = {"macro_f1": (0.0, 1.0), "calibration_error": (0.0, 1.0), "quadratic_kappa": (-1.0, 1.0)}
    values = statistics(weight)
    limits = bootstrap(statistics, weight, values) if intervals else [None] * len(values)
    metrics = {}
    for (name, (lowest, highest)), value, limit in zip(bounds.items(), values, limits, strict=False):
        interval = None if limit is None else (max(lowest, limit[0]), min(highest, limit[1]))
        metrics[name] = Metric(value, interval) if math.isfinite(value) else NONE
    return metrics


def event_ranking(scores: Floats, is_event: NDArray[np.bool_], weight: Floats) -> dict[str, Metric]:
    """Return the areas under the ROC curve and under the precision-recall steps of one class against the others."""
    if is_event.all() or not is_event.any():
        return {"roc_auc": NONE, "average_precision": NONE}
    result = ranking(scores, is_event, weight)
    interval = (
        auc_interval(result.auc, result.event_shares, result.other_shares)
        if (weight == 1.0).all()
        else _auc_interval([result], is_event[:, None], weight, np.ones(1))
    )
    return {"roc_auc": Metric(result.auc, interval), "average_precision": _average_precision(result, weight[is_event])}


def _average_precision(result: Ranking, weight: Floats) -> Metric:
    # Boyd, Eng, Page (2013, ECML PKDD, 451-466): as a share of the event's rows.
    value = result.average_precision
    return Metric(value, wilson_interval(min(value, 1.0), effective_rows(weight)))


def class_rankings(scores: Floats, target: Ints, weight: Floats) -> dict[str, Metric]:
    """Return areas of each class against the others, averaged over the classes that have rows: evenly, or by their rows.

    Args:
        scores: probability of each class (n, K).
        target: class ids (n,).
        weight: (n,).
    """
    present = np.unique(target)
    if len(present) < 2:
        return {"roc_auc": NONE, "roc_auc_weighted": NONE, "average_precision": NONE}
    is_event = target[:, None] == present  # (n, present)
    results = [ranking(scores[:, of], is_event[:, place], weight) for place, of in enumerate(present)]
    areas = np.array([result.auc for result in results])
    shares = np.array([weight[is_event[:, place]].sum() for place in range(len(present))]) / weight.sum()
    precisions = [_average_precision(result, weight[is_event[:, place]]) for place, result in enumerate(results)]
    even = np.full(len(present), 1 / len(present))
    return {
        "roc_auc": Metric(float(areas.mean()), _auc_interval(results, is_event, weight, even)),
        "roc_auc_weighted": Metric(float((areas * shares).sum()), _auc_interval(results, is_event, weight, shares)),
        "average_precision": _mean_share(precisions),
    }


def _auc_interval(
    results: Sequence[Ranking], is_event: NDArray[np.bool_], weight: Floats, factors: Floats
) -> tuple[float, float]:
    """Return the interval of a weighted mean of areas over the same rows, from what each row adds to it.

    For one area of rows without weights it is DeLong's, but for (n - 1) of both classes together.
    """
    if min(is_event.sum(axis=0).min(), (~is_event).sum(axis=0).min()) < 2:
        return 0.0, 1.0
    influence = np.zeros(len(weight))
    for place, result in enumerate(results):
        events = is_event[:, place]
        weights, others = weight[events], weight[~events]
        influence[events] += factors[place] * weights * (result.event_shares - result.auc) / weights.sum()
        influence[~events] += factors[place] * others * (result.other_shares - result.auc) / others.sum()
    auc = float(sum(factor * result.auc for factor, result in zip(factors, results, strict=True)))
    return normal_interval(auc, standard_error(influence), low=0.0, high=1.0)


def top_shares(probability: Floats, target: Ints, weight: Floats) -> dict[str, Metric]:
    """Return the shares of rows whose class is among the k most probable, for k of TOP_K below the number of classes."""
    above = _more_probable(probability, target)
    return {f"top_{k}_accuracy": share(above < k, weight) for k in TOP_K if k < probability.shape[1]}


def is_among_top(probability: Floats, target: Ints, k: int) -> NDArray[np.bool_]:
    """Return whether each row's class is among its k most probable (n,)."""
    return np.asarray(_more_probable(probability, target) < k)


def _more_probable(probability: Floats, target: Ints) -> Ints:
    """Return the number of classes that are more probable than the row's own (n,)."""
    of_class = probability[np.arange(len(target)), target][:, None]
    later = np.arange(probability.shape[1]) > target[:, None]
    # Of equally probable classes the later one comes first, as in scikit-learn.
    return np.asarray(((probability > of_class) | ((probability == of_class) & later)).sum(axis=1), np.int64)


def single_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the metrics of each class."""
    if len(names) > MOST_SINGLE:
        return ()
    return tuple(f"{what}_{name}" for name in names for what in ("precision", "recall", "f1"))
