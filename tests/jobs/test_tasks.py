"""Several classes and a number to predict, through all stages with real ranks; what is scored is what was evaluated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from sklearn import metrics as sklearn_metrics

from benchmarks import _task_pipelines
from mlspark import tables
from mlspark.evaluation import predictions
from mlspark.features import prepared
from mlspark.settings import loading
from mlspark.stages.prepare import prepare
from mlspark.stages.score import score
from mlspark.stages.train import train

# Floor of test metrics that a run must reach: well below what it does, and well above guessing.
FLOORS = {"digits": ("accuracy", 0.93), "wine": ("accuracy", 0.9), "diabetes": ("r2", 0.3), "houses": ("r2", 0.75)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diabetes", "digits", "wine", "houses"])
def test_a_task_goes_through_all_stages_and_scores_what_was_evaluated(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    file = _task_pipelines.ALL[name]().write(tmp_path)
    settings = loading.load([str(file)], [f"storage.root={tmp_path / 'home'}", "scoring.model=challenger"])
    read = prepare(spark, settings)["rows_read"]
    trained = train(spark, settings)
    assert trained["world_size"] == 2
    evaluated = trained["metrics"]["test"]
    metric, floor = FLOORS[name]
    assert evaluated[metric] > floor

    task = prepared.latest(settings.table("features")).task
    kept = predictions.read(trained["predictions"]["test"])
    expected = task.predictions(kept.outputs)
    for key, value in by_scikit_learn(task.kind, expected, kept.target, task).items():
        assert evaluated[key] == pytest.approx(value, abs=1e-9, rel=1e-9), key

    report = score(spark, settings)
    assert report["rows_scored"] == read
    scores = tables.read(spark, report["output"]).toPandas().set_index("row_id")
    of_test = scores.loc[kept.row_id]
    assert len(of_test) == evaluated["num_rows"]
    for column in task.prediction_types:
        given, wanted = of_test[column].to_numpy(), expected[column]
        if np.issubdtype(np.asarray(wanted).dtype, np.floating):
            np.testing.assert_allclose(given, wanted, rtol=1e-6, atol=1e-6)
        else:
            assert given.tolist() == wanted.tolist()


def by_scikit_learn(kind: str, predicted: dict[str, Any], target: np.ndarray[Any, Any], task: Any) -> dict[str, float]:
    """The metrics as scikit-learn computes them from the columns of the score table."""
    if kind == "regression":
        value = predicted["prediction"]
        return {
            "rmse": sklearn_metrics.root_mean_squared_error(target, value),
            "mae": sklearn_metrics.mean_absolute_error(target, value),
            "median_ae": sklearn_metrics.median_absolute_error(target, value),
            "r2": sklearn_metrics.r2_score(target, value),
            "mape": sklearn_metrics.mean_absolute_percentage_error(target, value),
        }
    classes = np.array(task.classes)
    true = classes[target.astype(int)]
    chances = np.stack([values for name, values in predicted.items() if name.startswith("probability")], axis=1)
    return {
        "accuracy": sklearn_metrics.accuracy_score(true, predicted["prediction"]),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(true, predicted["prediction"]),
        "macro_f1": sklearn_metrics.f1_score(true, predicted["prediction"], average="macro"),
        "log_loss": sklearn_metrics.log_loss(true, chances, labels=classes),
        "roc_auc": sklearn_metrics.roc_auc_score(true, chances, multi_class="ovr", average="macro", labels=classes),
    }
