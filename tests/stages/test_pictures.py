"""A table of columns and pictures is one pipeline: prepared, trained, scored; the same pixels wherever they are decoded."""

import base64
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from pyspark.sql import SparkSession

from mlspark import storage, tables
from mlspark.commands import explain_features
from mlspark.commands import profile as profile_command
from mlspark.datasets import pictures_like
from mlspark.errors import ConfigError, RegistryError
from mlspark.evaluation import predictions
from mlspark.features import prepared as preparations
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.models import weights
from mlspark.pictures import decoder
from mlspark.pictures.augment import Flip
from mlspark.registry import versions
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.compare import Wanted, compare_versions
from mlspark.stages.prepare import prepare
from mlspark.stages.score import score
from mlspark.stages.train import train
from mlspark.streaming import delta_files
from mlspark.streaming.feature_table import open_feature_table
from mlspark.tracking import runs
from mlspark.training import custom_model
from mlspark.training.spec import TrainingSpec

CONTRACT: dict[str, Any] = {
    "name": "shapes",
    "label": "shape",
    "columns": [
        {"name": "photo", "type": "binary", "nullable": False, "media": {"max_pixels": 1_000_000}},
        {"name": "age", "type": "float", "nullable": False},
        {"name": "shape", "type": "string", "nullable": False, "allowed": list(pictures_like.CLASSES)},
    ],
}
PIPELINE = """
name: shapes
contract: {folder}/contract.json
storage: {{root: {folder}/home}}
sources:
  root: {folder}
  learn: {{kind: parquet, path: learn.parquet}}
split: {{validation_share: 0.2, test_share: 0.1}}
task: {{kind: multiclass, target: shape, classes: [circle, cross, square, stripes]}}
features:
  inputs:
    - {{kind: image, columns: [photo], size: [10, 12], resize: pad}}
    - {{kind: image, columns: [photo], name: thumb, size: 8, mode: L, store: encoded}}
    - {{kind: number, columns: [age]}}
model: {{kind: cnn, widths: [4, 8], depth: 1}}
training: {{num_processes: 1, epochs: 1, global_batch_size: 32}}
scoring: {{source: {{kind: parquet, path: learn.parquet}}, keep: [name], model: challenger}}
"""
NUM_ROWS, NUM_BAD = 160, 14


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("made")
    pictures_like.write(folder, num_train=0, num_test=NUM_ROWS, bad_pictures=NUM_BAD)
    files = sorted((folder / "pictures" / "test").rglob("*.*"), key=lambda path: path.name)
    return pa.table(
        {
            "photo": [path.read_bytes() for path in files],
            "age": pa.array([place % 11 for place in range(NUM_ROWS)], pa.float32()),
            "shape": [path.parent.name for path in files],
            "name": [path.name for path in files],
        }
    )


