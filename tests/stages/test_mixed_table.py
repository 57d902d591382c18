"""A table of columns and pictures where neither tells enough: one pipeline, of which models of each part and of both learn.

Four classes: the picture says whether the thing is a disc or a cross, the columns whether it is heavy for its colour. The
picture alone and the columns alone are right half of the time at best.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq
from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.registry import versions
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.prepare import prepare
from mlspark.stages.score import score
from mlspark.stages.train import train
from mlspark.tracking import runs

HEAVY = {"red": 2.0, "green": 5.0, "blue": 8.0}
CLASSES = ["light_disc", "light_cross", "heavy_disc", "heavy_cross"]
CONTRACT: dict[str, Any] = {
    "name": "things",
    "label": "thing",
    "columns": [
        {"name": "photo", "type": "binary", "nullable": False, "media": {}},
        {"name": "weight", "type": "double", "nullable": False},
        {"name": "colour", "type": "string", "nullable": False, "allowed": sorted(HEAVY)},
        {"name": "thing", "type": "string", "nullable": False, "allowed": CLASSES},
    ],
}
PIPELINE = """
name: things
contract: {folder}/contract.json
storage: {{root: {folder}/home}}
sources:
  root: {folder}
  learn: {{kind: parquet, path: learn.parquet}}
split: {{validation_share: 0.15, test_share: 0.2}}
task: {{kind: multiclass, target: thing, classes: [light_disc, light_cross, heavy_disc, heavy_cross]}}
features:
  inputs:
    - {{kind: image, columns: [photo], size: 12}}
    - {{kind: number, columns: [weight]}}
    - {{kind: index, columns: [colour]}}
training:
  num_processes: 2
  epochs: 12
  global_batch_size: 32
  best: accuracy
  optimizer: {{learning_rate: 0.01}}
scoring: {{source: {{kind: parquet, path: score.parquet}}, keep: [truth], model: challenger}}
"""


def picture(is_cross: bool, random: np.random.Generator) -> bytes:
    rows, columns = np.mgrid[0:12, 0:12] - random.uniform(4.5, 6.5, (2, 1, 1))
    shape = np.minimum(abs(rows), abs(columns)) < 1.2 if is_cross else rows**2 + columns**2 < 14
    pixels = np.where(shape[:, :, np.newaxis], random.integers(150, 256, 3), random.integers(0, 100, 3))
    stream = io.BytesIO()
    noisy = np.clip(pixels + random.normal(0, 15, (12, 12, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(stream, "PNG")
    return stream.getvalue()


def things(count: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    is_cross, is_heavy = random.integers(0, 2, count), random.integers(0, 2, count)
    colours = random.choice(sorted(HEAVY), count)
    limits = np.array([HEAVY[colour] for colour in colours])
    return pa.table(
        {
            "photo": [picture(bool(cross), random) for cross in is_cross],
            "weight": limits + np.where(is_heavy, 1, -1) * random.uniform(0.7, 1.4, count),
            "colour": colours,
            "thing": [CLASSES[2 * heavy + cross] for heavy, cross in zip(is_heavy, is_cross, strict=True)],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("things")
    pq.write_table(things(900, 0), folder / "learn.parquet")
    unseen = things(200, 1)
    pq.write_table(unseen.rename_columns(["photo", "weight", "colour", "truth"]), folder / "score.parquet")
    (folder / "contract.json").write_text(json.dumps(CONTRACT))
    (folder / "things.yaml").write_text(PIPELINE.format(folder=folder))
    return folder


def settings_of(folder: Path, *overrides: str) -> Settings:
    return loading.load([str(folder / "things.yaml")], list(overrides))


@pytest.mark.slow
def test_both_parts_together_say_what_neither_does(spark: SparkSession, folder: Path) -> None:
    prepare(spark, settings_of(folder))
    models = {
        "pictures": ["model={kind: vision, backbone: resnet20, hidden: [32], inputs: [photo]}"],
        "columns": ["model={kind: tabular, inputs: [dense, ids]}", "training.epochs=20"],
        "columns, by trees": ["model={kind: trees, inputs: [dense, ids]}"],
        "both": ["model={kind: vision, backbone: resnet20, hidden: [32]}"],  # the last version is the one that scores
    }
    accuracy = {}
    for name, overrides in models.items():
        report = train(spark, settings_of(folder, *overrides))
        accuracy[name] = report["metrics"]["test"]["accuracy"]
    print(accuracy)
    assert accuracy["both"] > 0.9
    assert all(0.35 < accuracy[name] < 0.65 for name in accuracy if name != "both"), accuracy
    client = runs.connect(settings_of(folder).tracking, settings_of(folder).root)
    for version, reads_pictures in ((1, True), (2, False), (3, False), (4, True)):
        package = versions.find(client, "things", version).package
        assert bool(package.encoder.images) == reads_pictures
        assert any(line.startswith("pillow") for line in package.requirements) == reads_pictures
    scored = score(spark, settings_of(folder))
    rows = tables.read(spark, scored["output"]).select("prediction", "truth").collect()
    assert len(rows) == 200
    assert np.mean([row.prediction == row.truth for row in rows]) > 0.9
