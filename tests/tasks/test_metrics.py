import warnings
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve
from sklearn.preprocessing import label_binarize

from mlspark.errors import MlsparkError
from mlspark.tasks.binary import probabilities
from mlspark.tasks.intervals import wilson_interval
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.metrics import Metric, Metrics
from mlspark.tasks.multiclass import softmax
from mlspark.tasks.task import Task

Floats = NDArray[np.float64]
RESAMPLED = ("macro_f1", "calibration_error", "quadratic_kappa")
BINARY = from_settings({"kind": "binary", "target": "income", "classes": ["no", "yes"]})
GRADES = from_settings({"kind": "multiclass", "target": "grade", "classes": ["a", "b", "c", "d"], "ordered": True})
NUMBER = from_settings({"kind": "regression", "target": "price", "standardise": False})
BAND = from_settings({"kind": "regression", "target": "price", "standardise": False, "loss": {"kind": "quantile"}})


def binary_rows(count: int, *, decimals: int = 7, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Logits with ties (rounded) that know something of the labels; labels; sample weights, a tenth of them 0."""
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.3).astype(np.float64)
    weights = np.where(random.random(count) < 0.1, 0.0, random.gamma(2, size=count))
    return np.round(random.normal(size=count) * 2 + labels, decimals)[:, None], labels, weights


def class_rows(count: int, *, decimals: int = 7, classes: int = 4, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    random = np.random.default_rng(seed)
    ids = random.integers(0, classes, count)
    outputs = random.normal(size=(count, 4))
    outputs[np.arange(count), ids] += 1
    return np.round(outputs, decimals), ids.astype(np.float64), random.gamma(2, size=count)


def number_rows(count: int, *, decimals: int = 7, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    random = np.random.default_rng(seed)
    target = np.round(random.gamma(2, 30, count), decimals)
    outputs = np.sort(target[:, None] + random.normal(size=(count, 3)) * 9 + [-10, 0, 10], axis=1)
    return np.round(outputs, decimals), target, random.integers(1, 5, count) / 2


def assert_values(metrics: Metrics, expected: dict[str, float | None], *, is_resampled: bool = True) -> None:
    assert set(metrics.values) == set(expected)
    for name, value in expected.items():
        found = metrics[name]
        if value is None:
            assert metrics.values[name] == Metric(None, None), name
        else:
            assert found == pytest.approx(value, abs=1e-9, rel=1e-9), name
            interval = metrics.values[name].interval
            assert (interval is None) == (name in RESAMPLED and not is_resampled), name
            if interval is not None:
                assert interval[0] - 1e-9 <= value <= interval[1] + 1e-9, name


def of_predictions(ids: Any, predicted: Any, weight: Any, names: str) -> dict[str, float | None]:
    """Scikit-learn's figures of class ids."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        macro = sklearn_metrics.precision_recall_fscore_support(
            ids, predicted, average="macro", sample_weight=weight, zero_division=0
        )
        single = sklearn_metrics.precision_recall_fscore_support(
            ids, predicted, labels=range(len(names)), sample_weight=weight, zero_division=np.nan
        )
        expected: dict[str, float | None] = {
            "accuracy": sklearn_metrics.accuracy_score(ids, predicted, sample_weight=weight),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(ids, predicted, sample_weight=weight),
            "macro_precision": macro[0],
            "macro_recall": macro[1],
            "macro_f1": macro[2],
        }
    for place, name in enumerate(names):
        for what, values in zip(("precision", "recall", "f1"), single, strict=False):
            expected[f"{what}_{name}"] = None if np.isnan(values[place]) else values[place]
    return expected


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [0, 1, 7])
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_binary_equals_scikit_learn(decimals: int, weighted: bool, threshold: float) -> None:
    logits, labels, weights = binary_rows(2_000, decimals=decimals)
    weight = weights if weighted else None
    task = BINARY.model_copy(update={"threshold": threshold})
    chances = 1 / (1 + np.exp(-logits[:, 0]))
    metrics = task.metrics(logits, labels, weight, intervals=False)
    by_class = of_predictions(labels, chances >= threshold, weight, "ny")
    by_class = {name.replace("_n", "_no").replace("_y", "_yes"): value for name, value in by_class.items()}
    assert metrics.num_rows == 2_000
    assert_values(
        metrics,
        by_class
        | {
            "roc_auc": sklearn_metrics.roc_auc_score(labels, logits[:, 0], sample_weight=weight),
            "average_precision": sklearn_metrics.average_precision_score(labels, logits[:, 0], sample_weight=weight),
            "log_loss": sklearn_metrics.log_loss(labels, chances, sample_weight=weight),
            "brier": sklearn_metrics.brier_score_loss(labels, chances, sample_weight=weight),
            "calibration_error": calibration_error(chances, labels, weights if weighted else np.ones(2_000)),
        },
        is_resampled=False,
    )


