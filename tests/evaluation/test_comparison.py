"""Differences of two versions beside scipy, scikit-learn and statsmodels on the same predictions, and published values."""

import json
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit
from sklearn import metrics as sklearn_metrics
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from mlspark.errors import ConfigError
from mlspark.evaluation.comparison import Comparison, compare, holm
from mlspark.evaluation.delong import delong
from mlspark.evaluation.mcnemar import mcnemar
from mlspark.evaluation.paired_losses import paired_losses
from mlspark.evaluation.paired_rows import ComparisonError
from mlspark.evaluation.predictions import Predictions
from mlspark.tasks.kinds import from_settings
from tests.evaluation.two_models import BAND, BINARY, GRADES, NUMBER, Floats, kept, outputs_and_target

from ..conftest import imported_by

ALBUMIN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
"""Albumin, total protein, K-G score and outcome of 43 patients: DeLong et al. 1988, as in the SAS/STAT User's Guide, chapter
LOGISTIC, example "Comparing Receiver Operating Characteristic Curves", which also prints the results below."""


def test_delong_gives_the_published_table() -> None:
    albumin, protein, score, outcome = np.array(ALBUMIN.split(), np.float64).reshape(-1, 4).T

    of_protein = delong(10 - score, protein, outcome > 0.5)
    of_albumin = delong(10 - score, albumin, outcome > 0.5)

    assert of_protein is not None
    assert of_albumin is not None
    assert (round(of_protein.first, 4), round(of_protein.second, 4), round(of_albumin.second, 4)) == (
        0.7258,
        0.6478,
        0.7366,
    )
    for found, printed in (
        (of_protein, (-0.0780, 0.1046, -0.2830, 0.1271, 0.4561)),
        (of_albumin, (0.0108, 0.0953, -0.1761, 0.1976, 0.9102)),
    ):
        figures = (found.difference, found.standard_error, *found.interval, found.p_value)
        assert tuple(round(figure, 4) for figure in figures) == printed


def test_delong_is_the_variance_of_structural_components() -> None:
    """All pairs of the definition (1988, equations 4 to 8) in exact fractions, ties included."""
    first, second, target = outputs_and_target(BINARY, 60, decimals=0)

    found = delong(first[:, 0], second[:, 0], target)

    areas, components = [], []
    for scores in (first[:, 0], second[:, 0]):
        events, others = (scores[target == of].tolist() for of in (1, 0))
        psi = {
            (i, j): Fraction(1 if x > y else 0) + Fraction(int(x == y), 2)
            for (i, x), (j, y) in product(enumerate(events), enumerate(others))
        }
        m, n = len(events), len(others)
        components.append(
            (
                [sum(psi[i, j] for j in range(n)) / Fraction(n) for i in range(m)],
                [sum(psi[i, j] for i in range(m)) / Fraction(m) for j in range(n)],
            )
        )
        areas.append(sum(psi.values()) / Fraction(m * n))
    variance = Fraction(0)
    for side in (0, 1):
        shares = [b - a for a, b in zip(components[0][side], components[1][side], strict=True)]
        mean = sum(shares) / Fraction(len(shares))
        variance += sum((share - mean) ** 2 for share in shares) / Fraction((len(shares) - 1) * len(shares))
    assert found is not None
    assert found.difference == pytest.approx(float(areas[1] - areas[0]), abs=1e-12)
    assert found.standard_error**2 == pytest.approx(float(variance), rel=1e-9)
    assert found.z == pytest.approx(float(areas[1] - areas[0]) / float(variance) ** 0.5, rel=1e-9)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(found.z)), rel=1e-9)


def test_mcnemar_gives_the_published_value() -> None:
    """Stata's manual of `mcc`: 8 pairs and 3 pairs that differ, "Exact McNemar significance probability = 0.2266"."""
    only_cases, only_controls = np.arange(27) < 8, (np.arange(27) >= 8) & (np.arange(27) < 11)

    assert mcnemar(only_cases, only_controls).p_value == pytest.approx(0.2265625, abs=1e-12)


def same(found: Comparison, name: str, values: tuple[float, float]) -> None:
    difference = found.differences[name]
    assert (difference.a, difference.b) == pytest.approx(values, abs=1e-9)
    assert difference.difference == pytest.approx(values[1] - values[0], abs=1e-9)


