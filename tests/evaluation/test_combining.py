"""Combinations fitted on validation rows, beside scikit-learn, a search over all weights, and hand arithmetic."""

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from mlspark.errors import ConfigError
from mlspark.evaluation import combining
from mlspark.evaluation.mcnemar import mcnemar
from mlspark.evaluation.predictions import Predictions
from mlspark.tasks.kinds import from_settings

ROWS = 400
BINARY = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"]})
THREE = from_settings({"kind": "multiclass", "target": "y", "classes": ["a", "b", "c"]})


def number(**loss: Any) -> Any:
    return from_settings(
        {"kind": "regression", "target": "y", "center": 1.0, "scale": 2.0, "loss": loss or {"kind": "mse"}}
    )


def members(task: Any, *, weighted: bool = False) -> list[Predictions]:
    """Three models: each sees the truth through noise of its own."""
    random = np.random.default_rng(3)
    weight = random.integers(0, 3, ROWS).astype(float) if weighted else None
    row_id = np.arange(ROWS)
    if task.link == "none":
        truth = random.normal(size=(ROWS, 1))
        target = 1.0 + 2.0 * truth[:, 0]
        outputs = [truth + random.normal(size=(ROWS, task.num_outputs)) * noise for noise in (0.5, 0.6, 2.0)]
    else:
        hidden = random.normal(size=(ROWS, task.num_outputs)) * 2
        target = (
            (random.random(ROWS) < expit(hidden[:, 0])).astype(float)
            if task.link == "logistic"
            else (hidden + random.gumbel(size=hidden.shape)).argmax(1)
        )
        outputs = [hidden + random.normal(size=hidden.shape) * noise for noise in (1.0, 1.2, 4.0)]
    return [Predictions.of(row_id, target, values, weight) for values in outputs]


def log_loss(task: Any, of_members: list[Predictions], weights: Any) -> float:
    first = of_members[0]
    mixed = 0.0
    for weight, member in zip(weights, of_members, strict=True):
        chances = (
            np.column_stack([1 - expit(member.outputs[:, 0]), expit(member.outputs[:, 0])])
            if task.link == "logistic"
            else softmax(member.outputs, axis=1)
        )
        mixed = mixed + weight * chances[np.arange(ROWS), first.target.astype(int)]
    return float(np.average(-np.log(mixed), weights=first.weight))


def simplex() -> list[tuple[float, float, float]]:
    steps = range(0, 101, 2)
    return [(i / 100, j / 100, (100 - i - j) / 100) for i in steps for j in steps if i + j <= 100]


@pytest.mark.parametrize("task", [BINARY, THREE])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_classes_are_those_of_least_log_loss(task: Any, weighted: bool) -> None:
    of_members = members(task, weighted=weighted)
    weights = combining.best_weights(task, of_members)
    assert sum(weights) == pytest.approx(1.0, abs=1e-12)
    assert min(weights) >= 0
    least = min(log_loss(task, of_members, each) for each in simplex())
    assert log_loss(task, of_members, weights) <= least
    assert log_loss(task, of_members, weights) == pytest.approx(least, abs=1e-3)
    assert weights == combining.best_weights(task, of_members)


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "mse"},
        {"kind": "mae"},
        {"kind": "huber", "delta": 0.3},
        {"kind": "quantile", "quantiles": [0.1, 0.5, 0.9]},
    ],
    ids=lambda loss: str(loss["kind"]),
)
def test_weights_of_numbers_are_those_of_least_loss(loss: dict[str, Any]) -> None:
    import torch

    task = number(**loss)
    of_members = members(task)

    def mean_loss(weights: Any) -> float:
        mixed = sum(w * np.sort(member.outputs, axis=1) for w, member in zip(weights, of_members, strict=True))
        return float(task.loss_of(torch.from_numpy(mixed), torch.from_numpy(of_members[0].target)).double().mean())

    least = min(mean_loss(each) for each in simplex())
    assert mean_loss(combining.best_weights(task, of_members)) <= least + 1e-4