@pytest.fixture(scope="module")
def settings(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("shapes")
    pq.write_table(rows, folder / "learn.parquet")
    (folder / "contract.json").write_text(json.dumps(CONTRACT))
    (folder / "shapes.yaml").write_text(PIPELINE.format(folder=folder))
    return loading.load([str(folder / "shapes.yaml")])


@pytest.fixture(scope="module")
def report(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    return prepare(spark, settings)


def test_every_picture_is_accounted_for(spark: SparkSession, settings: Settings, report: dict[str, Any]) -> None:
    assert (report["rows_read"], report["rows_good"], report["rows_quarantined"]) == (
        NUM_ROWS,
        NUM_ROWS - NUM_BAD,
        NUM_BAD,
    )
    names = {f"photo.media.{rule}" for rule in ("bytes", "decodes", "format", "frames", "mode", "pixels")}
    assert set(report["reasons"]) == names
    assert report["pictures"]["photo"]["store"] == "pixels"
    assert report["pictures"]["thumb"]["store"] == "encoded"
    assert report["pictures"]["photo"]["pixels_bytes"] == 360
    same = report["duplicates"]["photo"]["same"]
    assert same["rows"] == same["different"] + same["repeated"] == report["rows_good"]
    assert same["on_several_sides"] == 0
    bad = preparations.read_quarantine(spark, settings.table("features"), settings.table("quarantine")).collect()
    assert len(bad) == NUM_BAD
    for row in bad:
        assert len(row["raw"]) < 1000  # no bytes of a picture
        assert "sha256" in row["raw"]
    again = prepare(spark, settings)
    assert again["already_done"]


def test_its_profile_shows_the_pictures(
    settings: Settings, report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, file = tmp_path / "profile.html", tmp_path / "profile.json"
    configuration = str(Path(settings.contract).with_name("shapes.yaml"))
    profile_command.run(
        [configuration], overrides=[], version=None, against=None, html_file=str(page), json_file=str(file)
    )
    assert f"photo: {NUM_ROWS - NUM_BAD} pictures; jpeg " in " ".join(capsys.readouterr().out.split())
    profile = json.loads(file.read_text())["profile"]
    pictures = profile["columns"]["photo"]["pictures"]
    assert pictures["decoded"] == report["rows_good"] == profile["columns"]["photo.width"]["count"]
    assert {label: len(digests) for label, digests in pictures["samples"].items()} == dict.fromkeys(
        pictures_like.CLASSES, 8
    )
    assert sum(pictures["refused"]["rows"].values()) == NUM_BAD
    assert pictures["duplicates"] == report["duplicates"]["photo"]
    html = page.read_text()
    assert html.count("<img") >= 4 * 8
    assert "gif with 2 pictures, expected 1 to 1" in html


def test_spark_workers_and_single_rows_see_the_same_pixels(
    spark: SparkSession, settings: Settings, report: dict[str, Any], rows: pa.Table
) -> None:
    prepared = preparations.latest(settings.table("features"))
    stored = tables.read(spark, prepared.table, version=prepared.version).toArrow()
    photo, thumb = prepared.encoder.images
    by_id = {
        row_id: (decoder.from_stored(one, photo.spec), decoder.from_stored(two, thumb.spec))
        for row_id, one, two in zip(
            *(stored.column(name).to_pylist() for name in ("row_id", "photo", "thumb")), strict=True
        )
    }
    assert len(by_id) == NUM_ROWS - NUM_BAD
    # The workers of the reader.
    tensors = prepared.encoder.tensors(prepared.task)
    streamed: dict[int, tuple[Any, Any]] = {}
    for split in ("train", "validation", "test"):
        with open_feature_table(
            delta_files.take(prepared.table).where(split=split),
            tensors,
            settings.streaming,
            rank=0,
            world_size=1,
            global_batch_size=32,
            seed=1,
            shuffle=split == "train",
        ) as stream:
            for batch in stream:
                assert batch["photo"].shape[1:] == (3, 10, 12)
                kept = ~batch["is_padding"]
                for row_id, one, two in zip(
                    batch["row_id"][kept], batch["photo"][kept], batch["thumb"][kept], strict=True
                ):
                    streamed[int(row_id)] = (one.numpy(), two.numpy())
    assert streamed.keys() == by_id.keys()
    for row_id, (one, two) in by_id.items():
        np.testing.assert_array_equal(streamed[row_id][0], one)
        np.testing.assert_array_equal(streamed[row_id][1], two)
    # Rows in memory.
    encode = ArrowEncoder(prepared.encoder).transform
    pixels = {one.tobytes() + two.tobytes() for one, two in by_id.values()}
    for place in range(NUM_ROWS):
        row = rows.slice(place, 1)
        try:
            alone = encode(row)
        except ValueError:
            continue
        if alone["photo"][0].tobytes() + alone["thumb"][0].tobytes() in pixels:
            pixels.discard(alone["photo"][0].tobytes() + alone["thumb"][0].tobytes())
    assert not pixels


@pytest.mark.slow
def test_the_same_pictures_from_a_folder_a_zip_and_a_table_are_the_same_features(
    spark: SparkSession, settings: Settings, rows: pa.Table, tmp_path: Path
) -> None:
    contract = {
        **CONTRACT,
        "columns": [CONTRACT["columns"][0] | {"header": "image"}, CONTRACT["columns"][2] | {"header": "label"}],
    }
    (tmp_path / "contract.json").write_text(json.dumps(contract))
    photos, shapes, names = (rows.column(name).to_pylist() for name in ("photo", "shape", "name"))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for photo, shape, name in zip(photos, shapes, names, strict=True):
            archive.writestr(f"{shape}/{name}", photo)
    with zipfile.ZipFile(tmp_path / "photos.zip") as archive:
        archive.extractall(tmp_path / "photos")
    pq.write_table(pa.table({"image": photos, "label": shapes}), tmp_path / "photos.parquet")
    written, encoders, feature = [], [], "kind: image, columns: [photo], size: 9"
    for kind, path in (("images", "photos"), ("archives", "photos.zip"), ("parquet", "photos.parquet")):
        changes = [
            f"contract={tmp_path / 'contract.json'}", f"storage.root={tmp_path / kind}", f"sources.root={tmp_path}",
            f"sources.learn={{kind: {kind}, path: {path}}}",
            f"features.inputs=[{{{feature}}}, {{{feature}, name: file, store: encoded}}]",
        ]  # fmt: skip
        other = loading.load([str(Path(settings.contract).with_name("shapes.yaml"))], changes)
        report = prepare(spark, other)
        assert report["rows_good"] == NUM_ROWS - NUM_BAD
        prepared = preparations.latest(other.table("features"))
        encoders.append(prepared.encoder.fingerprint)
        written.append(
            sorted(tables.read(spark, prepared.table, version=0).toArrow().to_pylist(), key=lambda row: row["row_id"])
        )
    assert encoders[0] == encoders[1] == encoders[2]
    assert written[0] == written[1] == written[2]


@pytest.fixture(scope="module")
def trained(spark: SparkSession, settings: Settings, report: dict[str, Any]) -> dict[str, Any]:
    return train(spark, settings)


def test_columns_and_pictures_train_and_score_as_one(
    spark: SparkSession, settings: Settings, trained: dict[str, Any], rows: pa.Table
) -> None:
    assert trained["metrics"]["test"]["num_rows"] > 0
    done = score(spark, settings)
    assert (done["rows_scored"], done["rows_quarantined"]) == (NUM_ROWS - NUM_BAD, NUM_BAD)
    scores = tables.read(spark, settings.table("scores"), version=done["output_version"]).toPandas().set_index("name")
    assert "photo" not in scores.columns  # no second copy of the pictures
    assert {"age", "shape", "row_id", "prediction"} <= set(scores.columns)
    model = mlflow.pyfunc.load_model(f"models:/shapes/{done['model_version']}")
    good = rows.to_pandas().set_index("name").loc[scores.index]
    frame = good[["photo", "age"]].reset_index(drop=True)
    texts = frame.assign(photo=[base64.b64encode(file).decode() for file in frame["photo"]])
    served, by_text = model.predict(frame), model.predict(texts)
    for name in served.columns:
        np.testing.assert_array_equal(served[name], scores[name].to_numpy())
        np.testing.assert_array_equal(by_text[name], scores[name].to_numpy())


def test_versions_are_compared_on_pictures_of_the_sources(
    spark: SparkSession, settings: Settings, trained: dict[str, Any]
) -> None:
    client = runs.connect(settings.tracking, settings.root)
    package = versions.find(client, "shapes", trained["model_version"]).package
    again = versions.register(client, package, run_id=trained["run_id"], name="twins", alias="challenger")
    wanted = Wanted((("shapes", trained["model_version"]), ("twins", again)), resamples=100)
    kept = compare_versions(settings, wanted, lambda: spark)
    uri = predictions.uri_of(storage.join(settings.root, "runs", trained["run_id"]), "test")
    content = storage.read_bytes(uri)
    storage.delete(uri)
    try:
        anew = compare_versions(settings, wanted, lambda: spark)
    finally:
        storage.write_bytes(uri, content)
    assert "scored here with each version" in anew.origin
    assert anew.remarks == ()  # the latency of both was measured, too
    for one, other in zip(kept.versions, anew.versions, strict=True):
        assert one.rows.row_id.tolist() == other.rows.row_id.tolist()
        np.testing.assert_allclose(one.rows.outputs, other.rows.outputs, atol=1e-6)  # the rank's batches were others


def test_the_page_of_its_evaluation_shows_mistakes_as_pictures(
    settings: Settings, trained: dict[str, Any], tmp_path: Path
) -> None:
    client = runs.connect(settings.tracking, settings.root)
    page = Path(client.download_artifacts(trained["run_id"], "evaluation.html", str(tmp_path))).read_text()
    num_rows = page.count("<br>row_id ")
    assert 0 < num_rows <= 24
    assert page.count("<img") == 4 * num_rows  # photo and thumb, each with its map
    assert "(Grad-CAM)" in page
    assert "integrated gradients" not in page  # of the column beside them: by mlspark evaluate


@pytest.mark.slow
def test_training_begins_with_the_weights_of_a_version(
    spark: SparkSession, settings: Settings, trained: dict[str, Any]
) -> None:
    changes = {"model.weights": {"version": "shapes@challenger"}, "training.freeze": ["towers"], "registry.alias": ""}
    probe = loading.override(settings, changes, source="test")
    done = train(spark, probe)
    client = runs.connect(probe.tracking, probe.root)
    first, second = (versions.find(client, "shapes", report["model_version"]).package for report in (trained, done))
    assert second.provenance["initial_weights"] == {
        "place": f"version shapes/{trained['model_version']}",
        "sha256": hashlib.sha256(first.files["weights.safetensors"]).hexdigest(),
    }
    before, after = (weights.from_bytes(package.files["weights.safetensors"]) for package in (first, second))
    assert {name for name, value in after.items() if not value.equal(before[name])} == {"linear.weight", "linear.bias"}
    assert train(spark, probe)["already_done"]

    def num_runs() -> int:
        experiment = client.get_experiment_by_name(probe.tracking.experiment)
        return len(client.search_runs([experiment.experiment_id]))

    num_before = num_runs()
    with pytest.raises(
        ConfigError, match=r"version shapes/\d does not fit model\.kind=cnn: .*of another shape: towers"
    ):
        train(spark, loading.override(probe, {"model.widths": [4, 9]}, source="test"))
    assert num_runs() == num_before


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["thumb", "photo"], ""),
        (["photo", "age"], "images: age is no feature of pictures of .*; there are photo, thumb"),
    ],
)
def test_a_model_of_ones_own_takes_the_tables_pictures_by_name(
    settings: Settings,
    report: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: Any,
    message: str,
) -> None:
    specs: list[TrainingSpec] = []
    monkeypatch.setattr(custom_model.launcher, "launch", lambda spark, spec, *_, **__: specs.append(spec))
    options: dict[str, Any] = {
        "dense": ["age"], "images": images, "folder": str(tmp_path), "spark": object(),
        "task": {"kind": "multiclass", "classes": list(pictures_like.CLASSES)},
        "training": {"augment": {"photo": [{"kind": "flip"}]}},
    }  # fmt: skip
    if message:
        with pytest.raises(ConfigError, match=message):
            custom_model.launch("package:model", settings.table("features"), **options)
        return
    custom_model.launch("package:model", settings.table("features"), **options)
    encoder = preparations.latest(settings.table("features")).encoder
    assert specs[0].tensors.specs == encoder.specs  # with mean and deviation of the training rows
    assert specs[0].training.augment == {"photo": (Flip(),)}