def test_differences_of_two_classes_are_scikit_learns_and_tests_are_scipys_and_statsmodels() -> None:
    first, second, target = kept(BINARY, 400)

    found = compare(BINARY, first, second, resamples=100, confidence=0.9)

    chances = [expit(rows.outputs[:, 0]) for rows in (first, second)]
    for name, function in {
        "roc_auc": sklearn_metrics.roc_auc_score,
        "log_loss": sklearn_metrics.log_loss,
        "brier": sklearn_metrics.brier_score_loss,
        "average_precision": sklearn_metrics.average_precision_score,
    }.items():
        same(found, name, (function(target, chances[0]), function(target, chances[1])))
    right = [(chance >= 0.5) == (target == 1) for chance in chances]
    same(found, "accuracy", (right[0].mean(), right[1].mean()))
    table = [[int(((right[0] == a) & (right[1] == b)).sum()) for b in (True, False)] for a in (True, False)]
    assert found.differences["accuracy"].test == "exact McNemar"
    assert found.differences["accuracy"].p_value == pytest.approx(
        statsmodels_mcnemar(table, exact=True).pvalue, abs=1e-9
    )
    losses = [-np.log(np.where(target == 1, chance, 1 - chance)) for chance in chances]
    expected = stats.ttest_rel(losses[1], losses[0])
    of_losses = found.losses["log_loss"]
    assert (of_losses.t, of_losses.p_value) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-9)
    assert of_losses.interval == pytest.approx(tuple(expected.confidence_interval(0.9)), abs=1e-9)
    assert found.differences["log_loss"].p_value == of_losses.p_value
    assert found.differences["roc_auc"].test == "DeLong"


@pytest.mark.parametrize("count", [30, 300])
def test_losses_of_numbers_are_tested_as_by_scipy(count: int) -> None:
    first, second, target = kept(NUMBER, count)

    found = compare(NUMBER, first, second, resamples=100)

    errors = [1.0 + 2.0 * rows.outputs[:, 0] - target for rows in (first, second)]
    same(found, "r2", tuple(sklearn_metrics.r2_score(target, target + error) for error in errors))
    for name, losses in {"rmse": [e**2 for e in errors], "mae": [np.abs(e) for e in errors]}.items():
        t, ranks = stats.ttest_rel(losses[1], losses[0]), stats.wilcoxon(losses[1], losses[0])
        of_losses = found.losses[name]
        assert (of_losses.t, of_losses.p_value) == pytest.approx((t.statistic, t.pvalue), abs=1e-9)
        assert of_losses.interval == pytest.approx(tuple(t.confidence_interval(0.95)), abs=1e-9)
        assert (of_losses.signed_ranks, of_losses.signed_ranks_p_value) == pytest.approx(tuple(ranks), abs=1e-9)
        assert found.differences[name].p_value == of_losses.p_value
    assert found.differences["rmse"].lower_is_better
    assert not found.differences["r2"].lower_is_better


def test_intervals_are_scipys_paired_bootstrap() -> None:
    first, second, target = kept(BINARY, 120)
    found = compare(BINARY, first, second, resamples=200, seed=4, confidence=0.9)

    def difference_of(metric: Any) -> Any:
        def difference(places: NDArray[np.int64]) -> float:
            a, b = (metric(target[places], rows.outputs[places, 0]) for rows in (first, second))
            return float(b - a)

        return difference

    def accuracy(labels: Floats, logits: Floats) -> float:
        return float(np.mean((logits >= 0) == (labels == 1)))

    for name, metric in {"accuracy": accuracy, "roc_auc": sklearn_metrics.roc_auc_score}.items():
        expected = stats.bootstrap(
            (np.arange(120),), difference_of(metric), n_resamples=200, vectorized=False, paired=True,
            confidence_level=0.9, method="percentile", rng=np.random.default_rng(4),
        )  # fmt: skip
        limits = (found.differences[name].low, found.differences[name].high)
        assert limits == pytest.approx(tuple(expected.confidence_interval), abs=1e-9), name


def test_calibration_error_is_moved_by_what_resampling_adds() -> None:
    """Equal models: a resample's error is larger than the rows' own, and by the same on either side."""
    first, second, _ = kept(BINARY, 400, noises=(0.0, 3.0))
    of_differences = compare(BINARY, first, second, resamples=400).differences["calibration_error"]
    assert of_differences.low is not None
    assert of_differences.high is not None
    assert of_differences.difference is not None
    assert of_differences.low < of_differences.difference < of_differences.high
    assert of_differences.better == "a"


