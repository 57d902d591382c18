"""How much an ensemble's outputs depend on those of each member. Numpy float64; runs anywhere.

A slope is the derivative of an ensemble's explained number with respect to a member's outputs. Its mean over the straight
way from the outputs where members begin to those of a row (Aumann and Shapley 1974: integrated gradients of the combination)
is a factor: the members' changes times their factors add up to the change of the number.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from mlspark.engines.combination import Combination, Floats, log_probabilities

_POINTS = 64
"""Points of the way, of Gauss-Legendre quadrature."""


def factors(
    combination: Combination, starts: Sequence[Floats], ends: Sequence[Floats], of_ensemble: Floats
) -> list[Floats]:
    """Return what the outputs of each member count in the explained number of n rows, (n, O) each.

    Args:
        combination: mean or linear; a vote changes in jumps and has no slopes.
        starts: outputs of each member where nothing is added (n, O).
        ends: outputs of each member for the rows (n, O).
        of_ensemble: the explained number as factors of the ensemble's outputs (n, O).
    """
    totals = [np.zeros(end.shape) for end in ends]
    places, shares = np.polynomial.legendre.leggauss(_POINTS)
    for place, share in zip((places + 1) / 2, shares / 2, strict=True):
        points = [start + place * (end - start) for start, end in zip(starts, ends, strict=True)]
        for total, of_member in zip(totals, slopes(combination, points, of_ensemble), strict=True):
            total += share * of_member
    return totals


def slopes(combination: Combination, outputs: Sequence[Floats], of_ensemble: Floats) -> list[Floats]:
    """Return the derivatives of (combination.apply(outputs) * of_ensemble).sum(1) with respect to each member's outputs."""
    link = combination.link
    members = [log_probabilities(link, of_member) for of_member in outputs]  # (n, K), numbers ascending
    if combination.kind == "mean":
        by_member = _of_mean(combination, members, of_ensemble)
    else:
        by_member = np.split(of_ensemble @ np.asarray(combination.coefficients), len(outputs), axis=1)
        if link == "logistic":
            return by_member  # a linear combination of two classes is one of logits
    if link == "none":
        return [_unsorted(slope, of_member) for slope, of_member in zip(by_member, outputs, strict=True)]
    by_logit = [
        slope - np.exp(logs) * slope.sum(axis=1, keepdims=True) for slope, logs in zip(by_member, members, strict=True)
    ]
    return [slope[:, 1:] for slope in by_logit] if link == "logistic" else by_logit


def _of_mean(combination: Combination, members: Sequence[Floats], of_ensemble: Floats) -> list[Floats]:
    """Return the derivatives of a mean with respect to the logarithms of probabilities, or to numbers (n, K)."""
    if combination.link == "none":
        return [of_ensemble * weight for weight in combination.weights]
    of_classes = np.concatenate([-of_ensemble, of_ensemble], axis=1) if combination.link == "logistic" else of_ensemble
    with np.errstate(divide="ignore"):
        parts = [logs + np.log(weight) for logs, weight in zip(members, combination.weights, strict=True)]
    total = reduce(np.logaddexp, parts)
    return [of_classes * np.exp(part - total) for part in parts]


def _unsorted(slope: Floats, outputs: Floats) -> Floats:
    """Return slopes of ascending outputs in the order that the outputs have."""
    result = np.empty_like(slope)
    np.put_along_axis(result, outputs.argsort(axis=1, kind="stable"), slope, axis=1)
    return result
