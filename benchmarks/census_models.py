"""How good the network of conf/census.yaml is on the real Adult files, beside boosted trees on the same split.

    MLSPARK_DATA=... python benchmarks/census_models.py [--quick] [--json FILE] [--config FILE ...] [--seeds N]

All models learn from the rows with split=train of one feature table, stop by its validation rows, and are tried on the
official test file. mlspark's trees have the defaults of `model: {kind: trees}`, HistGradientBoosting those of scikit-learn
but for early stopping (patience 20), at most 1,000 rounds, half of the columns for each split, and a learning rate of 0.05.
Mean and standard deviation over seeds, which decide the network's weights and order, and the trees' sampling of rows and
columns. Prints the table of the README.
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

from mlspark import session, storage
from mlspark.features import prepared as preparations
from mlspark.features.tensors import Tensors
from mlspark.models.model import Model
from mlspark.models.trees import TreesSettings
from mlspark.settings import loading
from mlspark.stages.prepare import prepare
from mlspark.streaming import delta_files
from mlspark.training import learner
from mlspark.training.spec import TrainingSpec

ROOT = Path(__file__).resolve().parents[1]

Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def splits(uri: str, version: int, tensors: Tensors) -> dict[str, Rows]:
    """Return split -> (numbers and ids as float32 (n, F + K), labels (n,))."""
    frame = DeltaTable(uri, version=version).to_pandas().sort_values("row_id")
    names = [name for spec in tensors.specs for name in spec.columns]
    found = dict(iter(frame.groupby("split")))
    return {split: (rows[names].to_numpy("f4"), rows["label"].to_numpy()) for split, rows in found.items()}


def boosted(rows: dict[str, Rows], tensors: Tensors, seed: int) -> tuple[float, float]:
    first = tensors.num_dense
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
        settings = loading.load(files, [f"storage.root={name}", f"contract={ROOT / 'schemas' / 'census.json'}"])
        spark = session.start("census-models")
        spark.sparkContext.setLogLevel("ERROR")
        try:
            prepare(spark, settings)
            prepared = preparations.latest(settings.table("features"))
            tensors = prepared.encoder.tensors(prepared.task)
            rows = splits(prepared.table, prepared.version, tensors)
            print({split: len(labels) for split, (_, labels) in rows.items()}, flush=True)
            snapshot = delta_files.take(prepared.table, version=prepared.version)

            def ours(model: Model, seed: int) -> tuple[float, float]:
                training = settings.training.model_copy(update={"seed": seed})
                run_uri = storage.join(settings.root, f"run-{model.kind}-{seed}")
                spec = TrainingSpec(run_uri, tensors, prepared.task, model, training, settings.streaming)
                snapshot.save(spec.snapshot_uri)
                learned = learner.learn(spark, spec, lambda event: None)
                test = learned.metrics["test"]
                accuracy, auc = test["accuracy"], test["roc_auc"]
                for member in learned.report.get("members", ()):
                    of_member = member["test"]
                    print(f"  {member['name']:<28}{of_member['accuracy']:.4f} {of_member['roc_auc']:.4f}", flush=True)
                assert accuracy is not None
                assert auc is not None
                return accuracy, auc

            models: dict[str, Callable[[int], tuple[float, float]]] = {
                "mlspark network": lambda seed: ours(settings.model, seed),
                "mlspark trees": lambda seed: ours(TreesSettings(), seed),
                "HistGradientBoosting": lambda seed: boosted(rows, tensors, seed),
            }
            for seed in range(seeds or (1 if quick else 5)):
                for model, train in models.items():
                    started = time.monotonic()
                    accuracy, auc = train(seed)
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
