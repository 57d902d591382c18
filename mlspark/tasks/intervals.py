"""95 % intervals of shares, means, areas and whatever can be resampled. Numpy float64 only.

scipy has the Wilson interval and a bootstrap too: these keep the bits of earlier versions' figures, weigh rows, and
resample many statistics of 16,000 rows 1,000 times in a quarter of a second.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Z95 = NormalDist().inv_cdf(0.975)
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""


def wilson_interval(share: float, trials: float) -> Interval:
    """Return the score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    Args:
        share: successes / trials.
        trials: rows; of weighted rows their `effective_rows`.
    """
    z2 = Z95**2
    centre = share + z2 / (2 * trials)
    half = Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, (centre - half) / (1 + z2 / trials)), min(1.0, (centre + half) / (1 + z2 / trials))


def effective_rows(weight: Floats) -> float:
    """Return how many rows of equal weight are as good as these (Kish 1965): n where all weigh the same."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def mean_of_shares_interval(shares: Floats, lows: Floats, highs: Floats) -> Interval:
    """Return the interval of the mean of independent shares from the interval of each.

    Variance estimates recovered from the limits (Zou, Donner 2008, Statistics in Medicine 27, 1693-1702).
    """
    mean = float(shares.mean())
    below = math.sqrt(float(((shares - lows) ** 2).sum())) / len(shares)
    above = math.sqrt(float(((highs - shares) ** 2).sum())) / len(shares)
    return max(0.0, mean - below), min(1.0, mean + above)


def mean_interval(values: Floats, weight: Floats, *, low: float = -math.inf, high: float = math.inf) -> Interval | None:
    """Return the interval of the weighted mean by its robust standard error, cut to [low, high]; None for one row."""
    if len(values) < 2:
        return None
    mean = float((weight * values).sum() / weight.sum())
    return normal_interval(mean, standard_error(weight * (values - mean) / weight.sum()), low=low, high=high)


def standard_error(influence: Floats) -> float:
    """Return the standard error of a statistic from what each row adds to it; at least two rows."""
    count = len(influence)
    return math.sqrt(float((influence**2).sum()) * count / (count - 1))


def normal_interval(value: float, error: float, *, low: float = -math.inf, high: float = math.inf) -> Interval:
    """Return value -+ 1.96 standard errors, cut to [low, high]."""
    return max(low, value - Z95 * error), min(high, value + Z95 * error)


def median_interval(values: Floats, weight: Floats) -> Interval:
    """Return the interval of the median by order statistics: free of the values' distribution."""
    order = np.argsort(values, kind="stable")
    shares = np.cumsum(weight[order]) / weight.sum()
    half = Z95 * 0.5 / math.sqrt(effective_rows(weight))
    places = np.searchsorted(shares, [0.5 - half, 0.5 + half]).clip(0, len(values) - 1)
    low, high = values[order][places]
    return float(low), float(high)


def auc_interval(auc: float, event_shares: Floats, other_shares: Floats) -> Interval:
    """Return DeLong's interval of an area under the ROC curve, cut to [0, 1].

    DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44, 837-845. With a single row of a class the variance cannot be
    estimated and the interval is [0, 1].

    Args:
        auc: the area.
        event_shares: for each row of the event class, the share of other rows that it stands above.
        other_shares: for each other row, the share of rows of the event class that stand above it.
    """
    if min(len(event_shares), len(other_shares)) < 2:
        return 0.0, 1.0
    # Sorted, so that the order of the rows changes no bit.
    variance = np.sort(event_shares).var(ddof=1) / len(event_shares)
    variance += np.sort(other_shares).var(ddof=1) / len(other_shares)
    return normal_interval(auc, math.sqrt(variance), low=0.0, high=1.0)


def bootstrap(
    statistics: Callable[[Floats], tuple[float, ...]],
    weight: Floats,
    values: tuple[float, ...],
    *,
    seed: int = 20_240_229,
) -> list[Interval | None]:
    """Return the interval of each statistic over resampled rows (Efron 1979, Annals of Statistics 7, 1-26).

    Percentiles, moved by the bias that the resamples show: the calibration error of a resample is larger than that of
    the rows themselves, by as much as its value. 1,000 resamples, fewer (at least 200) from 20,000 rows on. Resampling
    multiplies weights, so a statistic sorts its rows once. The same rows in the same order yield the same bits.

    Args:
        statistics: of the weight of each row (n,) -> values, NaN where a value cannot be computed.
        weight: of the rows themselves.
        values: the statistics of the rows themselves.
        seed: of the resamples.
    """
    count = len(weight)
    random = np.random.default_rng(seed)
    resamples = int(np.clip(20_000_000 // count, 200, 1000))
    resampled = np.array(
        [
            statistics(weight * np.bincount(random.integers(0, count, count, dtype=np.int32), minlength=count))
            for _ in range(resamples)
        ]
    )
    return [_unbiased(column[np.isfinite(column)], value) for column, value in zip(resampled.T, values, strict=True)]


def _unbiased(resampled: Floats, value: float) -> Interval | None:
    if not len(resampled) or not math.isfinite(value):
        return None
    low, high = np.quantile(resampled, [0.025, 0.975]) - (resampled.mean() - value)
    return min(float(low), value), max(float(high), value)
