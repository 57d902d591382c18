"""What became of each row, and what is counted of that, equals scikit-learn; weights count as in the metrics."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import calibration, metrics

from mlspark.tasks import judgement
from mlspark.tasks.judgement import Classified, classified, curve, estimated
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.metrics import Metric

BINARY: Any = from_settings(
    {"kind": "binary", "target": "y", "classes": ["yes", "no"], "event": "yes", "threshold": 0.3}
)
FOUR: Any = from_settings({"kind": "multiclass", "target": "y", "classes": ["a", "b", "c", "never"]})
NUMBER: Any = from_settings({"kind": "regression", "target": "y", "standardise": False})


def binary(weighted: bool) -> tuple[Classified, Any, Any, Any]:
    """Rows with many equal scores, some of them of weight 0."""
    random = np.random.default_rng(1)
    logits = random.normal(size=500).round(1)
    target = (random.random(500) < 1 / (1 + np.exp(-1.5 * logits))).astype(float)
    weight = random.integers(0, 4, 500).astype(float) if weighted else None
    return classified(BINARY, logits[:, None], target, weight), logits, target, weight


def four() -> tuple[Classified, Any, Any]:
    random = np.random.default_rng(2)
    target, outputs = random.integers(0, 3, 300), random.normal(size=(300, 4))
    outputs[np.arange(300), target] += 1.0
    outputs[:, 3] -= 100
    return classified(FOUR, outputs, target, None), outputs, target


@pytest.mark.parametrize("weighted", [False, True])
def test_confusion_and_figures_of_a_binary_task_equal_scikit_learn(weighted: bool) -> None:
    rows, logits, target, weight = binary(weighted)
    predicted = np.where(1 / (1 + np.exp(-logits)) >= 0.3, "yes", "no")
    true = np.where(target > 0.5, "yes", "no")
    names = ["yes", "no"]
    expected = metrics.confusion_matrix(true, predicted, labels=names, sample_weight=weight)
    np.testing.assert_array_equal(rows.confusion, expected)
    figures = metrics.precision_recall_fscore_support(true, predicted, labels=names, sample_weight=weight)
    for place, of_class in enumerate(rows.by_class()):
        found = (of_class.precision.value, of_class.recall.value, of_class.f1.value, of_class.actual)
        assert found == pytest.approx([values[place] for values in figures])
    kept = metrics.log_loss(target, 1 / (1 + np.exp(-logits)), sample_weight=weight)
    assert np.average(rows.loss, weights=rows.weight) == pytest.approx(kept)
    of_metrics = BINARY.metrics(logits, target, weight, intervals=False)
    assert rows.by_class()[0].recall == pytest.approx(of_metrics.values["recall_yes"])
    assert rows.by_class()[1].f1[1] == pytest.approx(of_metrics.values["f1_no"].interval)


@pytest.mark.parametrize("weighted", [False, True])
def test_curves_equal_scikit_learn(weighted: bool) -> None:
    rows, logits, target, weight = binary(weighted)
    scores = 1 / (1 + np.exp(-logits))
    points = curve(rows)
    assert points is not None
    fall_out, recall, thresholds = metrics.roc_curve(target, scores, sample_weight=weight, drop_intermediate=False)
    counting = np.isin(thresholds[1:].round(12), rows.event_probability.round(12))
    np.testing.assert_allclose(points.fall_out, fall_out[1:][counting])
    np.testing.assert_allclose(points.recall, recall[1:][counting])
    np.testing.assert_allclose(points.threshold, thresholds[1:][counting])
    precision, of_recall, _ = metrics.precision_recall_curve(target, scores, sample_weight=weight)
    expected = dict(zip(of_recall.round(9).tolist(), precision.tolist(), strict=True))
    assert all(
        any(abs(precision[place] - value) < 1e-9 for place in np.flatnonzero(abs(of_recall - at) < 1e-9))
        for at, value in zip(points.recall, points.precision, strict=True)
    ), expected


def test_rows_of_one_kind_have_no_curve() -> None:
    assert curve(classified(BINARY, [[1.0], [2.0]], [1.0, 1.0], None)) is None
    assert curve(classified(BINARY, [[1.0], [2.0]], [1.0, 0.0], [1.0, 0.0])) is None


def test_reliability_equals_scikit_learn_with_wilsons_interval() -> None:
    rows, logits, target, _ = binary(False)
    share, mean = calibration.calibration_curve(target, 1 / (1 + np.exp(-logits)), n_bins=10)
    bins = rows.reliability()
    assert [each.share for each in bins] == pytest.approx(share)
    assert [each.mean for each in bins] == pytest.approx(mean)
    assert sum(each.weight for each in bins) == 500
    for each in bins:
        events = round(each.share * each.weight)
        expected = stats.binomtest(events, int(each.weight)).proportion_ci(method="wilson")
        assert each.interval == pytest.approx((expected.low, expected.high))
    error = sum(each.weight * abs(each.share - each.mean) for each in bins) / 500
    assert error == pytest.approx(BINARY.metrics(logits, target, intervals=False)["calibration_error"])


def test_several_classes_equal_scikit_learn_and_one_may_be_absent() -> None:
    rows, outputs, target = four()
    predicted = outputs.argmax(axis=1)
    expected = metrics.confusion_matrix(target, predicted, labels=range(4))
    np.testing.assert_array_equal(rows.confusion, expected)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(target, predicted, labels=range(3))
    figures = rows.by_class()
    assert [each.precision.value for each in figures[:3]] == pytest.approx(precision)
    assert [each.recall.value for each in figures[:3]] == pytest.approx(recall)
    assert [each.f1.value for each in figures[:3]] == pytest.approx(f1)
    assert [each.actual for each in figures[:3]] == support.tolist()
    assert figures[3] == (0.0, 0.0, *[Metric(None, None)] * 3)
    wrong = expected.copy()
    np.fill_diagonal(wrong, 0)
    confused = rows.confused(3)
    assert [weight for *_, weight in confused] == sorted(wrong.ravel(), reverse=True)[:3]
    assert all(wrong[true, taken] == weight for true, taken, weight in confused)


def test_what_a_prediction_is_held_against() -> None:
    outputs = np.array([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    rows = classified(FOUR, outputs, [0, 1], None)
    assert rows.predicted.tolist() == [0, 0]
    assert rows.runner_up.tolist() == [2, 1]
    assert rows.is_event.tolist() == [True, False]
    chances = np.exp(outputs[0]) / np.exp(outputs[0]).sum()
    np.testing.assert_allclose(rows.true_probability, chances[[0, 1]])
    np.testing.assert_allclose(rows.probability, chances[[0, 0]])
    assert classified(BINARY, [[2.0], [-2.0]], [1.0, 1.0], None).runner_up.tolist() == [1, 0]


def test_tenths_of_predicted_numbers_by_hand() -> None:
    predicted, target = np.arange(20.0), np.arange(20.0) + np.tile([1.0, -3.0], 10)
    rows = estimated(NUMBER, predicted[::-1], target[::-1], None)
    tenths = rows.by_tenth()
    assert [tenth.num_rows for tenth in tenths] == [2] * 10
    assert [tenth.predicted for tenth in tenths] == [0.5 + 2 * place for place in range(10)]
    assert all(tenth.bias.value == 1.0 and tenth.absolute.value == 2.0 for tenth in tenths)
    assert tenths[0].target == -0.5
    assert len(estimated(NUMBER, [1.0, 2.0], [1.0, 1.0], None).by_tenth()) == 2
    weighted = estimated(NUMBER, [1.0, 2.0, 9.0], [0.0, 0.0, 0.0], [1.0, 3.0, 0.0])
    assert weighted.error.tolist() == [1.0, 2.0]
    assert judgement.Estimated(weighted.target, weighted.predicted, weighted.weight).by_tenth()[0].num_rows == 1