def calibration_error(chances: Floats, events: Floats, weight: Floats) -> float:
    total = 0.0
    for low in range(10):
        is_in = (chances > low / 10) & (chances <= (low + 1) / 10) | ((low == 0) & (chances == 0))
        total += abs(float((weight * (chances - events))[is_in].sum()))
    return total / float(weight.sum())


def test_calibration_error_equals_scikit_learns_curve() -> None:
    logits, labels, _ = binary_rows(3_000)
    chances = probabilities(logits[:, 0])
    shares, means = calibration_curve(labels, chances, n_bins=10)
    rows = np.histogram(chances, bins=10, range=(0, 1))[0] / 3_000
    expected = float((rows * np.abs(shares - means)).sum())
    assert BINARY.metrics(logits, labels)["calibration_error"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [0, 1, 7])
def test_multiclass_equals_scikit_learn(decimals: int, weighted: bool) -> None:
    outputs, ids, weights = class_rows(2_000, decimals=decimals)
    weight = weights if weighted else None
    chances = softmax(outputs)
    predicted = chances.argmax(axis=1)
    area: dict[str, Any] = {"multi_class": "ovr", "sample_weight": weight}
    indicator = label_binarize(ids, classes=range(4))
    kappa = sklearn_metrics.cohen_kappa_score(ids, predicted, weights="quadratic", sample_weight=weight)
    precision = sklearn_metrics.average_precision_score(indicator, chances, average="macro", sample_weight=weight)
    metrics = GRADES.metrics(outputs, ids, weight)
    assert_values(
        metrics,
        of_predictions(ids, predicted, weight, "abcd")
        | {
            "roc_auc": sklearn_metrics.roc_auc_score(ids, chances, average="macro", **area),
            "roc_auc_weighted": sklearn_metrics.roc_auc_score(ids, chances, average="weighted", **area),
            "average_precision": precision,
            "top_2_accuracy": sklearn_metrics.top_k_accuracy_score(ids, chances, k=2, sample_weight=weight),
            "log_loss": sklearn_metrics.log_loss(ids, chances, sample_weight=weight),
            "brier": sklearn_metrics.brier_score_loss(ids, chances, sample_weight=weight),
            "quadratic_kappa": kappa,
            "class_distance": sklearn_metrics.mean_absolute_error(ids, predicted, sample_weight=weight),
            "calibration_error": calibration_error(
                chances.max(axis=1), predicted == ids, weights if weighted else np.ones(2_000)
            ),
        },
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [0, 7])
@pytest.mark.parametrize("count", [2, 7, 2_000])
def test_regression_equals_scikit_learn(count: int, decimals: int, weighted: bool) -> None:
    outputs, target, weights = number_rows(count, decimals=decimals)
    weight = weights if weighted else None
    of: dict[str, Any] = {"sample_weight": weight}
    middle = outputs[:, 1]
    expected: dict[str, float | None] = {
        "rmse": sklearn_metrics.root_mean_squared_error(target, middle, **of),
        "mae": sklearn_metrics.mean_absolute_error(target, middle, **of),
        "median_ae": sklearn_metrics.median_absolute_error(target, middle, **of),
        "r2": sklearn_metrics.r2_score(target, middle, **of),
        "mape": sklearn_metrics.mean_absolute_percentage_error(target, middle, **of),
        "pinball": sklearn_metrics.mean_pinball_loss(target, middle, alpha=0.5, **of),
    }
    assert_values(NUMBER.metrics(outputs[:, 1:2], target, weight), expected)
    pinballs = [
        sklearn_metrics.mean_pinball_loss(target, outputs[:, place], alpha=quantile, **of)
        for place, quantile in enumerate((0.1, 0.5, 0.9))
    ]
    is_within = (outputs[:, 0] <= target) & (target <= outputs[:, 2])
    of_band = {"pinball": float(np.mean(pinballs)), "coverage": float(np.average(is_within, weights=weight))}
    assert_values(BAND.metrics(outputs, target, weight), expected | of_band)


def test_targets_of_zero_have_the_percentage_error_of_scikit_learn() -> None:
    target, predicted = np.array([0.0, 2.0]), np.array([1e-17, 1.0])
    expected = sklearn_metrics.mean_absolute_percentage_error(target, predicted)
    assert NUMBER.metrics(predicted[:, None], target)["mape"] == pytest.approx(expected, rel=1e-12)


def test_a_constant_target_has_no_r2() -> None:
    metrics = NUMBER.metrics([[1.0], [2.0], [4.0]], [2.0, 2.0, 2.0])
    assert metrics.values["r2"] == Metric(None, None)
    assert metrics["mae"] == 1.0  # (1 + 0 + 2) / 3