def test_weights_of_two_models_by_hand() -> None:
    """Errors 1, 1 and -2, 1: the mean squared error of w and 1 - w is ((3 w - 2)^2 + 1) / 2, least at w = 2/3."""
    task = from_settings({"kind": "regression", "target": "y", "standardise": False})
    rows = [Predictions.of([1, 2], [5.0, 7.0], outputs) for outputs in ([[4.0], [6.0]], [[7.0], [6.0]])]
    assert combining.best_weights(task, rows) == pytest.approx((2 / 3, 1 / 3), abs=1e-5)


def test_a_model_that_only_harms_weighs_nothing() -> None:
    target = np.arange(ROWS) % 2.0
    right, wrong = (Predictions.of(np.arange(ROWS), target, sign * (2 * target - 1)[:, None]) for sign in (1, -1))
    assert combining.best_weights(BINARY, [right, wrong]) == (1.0, 0.0)


def test_class_weights_count() -> None:
    loss = {"kind": "cross_entropy", "class_weights": {"yes": 5.0}}
    heavy = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"], "loss": loss})
    first, second, _ = members(BINARY)
    weight = np.where(first.target > 0.5, 5.0, 1.0)
    by_hand = [Predictions.of(each.row_id, each.target, each.outputs, weight) for each in (first, second)]
    assert combining.best_weights(heavy, [first, second]) == combining.best_weights(BINARY, by_hand)


@pytest.mark.parametrize("weighted", [False, True])
def test_stacking_of_two_classes_is_logistic_regression_on_logits(weighted: bool) -> None:
    of_members = members(BINARY, weighted=weighted)
    stacked = combining.combination("stacking", BINARY, 3, of_members)
    inputs = np.concatenate([member.outputs for member in of_members], axis=1)
    first = of_members[0]
    weight = None if first.weight is None else first.weight * ROWS / first.weight.sum()
    expected = LogisticRegression(tol=1e-10, max_iter=10_000).fit(inputs, first.target, weight)
    found = stacked.apply([member.outputs for member in of_members])
    np.testing.assert_allclose(found[:, 0], expected.decision_function(inputs), atol=1e-4)


def test_stacking_of_classes_and_of_numbers() -> None:
    of_members = members(THREE)
    stacked = combining.combination("stacking", THREE, 3, of_members)
    inputs = np.concatenate([np.log(softmax(member.outputs, axis=1)) for member in of_members], axis=1)
    expected = LogisticRegression(tol=1e-10, max_iter=10_000).fit(inputs, of_members[0].target)
    found = softmax(stacked.apply([member.outputs for member in of_members]), axis=1)
    np.testing.assert_allclose(found, expected.predict_proba(inputs), atol=1e-4)

    of_members, task = members(number(), weighted=True), number()
    stacked = combining.combination("stacking", task, 3, of_members)
    inputs, weight = np.concatenate([member.outputs for member in of_members], axis=1), of_members[0].weight
    assert weight is not None
    expected = Ridge(alpha=1.0).fit(inputs, (of_members[0].target - 1) / 2, weight * ROWS / weight.sum())
    found = stacked.apply([member.outputs for member in of_members])
    np.testing.assert_allclose(found[:, 0], expected.predict(inputs), atol=1e-6)


def test_stacking_needs_rows_of_each_class() -> None:
    rows = [Predictions.of(each.row_id, np.zeros(ROWS), each.outputs) for each in members(BINARY)]
    with pytest.raises(
        ConfigError, match=r"model\.combine=stacking .* of 1 of 2 classes there is none; give the valid"
    ):
        combining.combination("stacking", BINARY, 3, rows)


def test_mean_and_vote_need_no_rows() -> None:
    assert combining.combination("mean", BINARY, 4, []).weights == (0.25,) * 4
    assert combining.combination("vote", THREE, 4, []).kind == "vote"


def test_mcnemar_counts_what_one_alone_has_right() -> None:
    """Of 10 rows that differ one has 9: two-sided 2 * (1 + 10) / 2^10."""
    first = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    second = np.array([False] * 9 + [True] + [True] * 5 + [False] * 5)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (9, 1)
    assert found.p_value == pytest.approx(22 / 1024)
    assert mcnemar(first, first).p_value == 1.0
