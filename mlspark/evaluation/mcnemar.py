"""Whether one of two classifiers is right more often, on the same rows. Runs anywhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class McNemar:
    """McNemar's test in its exact form (McNemar 1947, Psychometrika 12, 153-157; by the binomial distribution)."""

    only_first: int
    """Rows that the first classifier alone has right."""
    only_second: int
    """Rows that the second classifier alone has right."""
    p_value: float
    """Probability of numbers as unequal as these, were both equally often right; 1 where none differs."""


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Return the test of two classifiers.

    Args:
        first: whether the first one is right, of each row (n,).
        second: whether the second one is, of the same rows.
    """
    from scipy.stats import binomtest  # here: it takes a second, and most jobs that import this compare nothing

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    different = only_first + only_second
    p_value = float(binomtest(only_first, different, 0.5).pvalue) if different else 1.0
    return McNemar(only_first, only_second, p_value)
