"""What published weights are worth: from scratch, as a linear probe and fine-tuned, on the same pictures and epochs.

    python benchmarks/transfer.py [--quick] [--json FILE] [--seeds N] [--first-seed N]

Needs cifar10-jpeg/ and pretrained-cifar10-resnet/ below MLSPARK_DATA: JPEGs of 32 pixels, and a ResNet-20 that was trained
on the lossless originals of the same pictures. So this shows that weights are taken over, frozen and fine-tuned as they
should be, on pictures that look a little different; it is no evidence of transfer to other pictures.

The table is prepared once. `as published` is a version of the weights as they are, registered and scored without a step of
training. The others go through the train stage with two ranks: `scratch` begins at random, `probe` with the published body,
frozen, and a new head, `fine-tuned` with a new head and a body at a tenth of the learning rate, `unfrozen` as the probe in
the first epoch and as fine-tuned after it. Prints the accuracy of the 4,000 test pictures. Keys of the JSON: as_published,
rows, epochs, seeds, table ({MODEL: {accuracies, seconds}}).
"""

import json
import os
import statistics
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from pyspark.sql import SparkSession

from mlspark import session, tables
from mlspark.engines import eager
from mlspark.features import prepared as preparations
from mlspark.models import weights as weights_file
from mlspark.registry import initial_weights, versions
from mlspark.registry.package import Package
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.prepare import prepare
from mlspark.stages.score import score
from mlspark.stages.train import train
from mlspark.tracking import runs
from mlspark.training.spec import TrainingSpec

