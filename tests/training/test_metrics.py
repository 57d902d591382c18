import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from mlspark.training.metrics import BinaryMetrics, binary_metrics, probabilities, roc_auc, wilson_interval


def rows(count: int, *, decimals: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits with ties (rounded) that know something of the labels."""
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.3).astype(np.float32)
    return np.round(random.normal(size=count) * 2 + labels, decimals).astype(np.float32), labels


@pytest.mark.parametrize("decimals", [0, 1, 7])
def test_equals_scikit_learn(decimals: int) -> None:
    logits, labels = rows(2_000, decimals=decimals)
    found = binary_metrics(logits, labels)
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert found.num_rows == 2_000
    assert found.accuracy == sklearn_metrics.accuracy_score(labels, chances >= 0.5)
    assert found.roc_auc == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits), abs=1e-14)
    assert found.log_loss == pytest.approx(sklearn_metrics.log_loss(labels, chances), abs=1e-12)


def test_threshold_moves_the_predictions() -> None:
    logits, labels = rows(500, decimals=7)
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = sklearn_metrics.accuracy_score(labels, chances >= 0.8)
    assert binary_metrics(logits, labels, threshold=0.8).accuracy == expected


def test_order_of_rows_changes_no_bit() -> None:
    logits, labels = rows(3_001, decimals=3)
    order = np.random.default_rng(1).permutation(len(logits))
    assert binary_metrics(logits, labels) == binary_metrics(logits[order], labels[order])


def test_extreme_logits_give_finite_figures() -> None:
    found = binary_metrics([1000.0, -1000.0, 1000.0, -1000.0], [1, 0, 0, 1])
    assert found.log_loss == 500.0
    assert (found.accuracy, found.roc_auc) == (0.5, 0.5)


def test_probability_of_logit_zero_is_one_half_and_counts_as_positive() -> None:
    np.testing.assert_array_equal(probabilities([0.0, -800.0, 800.0]), [0.5, 0.0, 1.0])
    assert binary_metrics([0.0], [1]).accuracy == 1.0


def test_wilson_interval_of_hand_worked_cases() -> None:
    # z = 1.959964: z^2 = 3.841459. 0 of 10: upper = z^2 / (10 + z^2).
    assert wilson_interval(0, 10) == (pytest.approx(0, abs=1e-15), pytest.approx(3.841459 / 13.841459, abs=1e-6))
    # 5 of 10: centre 0.5, half = z / 13.841459 * sqrt(10 / 4 + z^2 / 4).
    half = 1.959964 / 13.841459 * math.sqrt(2.5 + 3.841459 / 4)
    assert wilson_interval(5, 10) == (pytest.approx(0.5 - half, abs=1e-6), pytest.approx(0.5 + half, abs=1e-6))


def test_auc_interval_equals_the_definition_of_delong() -> None:
    logits, labels = rows(150, decimals=1)
    scores, is_positive = logits.astype(np.float64), labels > 0
    # psi (positives, negatives): 1 right order, 1/2 tie, 0 wrong order.
    difference = scores[is_positive][:, None] - scores[~is_positive][None, :]
    psi = (difference > 0) + 0.5 * (difference == 0)
    variance = psi.mean(axis=1).var(ddof=1) / psi.shape[0] + psi.mean(axis=0).var(ddof=1) / psi.shape[1]
    auc, (low, high) = roc_auc(scores, is_positive)
    assert auc == pytest.approx(psi.mean(), abs=1e-14)
    assert (high - low) / 2 == pytest.approx(1.959963985 * math.sqrt(variance), rel=1e-8)


def test_auc_interval_covers_the_truth_as_often_as_it_says() -> None:
    # Positives N(1, 1), negatives N(0, 1): the area is Phi(1 / sqrt(2)).
    truth = 0.5 * (1 + math.erf(0.5))
    random, covered = np.random.default_rng(3), 0
    for _ in range(400):
        scores = np.concatenate([random.normal(1, 1, 80), random.normal(0, 1, 120)])
        _, (low, high) = roc_auc(scores, np.arange(200) < 80)
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_has_no_auc(label: float) -> None:
    found = binary_metrics([0.3, -0.2], [label, label])
    assert found.roc_auc is None
    assert found.roc_auc_interval is None
    assert found.accuracy == 0.5


def test_a_single_row_of_a_class_leaves_the_auc_open() -> None:
    assert roc_auc(np.array([1.0, 0.0, -1.0]), np.array([True, False, False])) == (1.0, (0.0, 1.0))


@pytest.mark.parametrize("labels", [[1, 0, 1], [1, 1, 1]])
def test_survives_json(labels: list[int]) -> None:
    found = binary_metrics([0.5, 0.1, -0.2], labels)
    assert BinaryMetrics.from_json(found.to_json()) == found
