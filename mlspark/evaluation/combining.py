"""The combination of several models that is best on validation rows. Runs anywhere; no Spark, no torch.

Weights are those of least loss, found by scipy's SLSQP (Kraft 1988) from equal ones: the loss is convex in them. A linear
combination is stacking (Wolpert 1992, Neural Networks 5, 241-259): a logistic regression on the members' logits, for numbers
a ridge regression on their predictions, both scikit-learn's. The same predictions give the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlspark.engines.combination import Combination, features, log_probabilities
from mlspark.errors import ConfigError
from mlspark.evaluation.predictions import Predictions
from mlspark.models.trees import Rows, learned_target, weights_of
from mlspark.tasks.losses import AbsoluteLoss, HuberLoss, QuantileLoss
from mlspark.tasks.task import Task

Floats = NDArray[np.float64]
Combine = Literal["mean", "weighted", "vote", "stacking"]

FITTED = ("weighted", "stacking")
"""Those that need predictions of validation rows."""
_DIGITS = 6  # of a weight: what is beyond depends on how sums are ordered


def combination(combine: Combine, task: Task, num_members: int, validation: Sequence[Predictions]) -> Combination:
    """Return the combination of `num_members` models.

    Args:
        combine: how.
        task: of all of them.
        num_members: M.
        validation: each member's predictions of the same rows, in order; looked at where `combine` is one of FITTED.

    Raises:
        ConfigError: no validation rows, or none of a class.
    """
    if combine == "vote":
        return Combination("vote", task.link)
    if combine == "mean":
        return Combination("mean", task.link, weights=(1 / num_members,) * num_members)
    if combine == "weighted":
        return Combination("mean", task.link, weights=best_weights(task, validation))
    return _stacked(task, validation)


def best_weights(task: Task, members: Sequence[Predictions]) -> tuple[float, ...]:
    """Return weights of at least 0, together 1, by which the mean of the members' predictions has the least loss.

    The loss is that of the task, for classes the logarithmic one, times sample and class weights.
    """
    from scipy.optimize import minimize  # here: it takes a second, and most jobs that import this compare nothing

    loss = _loss_of_classes(task, members) if task.link != "none" else _loss_of_numbers(task, members)
    count = len(members)
    found = minimize(
        loss,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(count)},
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    # The edges of absolute errors may end the search early: it is no worse than what needs none.
    candidates: list[Floats] = [_on_the_simplex(found.x), np.full(count, 1 / count), *np.eye(count)]
    losses = [loss(weights)[0] for weights in candidates]
    return tuple(map(float, candidates[int(np.argmin(losses))]))


def _on_the_simplex(weights: Floats) -> Floats:
    kept = np.round(np.clip(np.nan_to_num(weights), 0.0, 1.0), _DIGITS)
    return np.asarray(kept / kept.sum() if kept.sum() > 0 else np.full(len(kept), 1 / len(kept)))


Loss = Callable[[Floats], tuple[float, Floats]]
"""Function of weights (M,) that returns the loss and its derivatives (M,)."""


def _loss_of_classes(task: Task, members: Sequence[Predictions]) -> Loss:
    count, target = _row_weights(task, members[0]), members[0].target.astype(np.intp)
    logs = np.stack([_of_target(log_probabilities(task.link, member.outputs), target) for member in members], axis=1)
    # Of each row, over its most probable member: the same weights are best, and no row is 0 for all.
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))  # (n, M)

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixed = np.maximum((shares * weights).sum(axis=1), 1e-300)
        return -float((count * np.log(mixed)).sum()), -((count / mixed)[:, None] * shares).sum(axis=0)

    return loss


def _of_target(logs: Floats, target: NDArray[np.intp]) -> Floats:
    return np.asarray(logs[np.arange(len(target)), target])


def _loss_of_numbers(task: Task, members: Sequence[Predictions]) -> Loss:
    count, target = _row_weights(task, members[0]), learned_target(task, members[0].target).astype(np.float64)
    values = np.stack([log_probabilities(task.link, member.outputs) for member in members], axis=2)  # (n, O, M)
    loss_of = _losses(getattr(task, "loss", None))

    def loss(weights: Floats) -> tuple[float, Floats]:
        losses, slopes = loss_of(target[:, None] - (values * weights).sum(axis=2))  # (n, O) each
        by_weight = -((count[:, None] * slopes)[:, :, None] * values).sum(axis=(0, 1))
        return float((count[:, None] * losses).sum()), by_weight

    return loss


def _losses(settings: Any) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Return the function of errors (n, O) that returns their losses and the derivatives of these, (n, O) each."""
    if isinstance(settings, QuantileLoss):
        quantiles = np.asarray(settings.quantiles)
        return lambda e: (np.maximum(quantiles * e, (quantiles - 1) * e), np.where(e > 0, quantiles, quantiles - 1))
    if isinstance(settings, AbsoluteLoss):
        return lambda e: (np.abs(e), np.sign(e))
    if isinstance(settings, HuberLoss):
        delta = settings.delta
        return lambda e: (
            np.where(np.abs(e) <= delta, e**2 / 2, delta * (np.abs(e) - delta / 2)),
            np.clip(e, -delta, delta),
        )
    return lambda e: (e**2, 2 * e)


def _row_weights(task: Task, rows: Predictions) -> Floats:
    """Return how much each row counts, over their mean (n,)."""
    weights = weights_of(task, Rows({}, rows.target, rows.weight))
    return np.ones(len(rows)) / len(rows) if weights is None else weights / weights.sum()


def _stacked(task: Task, members: Sequence[Predictions]) -> Combination:
    from sklearn.linear_model import LogisticRegression, Ridge

    rows = members[0]
    inputs = np.concatenate([features(task.link, member.outputs) for member in members], axis=1)
    count = _row_weights(task, rows) * len(rows)
    if task.link == "none":
        ridge = Ridge(alpha=1.0).fit(inputs, learned_target(task, rows.target).astype(np.float64), count)
        coefficients, intercepts = ridge.coef_[None, :], [ridge.intercept_]
    else:
        _check_classes(task, rows.target[count > 0])
        regression = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(inputs, rows.target.astype(int), count)
        coefficients, intercepts = regression.coef_, regression.intercept_
    return Combination(
        "linear",
        task.link,
        coefficients=tuple(tuple(map(float, row)) for row in coefficients),
        intercepts=tuple(map(float, intercepts)),
    )


def _check_classes(task: Task, target: NDArray[Any]) -> None:
    num_classes = max(2, task.num_outputs)
    missing = num_classes - len(np.unique(target))
    if missing:
        raise ConfigError(
            f"model.combine=stacking is fitted on validation rows, and of {missing} of {num_classes} classes there is none; "
            f"give the validation split more rows, or set model.combine: weighted"
        )
