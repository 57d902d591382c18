"""Whether one of two scores ranks the same rows better: the areas under their ROC curves. Runs anywhere.

DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44, 837-845; computed from mid-ranks (Sun, Xu 2014, IEEE Signal Processing
Letters 21, 1389-1393), so that n rows take a sort and not a table of all pairs.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlspark.tasks.intervals import Interval
from mlspark.tasks.metrics import ranking


@dataclass(frozen=True)
class DeLong:
    """DeLong's test of two areas under the ROC curve of the same rows."""

    first: float
    """Area of the first score."""
    second: float
    difference: float
    """Second less first."""
    standard_error: float
    """Of the difference; 0 where both scores put the rows in one order."""
    z: float
    p_value: float
    """Probability of a difference as large as this, were the areas equal; 1 where both put the rows in one order."""
    interval: Interval
    """Of the difference, by the normal distribution."""


def delong(first: ArrayLike, second: ArrayLike, is_event: ArrayLike, *, confidence: float = 0.95) -> DeLong | None:
    """Return the test of two scores; None where a class has fewer than two rows, so that nothing is known of its spread.

    Args:
        first: scores of the first model (n,), the higher the more probable the event.
        second: scores of the second model (n,), of the same rows.
        is_event: whether each row is of the event (n,).
        confidence: of the interval.
    """
    from scipy.stats import norm  # here: it takes a second, and most jobs that import this compare nothing

    events = np.asarray(is_event, bool)
    if min(events.sum(), (~events).sum()) < 2:
        return None
    each = np.ones(len(events))
    one, other = (ranking(np.asarray(scores, np.float64), events, each) for scores in (first, second))
    difference = other.auc - one.auc
    variance = float(np.var(other.event_shares - one.event_shares, ddof=1) / events.sum())
    variance += float(np.var(other.other_shares - one.other_shares, ddof=1) / (~events).sum())
    error = math.sqrt(variance)
    z = difference / error if error > 0 else 0.0
    # Scores that differ by a constant number of pairs for each row have no spread and yet a difference.
    p_value = float(2 * norm.sf(abs(z))) if error > 0 else float(difference == 0)
    half = float(norm.ppf(0.5 + confidence / 2)) * error
    return DeLong(one.auc, other.auc, difference, error, z, p_value, (difference - half, difference + half))
