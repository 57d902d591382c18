"""How likely a difference is by chance alone, when nothing has changed. Numpy and scipy only; runs anywhere."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy import stats

from mlspark.features import drift
from mlspark.tasks.intervals import Z95, Interval

_LEAST_DRAWS = 2_000
_MOST_DRAWS = 200_000
_FIRST_DRAWS, _ENOUGH = 250, 50
"""Draws that are made at first, and indices as large among them after which no more are needed: it is chance."""
_CELLS = 4_000_000
"""Counts that are drawn at a time."""
_SMOOTHING = 0.5
_SEED = 20_251_128


def of_psi(bins: Sequence[tuple[float, float]], *, level: float) -> float:
    """Return the p-value of a population stability index: how often both sides' rows, drawn alike, have as large a one.

    Both sides are drawn from their pooled shares (parametric bootstrap; its p-value is that of A. Davison and D. Hinkley,
    Bootstrap Methods and their Application, 1997, 4.2), so it holds for any number of rows and for rare bins, unlike the
    chi-square law of the index (B. Yurdakul and J. Naranjo, Journal of Risk Model Validation 14(4), 2020), to which it
    tends. The same bins yield the same value.

    Args:
        bins: rows of each bin, (old, new), from `drift.bins`.
        level: p-value up to which the difference is no chance: there are as many draws as that needs, at most 200,000, and
            fewer where chance is seen to do it (sequential, as J. Besag and P. Clifford have it, Biometrika 78, 1991).
    """
    olds, news = np.array(bins, np.float64).T
    found = drift.psi(olds.tolist(), news.tolist())
    num_olds, num_news = round(olds.sum()), round(news.sum())
    shares = (olds + news) / (olds + news).sum()
    draws = min(max(_LEAST_DRAWS, math.ceil(1 / level)), _MOST_DRAWS)
    random, as_large, drawn = np.random.default_rng(_SEED), 0, 0
    while drawn < draws and as_large < _ENOUGH:
        count = min(draws - drawn, max(_FIRST_DRAWS, drawn), max(1, _CELLS // len(shares)))
        sides = (random.multinomial(rows, shares, size=count) + _SMOOTHING for rows in (num_olds, num_news))
        before, after = (side / side.sum(axis=1, keepdims=True) for side in sides)
        as_large += int((((after - before) * np.log(after / before)).sum(axis=1) >= found * (1 - 1e-12)).sum())
        drawn += count
    return (1 + as_large) / (1 + drawn)


def of_share(old: tuple[int, int], new: tuple[int, int], *, only_increase: bool = False) -> float:
    """Return the p-value of the difference of two shares, (rows counted, rows of which): Fisher's exact test."""
    table = [[new[0], new[1] - new[0]], [old[0], old[1] - old[0]]]
    return float(stats.fisher_exact(table, alternative="greater" if only_increase else "two-sided").pvalue)


def of_unseen(unseen: int, num_rows: int, *, single: int, num_old: int) -> float:
    """Return the p-value of so many rows with values that no old row has.

    The share of such rows is the old ones' share of values that occur once (I. Good, Biometrika 40, 1953), with one row
    more for the error of that estimate; the test is the binomial one.

    Args:
        unseen: new rows with an unseen value.
        num_rows: new rows.
        single: values that exactly one old row has.
        num_old: old rows.
    """
    return float(stats.binom.sf(unseen - 1, num_rows, min(1.0, (single + 1) / num_old)))


def of_loss(old: float, old_interval: Interval, new: float, new_interval: Interval, *, lower_is_better: bool) -> float:
    """Return the one-sided p-value of a metric that got worse, from the 95 % interval of either side.

    The variance of the difference is recovered from the limits that face each other (G. Zou and A. Donner, Statistics in
    Medicine 27, 2008); the rows of the two sides are different ones.
    """
    if lower_is_better:
        worse, faces = new - old, (old_interval[1] - old, new - new_interval[0])
    else:
        worse, faces = old - new, (old - old_interval[0], new_interval[1] - new)
    error = math.hypot(*faces) / Z95
    if not error > 0:
        return 0.0 if worse > 0 else 1.0
    return 1 - NormalDist().cdf(worse / error)
