"""Metrics of a binary classifier over all rows of a split: exact, not averages of batches. Numpy float64 only.

Every sum is over sorted or whole-number values: the order of the rows, and so the number of ranks, changes no bit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
_Z95 = NormalDist().inv_cdf(0.975)  # two-sided 95 %


@dataclass(frozen=True)
class BinaryMetrics:
    """Accuracy, area under the ROC curve and log loss of one split, with 95 % intervals."""

    num_rows: int
    accuracy: float
    accuracy_interval: Interval
    roc_auc: float | None
    """None when all rows are of one class."""
    roc_auc_interval: Interval | None
    log_loss: float
    """Mean of -ln(probability given to the true class), in nats."""

    def to_json(self) -> dict[str, Any]:
        return {
            "num_rows": self.num_rows,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "roc_auc": self.roc_auc,
            "roc_auc_interval": None if self.roc_auc_interval is None else list(self.roc_auc_interval),
            "log_loss": self.log_loss,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "BinaryMetrics":
        auc_interval = value["roc_auc_interval"]
        return cls(
            num_rows=value["num_rows"],
            accuracy=value["accuracy"],
            accuracy_interval=(value["accuracy_interval"][0], value["accuracy_interval"][1]),
            roc_auc=value["roc_auc"],
            roc_auc_interval=None if auc_interval is None else (auc_interval[0], auc_interval[1]),
            log_loss=value["log_loss"],
        )


def probabilities(logits: ArrayLike) -> NDArray[np.float64]:
    """Return the probability of the positive class for each logit; the one definition, for evaluation and scoring."""
    scores = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(scores))  # never overflows
    return np.where(scores >= 0, 1.0, small) / (1.0 + small)


def binary_metrics(logits: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5) -> BinaryMetrics:
    """Return the metrics of `logits` (n,) against `labels` (n,), each 0 or 1; at least one row.

    Args:
        logits: finite; any float type, taken as float64.
        labels: 0.0 or 1.0.
        threshold: probability from which a row is predicted positive.
    """
    scores, is_positive = np.asarray(logits, np.float64), np.asarray(labels) > 0.5
    num_right = int(((probabilities(scores) >= threshold) == is_positive).sum())
    losses = np.logaddexp(0.0, np.where(is_positive, -scores, scores))
    auc, auc_interval = None, None
    if is_positive.any() and not is_positive.all():
        auc, auc_interval = roc_auc(scores, is_positive)
    return BinaryMetrics(
        num_rows=len(scores),
        accuracy=num_right / len(scores),
        accuracy_interval=wilson_interval(num_right, len(scores)),
        roc_auc=auc,
        roc_auc_interval=auc_interval,
        log_loss=float(np.sort(losses).sum() / len(scores)),
    )


def wilson_interval(successes: int, trials: int) -> Interval:
    """Return the 95 % score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212)."""
    share, z2 = successes / trials, _Z95**2
    centre = share + z2 / (2 * trials)
    half = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, (centre - half) / (1 + z2 / trials)), min(1.0, (centre + half) / (1 + z2 / trials))


def roc_auc(scores: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> tuple[float, Interval]:
    """Return the area under the ROC curve and its 95 % interval; both classes must be present.

    The area counts ties as half. The interval is DeLong's (DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44, 837-845)
    in the O(n log n) form of Sun and Xu (2014, IEEE Signal Processing Letters 21, 1389-1393), cut to [0, 1]. With a
    single row of a class the variance cannot be estimated and the interval is [0, 1].
    """
    positive, negative = scores[is_positive], scores[~is_positive]
    num_positive, num_negative = len(positive), len(negative)
    ranks = _midranks(scores)
    # Midranks are multiples of 1/2: this sum is exact.
    pairs_right = float(ranks[is_positive].sum()) - num_positive * (num_positive + 1) / 2
    auc = pairs_right / (num_positive * num_negative)
    if min(num_positive, num_negative) < 2:
        return auc, (0.0, 1.0)
    # Share of the other class that each row stands on the right side of.
    positive_shares = np.sort((ranks[is_positive] - _midranks(positive)) / num_negative)
    negative_shares = np.sort((ranks[~is_positive] - _midranks(negative)) / num_positive)
    variance = positive_shares.var(ddof=1) / num_positive + negative_shares.var(ddof=1) / num_negative
    half = _Z95 * math.sqrt(variance)
    return auc, (max(0.0, auc - half), min(1.0, auc + half))


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each value's rank from 1 on; equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group])
