"""Metrics of many weightings at once, beside the task's own of each weighting, which equal scikit-learn's."""

from typing import Any

import numpy as np
import pytest

from mlspark.evaluation.resampled_metrics import by_weight
from mlspark.tasks.kinds import from_settings
from tests.evaluation.two_models import BAND, BINARY, GRADES, NUMBER, outputs_and_target

RARE = from_settings({"kind": "multiclass", "target": "y", "classes": [f"c{place:02d}" for place in range(40)]})
LOW = from_settings({"kind": "binary", "target": "y", "classes": ["yes", "no"], "event": "yes", "threshold": 0.2})


@pytest.mark.parametrize("decimals", [9, 0], ids=["distinct", "ties"])
@pytest.mark.parametrize("task", [BINARY, LOW, GRADES, RARE, NUMBER, BAND], ids=lambda task: str(task.kind))
def test_metrics_by_weight_are_the_tasks(task: Any, decimals: int) -> None:
    outputs, _, target = outputs_and_target(task, 160, decimals=decimals)
    random = np.random.default_rng(1)
    weights = random.integers(0, 4, (6, 160)) * random.choice([0.5, 1.0, 2.5], 160)
    weights[0] = 1.0

    values = by_weight(task, outputs, target)(weights)

    left_out = {"roc_auc", "roc_auc_weighted", "average_precision"} if task is RARE else set()
    assert set(values) >= set(task.metric_names) - left_out
    for place, weight in enumerate(weights):
        expected = task.metrics(outputs, target, weight, intervals=False)
        for name in set(task.metric_names) - left_out:
            value = np.nan if expected[name] is None else expected[name]
            assert values[name][place] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), name


def test_figures_of_absent_classes_are_not_defined() -> None:
    outputs, _, target = outputs_and_target(BINARY, 30)
    only_no = np.where(target > 0.5, 0.0, 1.0)[None, :]

    values = by_weight(BINARY, outputs, target)(only_no)

    assert np.isnan(values["roc_auc"][0])
    assert np.isnan(values["average_precision"][0])
    assert np.isnan(values["recall_yes"][0])
    assert 0 < values["accuracy"][0] < 1
