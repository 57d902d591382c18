"""How good the network of conf/census.yaml is on the real Adult files, beside boosted trees on the same split.

    MLSPARK_DATA=... python benchmarks/census_models.py [--quick] [--json FILE] [--config FILE ...] [--seeds N]

All models learn from the rows with split=train of one feature table, stop by its validation rows, and are tried on the
official test file. Trees get the numbers and the categories' ids as categories, and their libraries' defaults but for early
stopping (patience 20) and a learning rate of 0.05 (XGBoost: depth 6, at most 2,000 rounds; HistGradientBoosting: at most
1,000). Mean and standard deviation over seeds, which decide the network's weights and order, and the trees' sampling of
rows (80 %) and columns (50 %), where there is any. Prints the table of the README.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from deltalake import DeltaTable
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, roc_auc_score

from mlspark import config, session, storage
from mlspark.features.layout import Layout
from mlspark.preparation import prepared as preparations
from mlspark.preparation.prepare import prepare
from mlspark.streaming import snapshot as snapshots
from mlspark.training.launcher import launch
from mlspark.training.spec import TrainingSpec

ROOT = Path(__file__).resolve().parents[1]

Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def splits(uri: str, version: int, layout: Layout) -> dict[str, Rows]:
    """Return split -> (numbers and ids as float32 (n, F + K), labels (n,))."""
    frame = DeltaTable(uri, version=version).to_pandas().sort_values("row_id")
    names = [*layout.dense, *layout.categorical]
    found = dict(iter(frame.groupby("split")))
    return {split: (rows[names].to_numpy("f4"), rows["label"].to_numpy()) for split, rows in found.items()}


def boosted(rows: dict[str, Rows], layout: Layout, seed: int) -> tuple[float, float]:
    first = len(layout.dense)
    (x, y), (x_validation, y_validation), (x_test, y_test) = rows["train"], rows["validation"], rows["test"]
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=1000,
        max_features=0.5,
        categorical_features=list(range(first, x.shape[1])),
        early_stopping=True,
        n_iter_no_change=20,
        random_state=seed,
    ).fit(x, y, X_val=x_validation, y_val=y_validation)
    chances = model.predict_proba(x_test)[:, 1]
    return float(accuracy_score(y_test, chances >= 0.5)), float(roc_auc_score(y_test, chances))


def xgboosted(rows: dict[str, Rows], layout: Layout, seed: int) -> tuple[float, float]:
    import xgboost

    kinds = ["q"] * len(layout.dense) + ["c"] * len(layout.categorical)
    data = {
        split: xgboost.DMatrix(x, y, feature_types=kinds, enable_categorical=True) for split, (x, y) in rows.items()
    }
    settings = {
        "objective": "binary:logistic", "eval_metric": "logloss", "learning_rate": 0.05, "max_depth": 6,
        "subsample": 0.8, "colsample_bytree": 0.5, "seed": seed, "nthread": 2,
    }  # fmt: skip
    model = xgboost.train(
        settings,
        data["train"],
        num_boost_round=2000,
        evals=[(data["validation"], "validation")],
        early_stopping_rounds=20,
        verbose_eval=False,
    )
    chances = model.predict(data["test"], iteration_range=(0, model.best_iteration + 1))
    labels = rows["test"][1]
    return float(accuracy_score(labels, chances >= 0.5)), float(roc_auc_score(labels, chances))


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One seed.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    configs: Annotated[list[str] | None, typer.Option("--config", help="Settings of the network.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each model; 5 unless --quick.")] = None,
) -> None:
    """Compare models on the census."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    runs: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="mlspark-census-") as name:
        files = configs or [str(ROOT / "conf" / "census.yaml"), str(ROOT / "conf" / "census.tuned.yaml")]
        settings = config.load(files, [f"storage.root={name}", f"contract={ROOT / 'schemas' / 'census.json'}"])
        spark = session.start("census-models")
        spark.sparkContext.setLogLevel("ERROR")
        try:
            prepare(spark, settings)
            prepared = preparations.latest(settings)
            layout = prepared.encoder.layout
            rows = splits(prepared.table, prepared.version, layout)
            print({split: len(labels) for split, (_, labels) in rows.items()}, flush=True)
            snapshot = snapshots.take(prepared.table, version=prepared.version)

            def network(seed: int) -> tuple[float, float]:
                training = settings.training.model_copy(update={"seed": seed})
                spec = TrainingSpec(
                    storage.join(settings.root, f"run{seed}"), layout, settings.model, training, settings.streaming
                )
                snapshot.save(spec.snapshot_uri)
                test = launch(spark, spec, lambda event: None).metrics["test"]
                assert test.roc_auc is not None
                return test.accuracy, test.roc_auc

            models: dict[str, Callable[[int], tuple[float, float]]] = {
                "mlspark network": network,
                "HistGradientBoosting": lambda seed: boosted(rows, layout, seed),
                "XGBoost": lambda seed: xgboosted(rows, layout, seed),
            }
            for seed in range(seeds or (1 if quick else 5)):
                for model, train in models.items():
                    started = time.monotonic()
                    try:
                        accuracy, auc = train(seed)
                    except ImportError as error:
                        print(f"{model}: left out: {error}", flush=True)
                        continue
                    seconds = time.monotonic() - started
                    runs.setdefault(model, []).append((accuracy, auc, seconds))
                    print(f"seed {seed}: {model:<22}{accuracy:.4f} {auc:.4f}  {seconds:.1f} s", flush=True)
        finally:
            spark.stop()
    figures: dict[str, Any] = {}
    print("\n| model | test accuracy | test ROC AUC |\n| --- | --- | --- |")
    for model, found in runs.items():
        columns = [[each[place] for each in found] for place in range(2)]
        mean, spread = map(statistics.mean, columns), [statistics.stdev(c) if len(c) > 1 else 0.0 for c in columns]
        values = [f"{m:.4f} ± {s:.4f}" for m, s in zip(mean, spread, strict=True)]
        print(f"| {model} | {values[0]} | {values[1]} |")
        figures[model] = [{"accuracy": a, "roc_auc": b, "seconds": round(c, 1)} for a, b, c in found]
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
