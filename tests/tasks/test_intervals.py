import math

import numpy as np
import pytest

from mlspark.tasks.intervals import (
    effective_rows,
    mean_interval,
    mean_of_shares_interval,
    median_interval,
    wilson_interval,
)
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.metrics import weighted_median

BINARY = from_settings({"kind": "binary", "target": "income", "classes": ["no", "yes"]})
NUMBER = from_settings({"kind": "regression", "target": "price", "standardise": False})


def test_wilson_interval_of_hand_worked_cases() -> None:
    # z = 1.959964: z^2 = 3.841459. 0 of 10: upper = z^2 / (10 + z^2).
    assert wilson_interval(0, 10) == (pytest.approx(0, abs=1e-15), pytest.approx(3.841459 / 13.841459, abs=1e-6))
    # 5 of 10: centre 0.5, half = z / 13.841459 * sqrt(10 / 4 + z^2 / 4).
    half = 1.959964 / 13.841459 * math.sqrt(2.5 + 3.841459 / 4)
    assert wilson_interval(0.5, 10) == (pytest.approx(0.5 - half, abs=1e-6), pytest.approx(0.5 + half, abs=1e-6))


def test_effective_rows_of_hand_worked_weights() -> None:
    assert effective_rows(np.ones(7)) == 7
    assert effective_rows(np.array([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)


def test_mean_interval_of_hand_worked_values() -> None:
    # 1, 3: mean 2, variance 2, standard error sqrt(2 / 2) = 1.
    assert mean_interval(np.array([1.0, 3.0]), np.ones(2)) == pytest.approx((2 - 1.959964, 2 + 1.959964), abs=1e-6)
    assert mean_interval(np.array([1.0, 3.0]), np.ones(2), low=1.0) == pytest.approx((1.0, 3.959964), abs=1e-6)
    assert mean_interval(np.array([1.0]), np.ones(1)) is None


def test_a_mean_of_one_share_has_the_interval_of_that_share() -> None:
    low, high = wilson_interval(0.3, 50)
    interval = mean_of_shares_interval(np.array([0.3]), np.array([low]), np.array([high]))
    assert interval == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    ("values", "weight", "expected"),
    [
        ([3.0, 1.0, 2.0], [1.0, 1.0, 1.0], 2.0),
        ([4.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0], 2.5),
        ([1.0, 2.0, 3.0], [1.0, 1.0, 2.0], 2.5),  # half of 4 is reached exactly after 2
        ([1.0, 2.0, 3.0], [1.0, 1.0, 2.5], 3.0),
        ([7.0], [0.3], 7.0),
    ],
)
def test_weighted_median_of_hand_worked_values(values: list[float], weight: list[float], expected: float) -> None:
    assert weighted_median(np.array(values), np.array(weight)) == expected


def test_median_interval_is_between_order_statistics() -> None:
    # 100 rows: half = 1.96 * 0.5 / 10 = 0.098: from the 41st to the 60th value.
    assert median_interval(np.arange(1.0, 101.0), np.ones(100)) == (41.0, 60.0)


def test_auc_interval_equals_the_definition_of_delong() -> None:
    random = np.random.default_rng(0)
    is_event = random.random(150) < 0.3
    scores = np.round(random.normal(size=150) * 2 + is_event, 1)
    # psi (events, others): 1 right order, 1/2 tie, 0 wrong order.
    difference = scores[is_event][:, None] - scores[~is_event][None, :]
    psi = (difference > 0) + 0.5 * (difference == 0)
    variance = psi.mean(axis=1).var(ddof=1) / psi.shape[0] + psi.mean(axis=0).var(ddof=1) / psi.shape[1]
    auc, interval = BINARY.metrics(scores[:, None], is_event, intervals=False).values["roc_auc"]
    assert auc == pytest.approx(psi.mean(), abs=1e-14)
    assert interval is not None
    assert (interval[1] - interval[0]) / 2 == pytest.approx(1.959963985 * math.sqrt(variance), rel=1e-8)


def test_a_single_row_of_a_class_leaves_the_auc_open() -> None:
    metrics = BINARY.metrics([[1.0], [0.0], [-1.0]], [1, 0, 0])
    assert metrics.values["roc_auc"] == (1.0, (0.0, 1.0))
    assert BINARY.metrics([[1.0], [0.0], [-1.0]], [1, 0, 0], [1.0, 2.0, 3.0]).values["roc_auc"] == (1.0, (0.0, 1.0))


def covered(name: str, truth: float, repeats: int) -> float:
    """Share of samples whose interval contains the truth: events N(1, 1), others N(0, 1), as logits."""
    random, hits = np.random.default_rng(3), 0
    for _ in range(repeats):
        scores = np.concatenate([random.normal(1, 1, 80), random.normal(0, 1, 120)])
        interval = BINARY.metrics(scores[:, None], np.arange(200) < 80, intervals=False).values[name].interval
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    return hits / repeats


def test_auc_interval_covers_the_truth_as_often_as_it_says() -> None:
    # The area is Phi(1 / sqrt(2)).
    assert 0.92 <= covered("roc_auc", 0.5 * (1 + math.erf(0.5)), 400) <= 0.98


def test_balanced_accuracy_interval_covers_the_truth_as_often_as_it_says() -> None:
    # Recall of the event Phi(1), of the other class Phi(0).
    truth = (0.5 * (1 + math.erf(1 / math.sqrt(2))) + 0.5) / 2
    assert 0.92 <= covered("balanced_accuracy", truth, 400) <= 0.98


def test_weighted_auc_interval_covers_the_truth_as_often_as_it_says() -> None:
    random, hits, truth = np.random.default_rng(4), 0, 0.5 * (1 + math.erf(0.5))
    for _ in range(400):
        scores = np.concatenate([random.normal(1, 1, 80), random.normal(0, 1, 120)])
        metrics = BINARY.metrics(scores[:, None], np.arange(200) < 80, random.gamma(2, size=200), intervals=False)
        low, high = metrics.values["roc_auc"].interval or (1.0, 0.0)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize(("name", "truth"), [("r2", 0.75), ("median_ae", 0.6744898), ("rmse", 1.0)])
def test_regression_intervals_cover_the_truth_as_often_as_they_say(name: str, truth: float) -> None:
    # Target = prediction + N(0, 1), prediction N(0, 3): the variance explained is 3 / 4.
    random, hits = np.random.default_rng(5), 0
    for _ in range(400):
        outputs = random.normal(0, math.sqrt(3), 200)
        metrics = NUMBER.metrics(outputs[:, None], outputs + random.normal(size=200))
        low, high = metrics.values[name].interval or (1.0, 0.0)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_resampled_macro_f1_covers_the_truth_as_often_as_it_says() -> None:
    # 2 classes of equal weight, predicted right with 0.8: both F1 are 0.8.
    random, hits = np.random.default_rng(6), 0
    for _ in range(100):
        ids, is_right = random.integers(0, 2, 150), random.random(150) < 0.8
        outputs = np.where((ids == 1) == is_right, 1.0, -1.0)[:, None]
        low, high = BINARY.metrics(outputs, ids).values["macro_f1"].interval or (1.0, 0.0)
        hits += low <= 0.8 <= high
    assert 0.90 <= hits / 100 <= 0.99
