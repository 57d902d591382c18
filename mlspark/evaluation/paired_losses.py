"""Whether one of two models has the smaller losses on the same rows. Runs anywhere."""

import math
from dataclasses import dataclass

from mlspark.tasks.intervals import Floats, Interval


@dataclass(frozen=True)
class PairedLosses:
    """Student's paired t-test, and Wilcoxon's signed-rank test (1945, Biometrics Bulletin 1, 80-83), of n rows' losses."""

    difference: float
    """Mean of the second model's losses less those of the first."""
    interval: Interval
    """Of the difference, by Student's t."""
    t: float
    p_value: float
    """By t: probability of a difference as large as this, were the mean losses equal; 1 where all losses are."""
    signed_ranks: float
    """Wilcoxon's statistic: the smaller sum of ranks of the differences of one sign; rows without difference left out."""
    signed_ranks_p_value: float
    """Probability of ranks as unequal as these, were differences spread evenly around 0; 1 where all losses are equal."""


def paired_losses(first: Floats, second: Floats, *, confidence: float = 0.95) -> PairedLosses | None:
    """Return the tests; None of fewer than two rows.

    Args:
        first: losses of the first model (n,).
        second: losses of the second model, of the same rows.
        confidence: of the interval.
    """
    from scipy import stats  # here: it takes a second, and most jobs that import this compare nothing

    differences = second - first
    count = len(differences)
    if count < 2:
        return None
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    half = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
    t = mean / error if error > 0 else 0.0
    p_value = float(2 * stats.t.sf(abs(t), count - 1)) if error > 0 else float(mean == 0)
    ranks, ranks_p_value = 0.0, 1.0
    if (differences != 0).any():
        ranks, ranks_p_value = (float(value) for value in stats.wilcoxon(differences))
    return PairedLosses(mean, (mean - half, mean + half), t, p_value, ranks, ranks_p_value)
