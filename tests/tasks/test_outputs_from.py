"""Outputs that are made of the score table's columns give the same predictions and metrics as the model's own."""

from typing import Any

import numpy as np
import pytest

from mlspark.tasks.kinds import from_settings

KINDS: tuple[dict[str, Any], ...] = (
    {"kind": "binary", "classes": ["no", "yes"], "threshold": 0.3},
    {"kind": "multiclass", "classes": ["a", "b", "c"]},
    {"kind": "multiclass", "classes": ["a", "b", "c"], "probabilities": "array"},
    {"kind": "regression", "center": 3.0, "scale": 2.0},
    {"kind": "regression", "transform": "log1p", "center": 3.0, "scale": 2.0},
    {"kind": "regression", "standardise": False, "loss": {"kind": "quantile"}},
)


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_predictions_and_metrics_are_the_same(settings: dict[str, Any]) -> None:
    task = from_settings({"target": "y", **settings})
    random = np.random.default_rng(0)
    outputs = random.normal(size=(500, task.num_outputs)) * 2
    target = random.integers(0, max(2, task.num_outputs), 500).astype(float)
    scored = task.predictions(outputs)
    again = task.outputs_from(scored)
    assert again.shape == outputs.shape
    for name, values in task.predictions(again).items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, scored[name], rtol=1e-12, atol=1e-12)
        else:
            assert (values == scored[name]).all()
    expected, found = task.metrics(outputs, target), task.metrics(again, target)
    assert task.lost_metrics == ()
    for name in expected.values:
        assert found[name] == pytest.approx(expected[name], rel=1e-9), name


def test_certain_predictions_have_finite_outputs() -> None:
    binary = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"]})
    outputs = binary.outputs_from({"probability": [0.0, 1.0]})
    assert np.isfinite(outputs).all()
    assert binary.predictions(outputs)["prediction"].tolist() == ["no", "yes"]


def test_what_the_score_table_does_not_tell_of_quantiles_is_said() -> None:
    loss = {"kind": "quantile", "quantiles": [0.05, 0.25, 0.5, 0.75, 0.95]}
    task = from_settings({"kind": "regression", "target": "y", "standardise": False, "loss": loss})
    outputs = np.array([[1.0, 2.0, 3.0, 5.0, 9.0]])
    again = task.outputs_from(task.predictions(outputs))
    assert again[0, [0, 2, 4]].tolist() == [1.0, 3.0, 9.0]
    assert task.lost_metrics == ("pinball",)