@pytest.mark.parametrize("decimals", [0, 2])
def test_absent_classes_are_left_out_as_in_scikit_learn(decimals: int) -> None:
    outputs, ids, _ = class_rows(400, decimals=decimals, classes=3)  # none of class d
    chances = softmax(outputs)
    predicted = chances.argmax(axis=1)
    metrics = GRADES.metrics(outputs, ids)
    for name, value in of_predictions(ids, predicted, None, "abcd").items():
        assert metrics[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name
    assert metrics["recall_d"] is None
    areas = [sklearn_metrics.roc_auc_score(ids == place, chances[:, place]) for place in range(3)]
    assert metrics["roc_auc"] == pytest.approx(np.mean(areas), abs=1e-12)
    shares = [(ids == place).mean() for place in range(3)]
    assert metrics["roc_auc_weighted"] == pytest.approx(np.dot(areas, shares), abs=1e-12)
    assert metrics["log_loss"] == pytest.approx(sklearn_metrics.log_loss(ids, chances, labels=range(4)), abs=1e-9)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_rows_of_one_class_have_no_areas_and_no_error(label: float) -> None:
    metrics = BINARY.metrics([[0.3], [-0.2]], [label, label])
    assert metrics.values["roc_auc"] == metrics.values["average_precision"] == Metric(None, None)
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == 0.5
    assert metrics["recall_no" if label else "recall_yes"] is None
    grades = GRADES.metrics([[0, 1, 2, 3], [3, 2, 1, 0]], [label, label])
    assert grades["roc_auc"] is None
    assert grades["quadratic_kappa"] is not None


def test_one_row_has_values_but_few_intervals() -> None:
    metrics = GRADES.metrics([[5, 0, 0, 0]], [0])
    assert metrics["accuracy"] == metrics["macro_f1"] == 1.0
    assert metrics["quadratic_kappa"] is None
    assert metrics.values["log_loss"].interval is None
    assert NUMBER.metrics([[1.0]], [3.0]).values["rmse"] == Metric(2.0, None)


def test_hand_worked_macro_figures() -> None:
    # actual a a b b, predicted a b b c: precision a 1, b 1/2, c 0; recall a 1/2, b 1/2, c counts as 0; F1 2/3, 1/2, 0.
    outputs = np.eye(4)[[0, 1, 1, 2]] * 9
    metrics = GRADES.metrics(outputs, [0, 0, 1, 1])
    assert metrics["macro_precision"] == pytest.approx(0.5)
    assert metrics["macro_recall"] == pytest.approx(1 / 3)
    assert metrics["balanced_accuracy"] == pytest.approx(0.5)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert metrics["class_distance"] == 0.5
    assert metrics.values["recall_c"] == Metric(None, None)
    assert metrics.values["precision_c"] == Metric(0.0, wilson_interval(0.0, 1.0))


@pytest.mark.parametrize("task", [BINARY, GRADES, BAND])
@pytest.mark.parametrize("weighted", [False, True])
def test_order_of_rows_changes_no_bit(task: Task, weighted: bool) -> None:
    rows = {"binary": binary_rows, "multiclass": class_rows, "regression": number_rows}[task.kind]
    outputs, target, weights = rows(3_001, decimals=2)
    order = np.random.default_rng(1).permutation(len(target))
    first = task.metrics(outputs, target, weights if weighted else None)
    again = task.metrics(outputs[order], target[order], weights[order] if weighted else None)
    assert first == again


@pytest.mark.parametrize("task", [BINARY, GRADES, BAND])
def test_whole_weights_count_rows_and_weight_zero_leaves_them_out(task: Task) -> None:
    rows = {"binary": binary_rows, "multiclass": class_rows, "regression": number_rows}[task.kind]
    outputs, target, _ = rows(500, decimals=2)
    times = np.random.default_rng(2).integers(0, 4, 500)
    weighted = task.metrics(outputs, target, times, intervals=False)
    repeated = task.metrics(np.repeat(outputs, times, axis=0), np.repeat(target, times), intervals=False)
    for name in weighted.values:
        assert weighted[name] == pytest.approx(repeated[name], rel=1e-9), name


@pytest.mark.parametrize("task", [BINARY, GRADES, BAND])
def test_equal_weights_change_neither_values_nor_intervals(task: Task) -> None:
    rows = {"binary": binary_rows, "multiclass": class_rows, "regression": number_rows}[task.kind]
    outputs, target, _ = rows(500, decimals=2)
    plain, weighted = task.metrics(outputs, target), task.metrics(outputs, target, np.full(500, 3.0))
    for name, (value, interval) in plain.values.items():
        assert weighted[name] == pytest.approx(value, rel=1e-9), name
        # An area of weighted rows has one variance of all rows: n / (n - 1) instead of that of each class.
        assert weighted.values[name].interval == pytest.approx(interval, rel=1e-3 if name == "roc_auc" else 1e-9), name


@pytest.mark.parametrize("weight", [[1.0, -1.0], [1.0, np.nan], [np.inf, 1.0]])
def test_weights_that_are_none_are_refused(weight: list[float]) -> None:
    with pytest.raises(MlsparkError, match=r"at least 0; correct the column that task\.weight names"):
        BINARY.metrics([[0.1], [0.2]], [0, 1], weight)


@pytest.mark.parametrize("task", [BINARY, GRADES, BAND])
def test_rows_that_all_weigh_nothing_are_refused(task: Task) -> None:
    with pytest.raises(MlsparkError, match="all rows weigh 0"):
        task.metrics(np.zeros((2, task.num_outputs)), [0, 1], [0.0, 0.0])


def test_extreme_logits_give_finite_figures() -> None:
    metrics = BINARY.metrics([[1000.0], [-1000.0], [1000.0], [-1000.0]], [1, 0, 0, 1])
    assert metrics["log_loss"] == 500.0
    assert (metrics["accuracy"], metrics["roc_auc"]) == (0.5, 0.5)
    assert GRADES.metrics([[1000.0, 0, 0, -1000.0]] * 2, [3, 0])["log_loss"] == 1000.0


def test_probability_of_logit_zero_is_one_half_and_predicts_the_event() -> None:
    np.testing.assert_array_equal(probabilities([0.0, -800.0, 800.0]), [0.5, 0.0, 1.0])
    assert BINARY.metrics([[0.0]], [1])["accuracy"] == 1.0


def test_the_event_may_be_the_first_class() -> None:
    logits, labels, _ = binary_rows(300, decimals=1)
    first = from_settings({"kind": "binary", "target": "income", "classes": ["yes", "no"], "event": "yes"})
    assert first.metrics(logits, labels).to_json() == BINARY.metrics(logits, labels).to_json()


def test_metrics_survive_json_and_keep_the_keys_of_earlier_versions() -> None:
    logits, labels, _ = binary_rows(200)
    metrics = BINARY.metrics(logits, labels)
    flat = metrics.to_json()
    assert Metrics.from_json(flat) == metrics
    assert list(flat)[:7] == [
        "num_rows",
        "accuracy",
        "accuracy_interval",
        "roc_auc",
        "roc_auc_interval",
        "log_loss",
        "log_loss_interval",
    ]
    assert Metrics.from_json(BINARY.metrics([[0.5]], [1.0]).to_json())["roc_auc"] is None


@pytest.mark.parametrize("seed", range(8))
def test_binary_figures_have_the_bits_of_earlier_versions(seed: int) -> None:
    logits, labels, _ = binary_rows(50 + 400 * seed, decimals=seed, seed=seed)
    flat = BINARY.metrics(logits, labels, intervals=False).to_json()
    expected = earlier_metrics(logits[:, 0], labels)
    assert {name: flat[name] for name in expected} == expected


def earlier_metrics(scores: Floats, labels: Floats) -> dict[str, Any]:
    """The definitions that runs and versions were measured by before there were tasks."""

    def midranks(values: Floats) -> Floats:
        _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group])

    is_event, count, z = labels > 0.5, len(scores), NormalDist().inv_cdf(0.975)
    small = np.exp(-np.abs(scores))
    chances = np.where(scores >= 0, 1.0, small) / (1.0 + small)
    right = int(((chances >= 0.5) == is_event).sum())
    share, z2 = right / count, z**2
    centre, half = share + z2 / (2 * count), z * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    ranks, events, others = midranks(scores), int(is_event.sum()), int((~is_event).sum())
    auc = (float(ranks[is_event].sum()) - events * (events + 1) / 2) / (events * others)
    event_shares = np.sort((ranks[is_event] - midranks(scores[is_event])) / others)
    other_shares = np.sort((ranks[~is_event] - midranks(scores[~is_event])) / events)
    spread = z * np.sqrt(event_shares.var(ddof=1) / events + other_shares.var(ddof=1) / others)
    losses = np.logaddexp(0.0, np.where(is_event, -scores, scores))
    return {
        "num_rows": count,
        "accuracy": share,
        "accuracy_interval": [(centre - half) / (1 + z2 / count), (centre + half) / (1 + z2 / count)],
        "roc_auc": auc,
        "roc_auc_interval": [max(0.0, auc - spread), min(1.0, auc + spread)],
        "log_loss": float(np.sort(losses).sum() / count),
    }


@pytest.mark.parametrize("task", [BINARY, GRADES, NUMBER, BAND])
def test_metrics_are_those_that_the_task_names(task: Task) -> None:
    metrics = task.metrics(np.zeros((3, task.num_outputs)), [0, 1, 0])
    assert tuple(metrics.values) == task.metric_names
    assert task.default_metric in task.metric_names
    assert task.lower_is_better(task.default_metric)
