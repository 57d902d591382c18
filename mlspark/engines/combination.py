"""How outputs of several models become those of their ensemble. Numpy float64 only; runs anywhere.

All is computed number by number, members in a fixed order: a row's outputs are the same bits whatever rows stand beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlspark.tasks.task import Link

Floats = NDArray[np.float64]
Kind = Literal["mean", "vote", "linear"]

_TIE = 2.0**-20
"""Part of a vote that the mean probability counts: less than any vote, enough to decide between equal numbers of them."""


@dataclass(frozen=True)
class Combination:
    """A rule for M members, whose outputs and whose own have one meaning: that of the task."""

    kind: Kind
    """mean: of probabilities, or of numbers, times `weights`. vote: shares of the members that find a class the most
    probable, the mean probability deciding between equal ones. linear: a linear function of all members' `features`."""
    link: Link
    """What makes probabilities of outputs."""
    weights: tuple[float, ...] = ()
    """Of each member, together 1; for kind mean."""
    coefficients: tuple[tuple[float, ...], ...] = ()
    """(O, M * O): of each feature; for kind linear."""
    intercepts: tuple[float, ...] = ()
    """(O,); for kind linear."""

    def apply(self, outputs: Sequence[ArrayLike]) -> Floats:
        """Return the ensemble's outputs (n, O) for those of its members, (n, O) each, in their order."""
        members = [log_probabilities(self.link, of_member) for of_member in outputs]
        if self.kind == "mean":
            return self._of_probabilities(self._mean(members, self.weights))
        if self.kind == "vote":
            return self._of_probabilities(_votes(members))
        return self._linear([features(self.link, of_member) for of_member in outputs])

    def _mean(self, members: Sequence[Floats], weights: Sequence[float]) -> Floats:
        counting = [(member, weight) for member, weight in zip(members, weights, strict=True) if weight]
        if self.link == "none":
            return np.asarray(reduce(np.add, (member * weight for member, weight in counting)))
        # The logarithm of a sum of probabilities, none of which need be a number above 0 by itself.
        return np.asarray(reduce(np.logaddexp, (member + math.log(weight) for member, weight in counting)))

    def _of_probabilities(self, values: Floats) -> Floats:
        """Return outputs by which the task finds these probabilities, given as logarithms; numbers are outputs."""
        return values[:, 1:] - values[:, :1] if self.link == "logistic" else values

    def _linear(self, members: Sequence[Floats]) -> Floats:
        result: Floats = np.zeros((len(members[0]), len(self.intercepts))) + np.asarray(self.intercepts)
        # No matrix product: that takes another kernel for the last rows of a batch.
        columns = (column for member in members for column in member.T)
        for column, coefficients in zip(columns, np.asarray(self.coefficients).T, strict=True):
            result += column[:, None] * coefficients
        return result

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Combination":
        return cls(
            kind=value["kind"],
            link=value["link"],
            weights=tuple(value["weights"]),
            coefficients=tuple(tuple(row) for row in value["coefficients"]),
            intercepts=tuple(value["intercepts"]),
        )


def features(link: Link, outputs: ArrayLike) -> Floats:
    """Return what a linear combination is of (n, O): logits, logarithms of probabilities, or numbers."""
    return np.array(outputs, np.float64, order="C") if link == "logistic" else log_probabilities(link, outputs)


def log_probabilities(link: Link, outputs: ArrayLike) -> Floats:
    """Return the logarithms of the probabilities of all classes (n, K), the other class first where there are two.

    Numbers come back as the task reads them: a row's quantiles ascending (n, O).
    """
    values = np.array(outputs, np.float64, order="C")
    if link == "none":
        return np.sort(values, axis=1)
    if link == "logistic":
        return np.concatenate([-np.logaddexp(0.0, values), -np.logaddexp(0.0, -values)], axis=1)
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _votes(members: Sequence[Floats]) -> Floats:
    """Return the logarithms of the shares of votes (n, K)."""
    mean = reduce(np.logaddexp, members) - math.log(len(members))
    # Of two classes of equal probability the last, as a threshold of 0.5 has it; of more the first, as argmax does.
    two = members[0].shape[1] == 2
    chosen = [(member[:, 1] >= member[:, 0]).astype(np.intp) if two else member.argmax(axis=1) for member in members]
    votes = reduce(np.add, ((np.arange(mean.shape[1]) == places[:, None]).astype(np.float64) for places in chosen))
    # In two cases, because a class without votes and of hardly any probability has a finite logarithm, too.
    some = np.log(np.maximum(votes, 1.0) + _TIE * np.exp(mean))
    return np.where(votes > 0, some, math.log(_TIE) + mean) - math.log(len(members) + _TIE)