def test_weights_count_rows_and_leave_only_the_bootstrap() -> None:
    first, second, target = kept(BINARY, 300, is_weighted=True)

    found = compare(BINARY, first, second, resamples=200)

    assert first.weight is not None
    assert found.num_rows == int((first.weight > 0).sum()) < 300
    assert (found.mcnemar, found.delong, found.losses) == (None, None, {})
    assert {difference.test for difference in found.differences.values()} == {"paired bootstrap"}
    areas = [
        sklearn_metrics.roc_auc_score(target, rows.outputs[:, 0], sample_weight=first.weight)
        for rows in (first, second)
    ]
    same(found, "roc_auc", (areas[0], areas[1]))


def test_order_of_rows_changes_nothing_and_equal_rows_are_paired() -> None:
    outputs, others, target = outputs_and_target(BINARY, 80)
    doubled = np.concatenate([np.arange(80), np.arange(40)])
    first, second = (Predictions.of(doubled, target[doubled], values[doubled]) for values in (outputs, others))
    shuffled = np.random.default_rng(0).permutation(120)
    again = Predictions(first.row_id[shuffled], first.target[shuffled], first.outputs[shuffled])

    assert compare(BINARY, again, second, resamples=100) == compare(BINARY, first, second, resamples=100)


@pytest.mark.parametrize("task", [BINARY, GRADES, NUMBER, BAND], ids=["binary", "grades", "number", "band"])
def test_a_version_does_not_differ_from_itself(task: Any) -> None:
    first, _, _ = kept(task, 50)

    found = compare(task, first, first, resamples=100)

    assert list(found.differences) == list(task.metric_names)
    for name, difference in found.differences.items():
        if difference.a is not None:
            assert (difference.difference, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1), name
        assert difference.better == ""


def test_better_is_the_version_whose_interval_leaves_out_0() -> None:
    first, second, _ = kept(BINARY, 600, noises=(0.2, 3.0))
    found = compare(BINARY, first, second, resamples=200)
    assert {found.differences[name].better for name in ("accuracy", "roc_auc", "log_loss", "brier")} == {"a"}
    assert {
        compare(BINARY, second, first, resamples=200).differences[name].better for name in ("accuracy", "log_loss")
    } == {"b"}


def test_another_threshold_is_the_same_task() -> None:
    first, second, target = kept(BINARY, 200)
    low = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"], "threshold": 0.2})

    found = compare(BINARY, first, second, challenger_task=low, resamples=100)

    same(
        found,
        "recall_yes",
        tuple(float((expit(rows.outputs[target == 1, 0]) >= at).mean()) for rows, at in ((first, 0.5), (second, 0.2))),
    )


def test_other_quantiles_are_not_compared() -> None:
    band = from_settings(
        {
            "kind": "regression",
            "target": "y",
            "standardise": False,
            "loss": {"kind": "quantile", "quantiles": [0.2, 0.5, 0.8]},
        }
    )
    first, second, _ = kept(BAND, 60)
    assert not {"pinball", "coverage"} & set(
        compare(BAND, first, second, challenger_task=band, resamples=100).differences
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"row_id": np.arange(1, 51)}, "other rows (1 of 50 only in a/1, as row_id 0; 1 of 50 only in a/2, as row_id 50)"),
        ({"row_id": np.arange(40), "kept": 40}, "(10 of 50 only in a/1, as row_id 40; none only in a/2)"),
        ({"target": np.zeros(50)}, "rows have another target or weight in one than in the other, as row_id"),
        ({"weight": np.ones(50)}, "only one has sample weights; compare versions of one task.weight"),
        ({"kept": 0}, "no rows were predicted"),
    ],
)  # fmt: skip
def test_other_rows_are_refused(changed: dict[str, Any], message: str) -> None:
    first, second, _ = kept(BINARY, 50)
    count = changed.pop("kept", 50)
    parts = {"row_id": second.row_id, "target": second.target, "outputs": second.outputs, "weight": None} | changed
    other = Predictions.of(*(None if part is None else part[:count] for part in parts.values()))

    with pytest.raises(ComparisonError) as caught:
        compare(BINARY, first, other, names=("a/1", "a/2"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "binary", "target": "z", "classes": ["no", "yes"]}, "task.target y and z"),
        ({"kind": "binary", "target": "y", "classes": ["no", "yes"], "event": "no"}, "task.event yes and no"),
        ({"kind": "multiclass", "target": "y", "classes": ["no", "yes", "both"]}, "task.kind binary and multiclass"),
        ({"kind": "binary", "target": "y", "classes": ["no", "yes"], "weight": "w"}, "task.weight None and w"),
    ],
)
def test_other_tasks_are_refused(settings: dict[str, Any], message: str) -> None:
    first, second, _ = kept(BINARY, 50)
    with pytest.raises(ComparisonError) as caught:
        compare(BINARY, first, second, challenger_task=from_settings(settings), names=("a/1", "b/2"))
    assert message in str(caught.value)
    assert "a/1, b/2: not versions for the same task" in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"confidence": 1.0}, {"confidence": 0.0}, {"confidence": float("nan")}, {"resamples": 99}]
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    first, second, _ = kept(BINARY, 50)
    with pytest.raises(ConfigError, match=next(iter(options))):
        compare(BINARY, first, second, **options)


