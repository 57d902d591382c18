"""An ensemble through all stages: a network that ranks train, and registered trees; scored as it was evaluated."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from benchmarks import _task_pipelines
from mlspark import tables
from mlspark.evaluation import predictions
from mlspark.features import prepared
from mlspark.settings import loading
from mlspark.stages.prepare import prepare
from mlspark.stages.score import score
from mlspark.stages.train import train
from mlspark.tracking import runs

from ..registry.conftest import kept_stores

NETWORK = "{model: {hidden: [16], dense_frequencies: 0}, training: {epochs: 3, num_processes: 1}}"


def test_a_network_and_registered_trees_are_one_version(spark: SparkSession, tmp_path: Path) -> None:
    file = str(_task_pipelines.wine().write(tmp_path))
    root = f"storage.root={tmp_path / 'home'}"
    trees = ["model={kind: trees, num_rounds: 20}", "registry.model_name=wine-trees"]
    settings = loading.load([file], [root])
    read = prepare(spark, settings)["rows_read"]
    with kept_stores():
        alone = train(spark, loading.load([file], [root, *trees]))
        members = f"model={{kind: ensemble, combine: weighted, members: [{NETWORK}, {{version: wine-trees@champion}}]}}"
        settings = loading.load([file], [root, members])
        trained = train(spark, settings)
        again = train(spark, settings)
        client = runs.connect(settings.tracking, settings.root)
        found = client.get_run(trained["run_id"])
        assert found.info.status == "FINISHED"
        served = mlflow.pyfunc.load_model("models:/wine/1")
        version = client.get_model_version("wine", "1")

    assert again["already_done"]
    assert again["model_version"] == trained["model_version"] == 1
    assert [(member["name"], member["kind"]) for member in trained["members"]] == [
        ("tabular", "tabular"), ("wine-trees-champion", "version")
    ]  # fmt: skip
    network, of_version = trained["members"]
    assert of_version["version"] == "wine-trees/1"
    assert of_version["test"]["log_loss"] == alone["metrics"]["test"]["log_loss"]
    assert {"tabular/validation_log_loss", "tabular/test_accuracy", "wine-trees-champion/test_accuracy"} <= set(
        found.data.metrics
    )
    assert found.data.metrics["test_log_loss"] == trained["metrics"]["test"]["log_loss"]
    assert network["weight"] + of_version["weight"] == 1.0
    assert version.tags["best_member"] == trained["best_member"]
    assert f"| wine-trees-champion | wine-trees/1 | {of_version['test']['accuracy']:.4f} |" in version.description

    task = prepared.latest(settings.table("features")).task
    kept = predictions.read(trained["predictions"]["test"])
    expected = pd.DataFrame(task.predictions(kept.outputs))
    report = score(spark, settings)
    assert report["rows_scored"] == read
    scores = tables.read(spark, report["output"]).toPandas().set_index("row_id").loc[kept.row_id]
    for column in task.prediction_types:
        np.testing.assert_array_equal(scores[column].to_numpy(), expected[column].to_numpy())
    raw = scores[[column for column in scores if column in pd.read_csv(tmp_path / "wine.csv")]].drop(columns="grape")
    for row in range(3):
        of_one = served.predict(raw.iloc[[row]])
        assert of_one.iloc[0].to_dict() == expected.iloc[row].to_dict()