def test_a_picture_is_explained(
    settings: Settings, report: dict[str, Any], rows: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.jpg").write_bytes(rows.column("photo")[0].as_py())
    (tmp_path / "shapes.yaml").write_text(settings.to_yaml())
    row = json.dumps({"photo": f"@{tmp_path / 'one.jpg'}", "age": 3})
    explain_features.run(
        str(tmp_path / "shapes.yaml"), row, overrides=[], version=None, json_file=str(tmp_path / "x.json")
    )
    photo, thumb, age = json.loads((tmp_path / "x.json").read_text())
    assert photo["position"] == "photo"
    assert photo["number"].startswith("3 x 10 x 12, mean ")
    assert "resized to fit into 12 x 10" in photo["meaning"]
    assert thumb["number"].startswith("1 x 8 x 8, mean ")
    assert age["position"] == "dense[0]"
    assert "SHA-256" in capsys.readouterr().out


def test_another_decoder_neither_appends_nor_scores(
    spark: SparkSession, settings: Settings, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(decoder, "version", lambda: "simplejpeg 99, Pillow 99")
        with pytest.raises(ConfigError, match="here is simplejpeg 99, Pillow 99, whose pixels may differ"):
            prepare(spark, settings, mode="append")
        with pytest.raises(RegistryError, match=r"scoring.allow_decoder=true"):
            score(spark, settings)
        # Pixels are what they are; files would be decoded anew.
        with pytest.raises(ConfigError, match=r"thumb: .* or prepare the table anew"):
            train(spark, settings)
