"""pytabkit's networks and trees on the rows and columns that conf/census.tabm.yaml learns from: how good they are there.

    MLSPARK_DATA=... python benchmarks/pytabkit_census.py [--quick] [--json FILE] [--config FILE ...] [--model NAME ...]
        [--seeds N] [--first-seed N] [--threads N]

All learn from the rows with split=train of one feature table, numbers as numbers and ids as categories, stop by its
validation rows, and are tried on the official test file, as in benchmarks/census_models.py, so that its table and this one
can be put side by side. Their settings are pytabkit's defaults, which it calls `TD` (tuned on other tables) and `D` (of the
models' authors). pytabkit runs in an environment of its own, kept in the user's cache. A seed of its trees takes half a
minute on 2 busy cores, one of RealMLP_TD an hour of processor time (half of its 256 epochs took 29 minutes), one of TabM_D,
32 members of three layers of 512, by its operations as long. Prints mean, and least to most of the seeds. Keys of the JSON,
which is written after each fit: the models, each with a list of accuracy, roc_auc and seconds, one per seed.
"""

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from _own_environment import python_with
from census_models import splits
from sklearn.metrics import accuracy_score, roc_auc_score

from mlspark import session
from mlspark.features import prepared as preparations
from mlspark.settings import loading
from mlspark.stages.prepare import prepare

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "pytabkit==1.8.0", "torch==2.12.1", "pytorch-lightning==2.6.6", "scikit-learn==1.9.1", "xgboost==3.2.0",
    "catboost==1.2.10", "numpy==2.4.6", "pandas==2.3.3", "pyyaml==6.0.4",
)  # fmt: skip
MODELS = ("XGB_TD", "CatBoost_TD", "RealMLP_TD", "TabM_D")


def write_rows(folder: Path, files: list[str]) -> np.ndarray[Any, Any]:
    """Prepare the census, write SPLIT.npz for `_pytabkit.py`, and return the labels of the test rows."""
    overrides = [f"storage.root={folder / 'home'}", f"contract={ROOT / 'schemas' / 'census.json'}"]
    settings = loading.load(files, overrides)
    spark = session.start("pytabkit-census")
    spark.sparkContext.setLogLevel("ERROR")
    try:
        prepare(spark, settings)
    finally:
        spark.stop()
    prepared = preparations.latest(settings.table("features"))
    tensors = prepared.encoder.tensors(prepared.task)
    rows = splits(prepared.table, prepared.version, tensors)
    for split, (values, labels) in rows.items():
        numbers, ids = np.split(values, [tensors.num_dense], axis=1)
        np.savez(folder / f"{split}.npz", numbers=numbers, ids=ids.astype("i4"), labels=labels.astype("i4"))
        print(f"{split}: {len(labels):,} rows, {numbers.shape[1]} numbers, {ids.shape[1]} ids", flush=True)
    return rows["test"][1]


def fit(folder: Path, model: str, seed: int, threads: int) -> tuple[np.ndarray[Any, Any], float]:
    """Return the probabilities of the test rows, and the seconds of the fit."""
    command = [python_with("pytabkit", PACKAGES), str(Path(__file__).with_name("_pytabkit.py")), str(folder), model]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, str(seed), str(threads)], stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=folder
    )
    return np.load(folder / "chances.npy"), float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def report(figures: dict[str, list[dict[str, float]]]) -> None:
    """Print the table: mean, and least to most over the seeds."""
    print("\n| model | seeds | test accuracy | test ROC AUC | seconds |\n| --- | --- | --- | --- | --- |")
    for model, runs in figures.items():
        cells = []
        for metric in ("accuracy", "roc_auc"):
            values = [run[metric] for run in runs]
            cells.append(f"{statistics.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})")
        print(
            f"| {model} | {len(runs)} | {' | '.join(cells)} | {statistics.mean(run['seconds'] for run in runs):.0f} |"
        )


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One seed of XGB_TD.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    configs: Annotated[list[str] | None, typer.Option("--config", help="Settings of the features.")] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help=f"Of {', '.join(MODELS)}; all by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each model.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them, so that seeds can be run one by one.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a fit.")] = os.cpu_count() or 1,
) -> None:
    """Try pytabkit's models on the census."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    names, seeds = (["XGB_TD"], 1) if quick else (models or list(MODELS), seeds)
    figures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="mlspark-pytabkit-") as name:
        folder = Path(name)
        files = configs or [str(ROOT / "conf" / "census.yaml"), str(ROOT / "conf" / "census.tabm.yaml")]
        labels = write_rows(folder, files)
        for seed in range(first_seed, first_seed + seeds):
            for model in names:
                chances, seconds = fit(folder, model, seed, threads)
                accuracy, auc = accuracy_score(labels, chances >= 0.5), roc_auc_score(labels, chances)
                run = {"accuracy": float(accuracy), "roc_auc": float(auc), "seconds": seconds}
                figures.setdefault(model, []).append(run)
                print(f"seed {seed}: {model:<14}{accuracy:.4f} {auc:.4f}  {seconds:.1f} s", flush=True)
                if json_file:
                    json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    report(figures)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
