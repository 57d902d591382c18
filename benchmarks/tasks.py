"""How good networks and trees are on several classes and on numbers, beside scikit-learn's boosted trees.

    python benchmarks/tasks.py [--quick] [--json FILE]

Each pipeline of `_task_pipelines` goes through prepare and train with two ranks, once as a network and once as trees;
scikit-learn's HistGradientBoosting, with its defaults, learns from the same rows of the same table. Prints the metric of the
test rows with its 95 % interval. Keys of the JSON: DATA -> {MODEL: {metric, value, interval, seconds}}.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import _task_pipelines
import numpy as np
import typer
from deltalake import DeltaTable
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from mlspark import session
from mlspark.features import prepared as preparations
from mlspark.features.prepared import Prepared
from mlspark.settings import loading
from mlspark.stages.prepare import prepare
from mlspark.stages.train import train

ROOT = Path(__file__).resolve().parents[1]
METRICS = {"multiclass": "accuracy", "regression": "r2"}


def boosted(prepared: Prepared) -> tuple[dict[str, Any], float]:
    """Return the test metrics, and the seconds of fitting, of scikit-learn's trees on the feature table."""
    frame = DeltaTable(prepared.table, version=prepared.version).to_pandas().sort_values("row_id")
    names = [output.name for output in prepared.encoder.outputs]
    rows = {split: (part[names].to_numpy(), part["label"].to_numpy()) for split, part in frame.groupby("split")}
    task, started = prepared.task, time.monotonic()
    x, y = (np.concatenate([rows["train"][side], rows["validation"][side]]) for side in range(2))
    x_test, y_test = rows["test"]
    if task.kind == "multiclass":
        model = HistGradientBoostingClassifier(random_state=0).fit(x, y)
        outputs = np.log(model.predict_proba(x_test))
    else:
        model = HistGradientBoostingRegressor(random_state=0).fit(x, y)
        # The task's outputs are of the transformed, standardised target.
        value = np.log1p(model.predict(x_test)) if task.transform == "log1p" else model.predict(x_test)
        outputs = ((value - task.center) / task.scale)[:, None]
    return task.metrics(outputs, y_test).to_json(), time.monotonic() - started


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Wine alone.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Compare models on several tasks."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="mlspark-tasks-") as name:
        spark = session.start("tasks")
        spark.sparkContext.setLogLevel("ERROR")
        try:
            for data in ["wine"] if quick else [*_task_pipelines.ALL]:
                file = _task_pipelines.ALL[data]().write(Path(name) / data)
                settings = loading.load([str(file)], [f"storage.root={name}/{data}/home"])
                prepare(spark, settings)
                prepared = preparations.latest(settings.table("features"))
                trees = loading.override(
                    settings.model_copy(update={"training": settings.training}),
                    {"model": {"kind": "trees"}},
                    source="trees",
                )
                results = {}
                for model, chosen in (("network", settings), ("trees", trees)):
                    started = time.monotonic()
                    results[model] = train(spark, chosen)["metrics"]["test"], time.monotonic() - started
                results["HistGradientBoosting"] = boosted(prepared)
                metric = METRICS[prepared.task.kind]
                figures[data] = {
                    model: {
                        "metric": metric,
                        "value": measured[metric],
                        "interval": measured[f"{metric}_interval"],
                        "seconds": round(seconds, 1),
                    }
                    for model, (measured, seconds) in results.items()
                }
        finally:
            spark.stop()
    models = [*next(iter(figures.values()))]
    print(f"| data | metric | {' | '.join(models)} |\n| --- | --- |{' --- |' * len(models)}")
    for data, found in figures.items():
        cells = [
            f"{each['value']:.3f} [{each['interval'][0]:.3f}, {each['interval'][1]:.3f}]" for each in found.values()
        ]
        print(f"| {data} | {found['network']['metric']} | {' | '.join(cells)} |")
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
