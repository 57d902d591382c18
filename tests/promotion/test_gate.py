"""The gate on known predictions: which way is better, by how much, and what is not defined."""

import numpy as np
import pytest

from mlspark.evaluation.comparison import compare
from mlspark.evaluation.predictions import Predictions
from mlspark.registry import gate
from mlspark.registry.gate import PromotionSettings

from ..registry.example import package
from .conftest import NUM_ROWS, TARGET, outputs


def rows(num_wrong: int) -> Predictions:
    return Predictions.of(np.arange(NUM_ROWS), TARGET.astype(float), outputs(num_wrong))


@pytest.mark.parametrize(
    ("settings", "champion", "challenger", "met"),
    [
        (PromotionSettings(metric="log_loss"), 40, 10, [True]),  # lower is better
        (PromotionSettings(metric="log_loss"), 10, 40, [False]),
        (PromotionSettings(metric="accuracy"), 40, 40, [False]),
        (PromotionSettings(metric="accuracy", min_gain=0.02), 40, 10, [True]),  # a gain of 0.075
        (PromotionSettings(metric="accuracy", min_gain=0.06), 40, 10, [False]),  # is not above 0.06 for sure
        (PromotionSettings(min_gain=None, max_loss={"accuracy": 0.1, "log_loss": 0.001}), 40, 44, [True, False]),
        (PromotionSettings(min_gain=None, max_loss={"accuracy": 0.0}), 40, 40, [True]),
    ],
)
def test_a_gain_is_measured_by_the_lower_end_of_its_interval(
    settings: PromotionSettings, champion: int, challenger: int, met: list[bool]
) -> None:
    task = package().task
    compared = compare(task, rows(champion), rows(challenger), confidence=settings.confidence)
    checks = list(gate.of_comparison(settings, task, compared))
    assert [check.is_met for check in checks] == met
    for check in checks:
        assert check.figures["low"] <= check.figures["gain"] <= check.figures["high"]
        assert np.sign(check.figures["gain"]) == np.sign(champion - challenger)


def test_a_metric_that_is_not_defined_passes_nobody() -> None:
    task = package().task
    one_class = Predictions.of(np.arange(200), np.ones(200), np.linspace(-1, 2, 200)[:, None])
    compared = compare(task, one_class, one_class)
    [check] = gate.of_comparison(PromotionSettings(metric="roc_auc"), task, compared)
    assert (check.is_met, check.reason) == (False, "ROC AUC: not to be compared, its value or interval is not defined")
