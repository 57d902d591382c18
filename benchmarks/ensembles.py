"""Whether an ensemble is right more often than its best member: networks of pictures that differ by their seeds alone.

    python benchmarks/ensembles.py [--quick] [--json FILE] [--seeds N] [--first-seed N]

Needs cifar10-jpeg/ below MLSPARK_DATA: JPEGs of 32 pixels. Its first 500 pictures of each class, a tenth of which are for
validation, train the four members of `model: {kind: ensemble}` through the train stage with two ranks: `cnn`, 12 epochs, one
after another; the mean of their probabilities is the ensemble's. The members see the pictures as they are, without crops and
flips, and have channels enough to fit most of them: each goes wrong in its own way, which is what a mean takes off. Networks
that cannot fit them (three stages, 16 to 64 channels) make the same mistakes and gain nothing from each other.

Of the 4,000 test pictures it prints the accuracy of each member and of the ensemble, the numbers that the ensemble or the
member that is best on these very pictures alone has right, and the p value of McNemar's exact test. Keys of the JSON: seeds,
above (seeds in which the ensemble is above its best member), runs ([{seed, members, ensemble, validation: {members,
ensemble}, only_ensemble, only_best, p_value, seconds}]).
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pyspark.sql import SparkSession
from transfer import write_pictures

from mlspark import session
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.prepare import prepare
from mlspark.stages.train import train

ROOT = Path(__file__).resolve().parents[1]
MEMBERS, EPOCHS, QUICK_EPOCHS = 4, 12, 3
ROWS_PER_CLASS, QUICK_ROWS_PER_CLASS = 500, 100


def settings_of(folder: Path, epochs: int) -> Settings:
    """Return the pipeline of conf/cifar10.yaml with networks that fit what they learn from."""
    network = {"kind": "cnn", "widths": [16, 32, 64, 128, 256], "depth": 1}
    archives = {split: {"kind": "archives", "path": f"{split}.zip"} for split in ("train", "test")}
    changes = {
        "contract": str(ROOT / "schemas" / "cifar10.json"),
        "storage": {"root": str(folder / "home")},
        "sources": {"root": str(folder), "learn": archives["train"], "test": archives["test"]},
        "scoring.source": archives["test"],
        "model": {"kind": "ensemble", "members": [{"model": network, "repeat": MEMBERS}], "combine": "mean"},
        "training.num_processes": 2,
        "training.epochs": epochs,
        "training.augment.image": [],
        "registry.evaluation_page": False,
    }
    return loading.load(
        [str(ROOT / "conf" / "cifar10.yaml")], [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    )


def measured(spark: SparkSession, settings: Settings, seed: int) -> dict[str, Any]:
    """Return the figures of one seed; its members have the seeds `MEMBERS` x seed and following."""
    started = time.monotonic()
    chosen = loading.override(settings, {"training.seed": MEMBERS * seed}, source="ensembles")
    trained = train(spark, chosen)
    test = trained["mcnemar"]
    run = {
        "seed": seed,
        "members": [member["test"]["accuracy"] for member in trained["members"]],
        "ensemble": trained["metrics"]["test"]["accuracy"],
        "validation": {
            "members": [member["validation"]["accuracy"] for member in trained["members"]],
            "ensemble": trained["metrics"]["validation"]["accuracy"],
        },
        "only_ensemble": test["only_first"],
        "only_best": test["only_second"],
        "p_value": test["p_value"],
        "seconds": round(time.monotonic() - started, 1),
    }
    members = ", ".join(f"{accuracy:.4f}" for accuracy in run["members"])
    print(
        f"seed {seed}: members {members}; ensemble {run['ensemble']:.4f}; alone right: ensemble {run['only_ensemble']}, "
        f"best member {run['only_best']}, p = {run['p_value']:.2g}; {run['seconds']:.0f} s",
        flush=True,
    )
    return run


def main(
    quick: Annotated[bool, typer.Option("--quick", help="1,000 training pictures, three epochs, one seed.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Ensembles, one after another.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them, so that seeds can be run one by one.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Compare ensembles of networks with their best members."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    data = Path(os.environ.get("MLSPARK_DATA", ROOT / "data")).resolve()
    chosen = [first_seed] if quick else list(range(first_seed, first_seed + seeds))
    with tempfile.TemporaryDirectory(prefix="mlspark-ensembles-") as name:
        folder = Path(name)
        write_pictures(data / "cifar10-jpeg", folder, QUICK_ROWS_PER_CLASS if quick else ROWS_PER_CLASS)
        spark = session.start("ensembles", {"spark.master": "local[2]"})
        spark.sparkContext.setLogLevel("ERROR")
        try:
            settings = settings_of(folder, QUICK_EPOCHS if quick else EPOCHS)
            prepare(spark, settings)
            runs = [measured(spark, settings, seed) for seed in chosen]
        finally:
            spark.stop()
    above = sum(run["ensemble"] > max(run["members"]) for run in runs)
    print(f"the ensemble is above its best member in {above} of {len(runs)}")
    if json_file:
        json_file.write_text(
            json.dumps({"seeds": chosen, "above": above, "runs": runs}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