def test_few_rows_are_compared_as_far_as_they_go() -> None:
    first, second, _ = kept(BINARY, 1)
    found = compare(BINARY, first, second, resamples=100)
    assert found.delong is None
    assert found.losses == {}
    assert found.differences["roc_auc"].difference is None
    assert found.differences["log_loss"].test == "paired bootstrap"


@pytest.mark.slow
@pytest.mark.parametrize("task", [BINARY, NUMBER], ids=["binary", "number"])
def test_intervals_hold_the_truth_95_times_of_100(task: Any) -> None:
    """2,000 samples of 1,000 rows; of a share of 0.95 the standard error is 0.5 %. The truth: of 2,000,000 other rows.

    Percentiles of B resamples leave out 1 / B more on either side than they should: 1,000, not fewer.
    """
    names = ("accuracy", "roc_auc", "log_loss", "brier", "recall_yes") if task is BINARY else ("rmse", "mae", "r2")
    first, second, target = outputs_and_target(task, 2_000_000, seed=-1 % 2**32)
    of_all = [task.metrics(outputs, target, intervals=False) for outputs in (first, second)]
    truth = {name: of_all[1][name] - of_all[0][name] for name in names}
    of_tests = {"log_loss": truth.get("log_loss"), "roc_auc": truth.get("roc_auc"), "mae": truth.get("mae")}
    hits: dict[str, list[bool]] = {}

    for seed in range(10_000, 12_000):
        a, b, _ = kept(task, 1_000, seed=seed)
        found = compare(task, a, b, resamples=1_000, seed=1_000_000 + seed)  # other draws than the rows
        for name in names:
            difference = found.differences[name]
            assert difference.low is not None
            assert difference.high is not None
            hits.setdefault(name, []).append(difference.low <= truth[name] <= difference.high)
        exact = {name: of_losses.interval for name, of_losses in found.losses.items()}
        exact |= {"roc_auc": found.delong.interval} if found.delong else {}
        for name, (low, high) in exact.items():
            if (value := of_tests.get(name)) is not None:
                hits.setdefault(f"{name}, exact", []).append(low <= value <= high)

    shares = {name: float(np.mean(hit)) for name, hit in hits.items()}
    assert {name: share for name, share in shares.items() if abs(share - 0.95) > 0.015} == {}, list(shares.items())


def test_equal_differences_have_no_spread() -> None:
    found = paired_losses(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0]))
    assert found is not None
    assert (found.difference, found.interval, found.p_value) == (1.0, (1.0, 1.0), 0.0)


def test_holm_is_that_of_statsmodels() -> None:
    p_values = np.random.default_rng(0).random(12) ** 3
    expected = multipletests(p_values, method="holm")[1]
    assert holm(list(p_values)) == pytest.approx(list(expected), abs=1e-12)
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([]) == []


def test_result_is_json_that_says_which_is_better() -> None:
    first, second, _ = kept(BINARY, 60)
    text = json.dumps(compare(BINARY, first, second, resamples=100).to_json(), allow_nan=False)
    read = json.loads(text)
    assert read["differences"]["accuracy"]["better"] in ("a", "b", "")
    assert read["mcnemar"]["p_value"] == read["differences"]["accuracy"]["p_value"]


def test_training_and_promoting_wait_for_no_tests_of_scipy_until_versions_are_compared() -> None:
    imported = imported_by("mlspark.stages.train", "mlspark.stages.promote")
    assert not {"scipy.stats", "scipy.optimize"} & imported
