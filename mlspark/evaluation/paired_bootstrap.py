"""Differences of figures over resampled rows, the same rows of both models. Runs anywhere.

Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 16. The draws are those of scipy.stats.bootstrap
with `paired=True` and the same seed; as weights and not as places, thousands of resamples are a product of matrices.
"""

import numpy as np

from mlspark.evaluation.resampled_metrics import ByWeight
from mlspark.tasks.intervals import Floats, Interval

_CELLS = 2_000_000
"""Weights of rows that are held at a time."""


def resampled_values(
    statistics: tuple[ByWeight, ...], weight: Floats, *, resamples: int, seed: int
) -> tuple[dict[str, Floats], ...]:
    """Return each function's figures over the same resamples, by name: (resamples,) each.

    Args:
        statistics: functions of weights (r, n).
        weight: of the rows themselves (n,).
        resamples: R.
        seed: of the draws.
    """
    count, random = len(weight), np.random.default_rng(seed)
    at_once = max(1, _CELLS // count)
    parts: list[list[dict[str, Floats]]] = [[] for _ in statistics]
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        places = random.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        weights = np.bincount(places.ravel(), minlength=size * count).reshape(size, count) * weight
        for part, function in zip(parts, statistics, strict=True):
            part.append(function(weights))
    return tuple({name: np.concatenate([values[name] for values in part]) for name in part[0]} for part in parts)


def interval(resampled: Floats, *, confidence: float) -> Interval | None:
    """Return the percentile interval; resamples without a value are left out, None without any."""
    values = resampled[np.isfinite(resampled)]
    if not len(values):
        return None
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def p_value(resampled: Floats) -> float | None:
    """Return the probability that the sign of a difference is by chance, two-sided; None without any value.

    Twice the smaller share of resamples beyond 0, where one more than were drawn count on either side: never 0.
    """
    values = resampled[np.isfinite(resampled)]
    if not len(values):
        return None
    beyond = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, 2 * (1 + beyond) / (1 + len(values)))