ROOT = Path(__file__).resolve().parents[1]
EPOCHS, QUICK_EPOCHS = 4, 2
ROWS_PER_CLASS, QUICK_ROWS_PER_CLASS = 500, 50
"""Training pictures of each of the ten classes, a tenth of which are for validation."""
PUBLISHED = {
    "names": {"module": "backbone.image", "module.linear": "head.linear"},
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
BODY = "backbone"
MODELS: dict[str, dict[str, Any]] = {
    "scratch": {"model.weights": None},
    "probe": {"training.freeze": [BODY]},
    "fine-tuned": {"training.optimizer.rates": {BODY: 0.1}},
    "unfrozen": {"training.freeze": [BODY], "training.unfreeze": {2: [BODY]}, "training.optimizer.rates": {BODY: 0.1}},
}


def write_pictures(data: Path, folder: Path, rows_per_class: int) -> None:
    """Write train.zip with the first pictures of each class, and test.zip as it is."""
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(data / "train.zip") as archive, zipfile.ZipFile(folder / "train.zip", "w") as part:
        for name in sorted(archive.namelist()):
            label = Path(name).parent.name
            if name.endswith(".jpg") and taken[label] < rows_per_class:
                taken[label] += 1
                part.writestr(name, archive.read(name))
    (folder / "test.zip").symlink_to(data / "test.zip")


def settings_of(folder: Path, data: Path, epochs: int) -> Settings:
    """Return the pipeline of conf/cifar10.yaml with a ResNet-20 that begins with the published weights, but for its head."""
    weights = {**PUBLISHED, "file": str(next((data / "pretrained-cifar10-resnet").glob("*.th"))), "head": "new"}
    optimizer = {
        "kind": "sgd", "nesterov": True, "learning_rate": 0.1, "weight_decay": 5e-4, "decay_norm_and_bias": False,
        "schedule": "one_cycle",
    }  # fmt: skip
    changes = {
        "contract": str(ROOT / "schemas" / "cifar10.json"),
        "storage": {"root": str(folder / "home")},
        "sources": {
            "root": str(folder),
            "learn": {"kind": "archives", "path": "train.zip"},
            "test": {"kind": "archives", "path": "test.zip"},
        },
        "scoring.source": {"kind": "archives", "path": "test.zip"},
        "model": {"kind": "vision", "backbone": "resnet20", "weights": weights},
        "training.num_processes": 2,
        "training.epochs": epochs,
        "training.optimizer": optimizer,
        "registry.alias": "",
    }
    lines = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    return loading.load([str(ROOT / "conf" / "cifar10.yaml")], lines)


def as_published(spark: SparkSession, settings: Settings) -> float:
    """Return the accuracy of the weights as they are: registered as a version and scored like any other."""
    model = loading.override(
        settings, {"model.weights.head": "keep", "registry.alias": "published"}, source="published"
    )
    prepared = preparations.latest(settings.table("features"))
    spec = TrainingSpec(
        run_uri="",
        tensors=prepared.encoder.tensors(prepared.task),
        task=prepared.task,
        model=model.model,
        training=model.training,
        streaming=model.streaming,
    )
    client = runs.connect(model.tracking, model.root)
    spec, found = initial_weights.resolve(client, spec, retry_seconds=10.0)
    content = initial_weights.fitted(spec, found)
    assert content is not None
    with runs.open_run(client, model.tracking, "as published", tags={}) as run:
        package = Package.pack(
            model=eager.pack(spec.model, spec.tensors, spec.task.num_outputs, weights_file.from_bytes(content)),
            encoder=prepared.encoder,
            contract=prepared.contract,
            task=prepared.task,
            provenance={
                "run_id": run.run_id, "table": prepared.table, "table_version": prepared.version, "metrics": {},
                "git_commit": "", "git_is_changed": False, "train_seconds": 0.0, "libraries": {},
            },
        )  # fmt: skip
        versions.register(
            client, package, run_id=run.run_id, name=model.registry.model_name, alias=model.registry.alias
        )
    scored = score(spark, loading.override(model, {"scoring.model": "published"}, source="published"))
    rows = tables.read(spark, model.table("scores"), version=scored["output_version"])
    labels = [Path(row.member).parent.name == row.prediction for row in rows.select("member", "prediction").collect()]
    return sum(labels) / len(labels)


def report(figures: dict[str, Any]) -> None:
    """Print the table."""
    print(f"as published: {figures['as_published']:.4f}, no step of training")
    print(f"{figures['rows']:,} training pictures, {figures['epochs']} epochs; accuracy of 4,000 test pictures")
    print("| model | " + " | ".join(f"seed {seed}" for seed in figures["seeds"]) + " | mean | seconds |")
    print("| --- |" + " --- |" * (len(figures["seeds"]) + 2))
    for model, of_model in figures["table"].items():
        accuracies = of_model["accuracies"]
        cells = [*(f"{value:.4f}" for value in accuracies), f"{statistics.mean(accuracies):.4f}"]
        print(f"| {model} | {' | '.join(cells)} | {statistics.mean(of_model['seconds']):.0f} |")


def main(
    quick: Annotated[bool, typer.Option("--quick", help="500 training pictures, two epochs.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each model.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them, so that seeds can be run one by one.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Compare a network from scratch with one that begins with published weights."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    data = Path(os.environ.get("MLSPARK_DATA", ROOT / "data")).resolve()
    rows_per_class, epochs = (QUICK_ROWS_PER_CLASS, QUICK_EPOCHS) if quick else (ROWS_PER_CLASS, EPOCHS)
    with tempfile.TemporaryDirectory(prefix="mlspark-transfer-") as name:
        folder = Path(name)
        write_pictures(data / "cifar10-jpeg", folder, rows_per_class)
        spark = session.start("transfer", {"spark.master": "local[2]"})
        spark.sparkContext.setLogLevel("ERROR")
        try:
            settings = settings_of(folder, data, epochs)
            prepare(spark, settings)
            figures: dict[str, Any] = {
                "as_published": as_published(spark, settings),
                "rows": 10 * rows_per_class,
                "epochs": epochs,
                "seeds": list(range(first_seed, first_seed + seeds)),
                "table": {model: {"accuracies": [], "seconds": []} for model in MODELS},
            }
            for seed in figures["seeds"]:
                for model, changes in MODELS.items():
                    chosen = loading.override(settings, {**changes, "training.seed": seed}, source=model)
                    started = time.monotonic()
                    accuracy = train(spark, chosen)["metrics"]["test"]["accuracy"]
                    figures["table"][model]["accuracies"].append(accuracy)
                    figures["table"][model]["seconds"].append(round(time.monotonic() - started, 1))
                    print(f"seed {seed}, {model}: {accuracy:.4f} in {time.monotonic() - started:.0f} s", flush=True)
        finally:
            spark.stop()
    report(figures)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
