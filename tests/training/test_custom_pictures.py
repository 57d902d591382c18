"""Pictures for a model of one's own: streamed, changed at random and mixed, registered, and scored from files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from deltalake import write_deltalake
from PIL import Image
from pyspark.sql import SparkSession
from torch import nn

import mlspark.registry
import mlspark.training
from mlspark.errors import ConfigError, DatasetError, RegistryError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.pictures import decoder
from mlspark.pictures.augment import Crop, Flip
from mlspark.registry import outcomes
from mlspark.scoring.predictor import Predictor
from mlspark.streaming import delta_files
from mlspark.streaming.pictures import Picture
from mlspark.training import checkpoint
from mlspark.training.spec import TrainingSpec

from .test_launcher import ignore

PHOTO = Picture(column="file", size=10, augment=(Crop(padding=1), Flip()))
FAST: dict[str, Any] = {"num_processes": 2, "epochs": 6, "global_batch_size": 32, "optimizer": {"learning_rate": 0.05}}
COUNTS = {"train": 149, "validation": 31, "test": 41}


class Brightness(nn.Module):
    """A weight for each channel's mean."""

    def __init__(self, tensors: Tensors, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(tensors.pictures["photo"].shape[0], num_outputs)

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        assert photo.dtype == torch.uint8
        outputs: torch.Tensor = self.layer(photo.float().mean((2, 3)) / 64 - 2)
        return outputs


def file_of(chance: np.random.Generator, is_bright: bool) -> bytes:
    pixels, stream = chance.integers(0, 150, (12, 12, 3), dtype=np.uint8) + np.uint8(60 * is_bright), io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Files of pictures in a Delta table; bright ones are of class 1."""
    folder, chance = str(tmp_path_factory.mktemp("photos") / "table"), np.random.default_rng(0)
    splits = [split for split, count in COUNTS.items() for _ in range(count)]
    labels = np.arange(len(splits)) % 2
    rows = {
        "file": pa.array([file_of(chance, bool(label)) for label in labels], pa.binary()),
        "label": labels.astype(np.float32),
        "row_id": chance.integers(-(2**62), 2**62, len(splits)),
        "split": splits,
    }
    write_deltalake(folder, pa.table(rows), partition_by=["split"])
    return folder


def launch(table: str, folder: Path, spark: Any, **options: Any) -> Any:
    defaults: dict[str, Any] = {"images": {"photo": PHOTO}, "training": FAST, "spark": spark, "on_event": ignore}
    return mlspark.training.launch(Brightness, table, folder=str(folder), **(defaults | options))


@pytest.mark.slow
def test_a_model_of_ones_own_learns_from_changed_and_mixed_pictures_on_two_ranks(
    spark: SparkSession, tmp_path: Path, table: str
) -> None:
    training = FAST | {"mix": {"mixup": 0.4, "cutmix": 1.0}}
    outcome = launch(table, tmp_path / "run", spark, training=training)
    assert outcome.world_size == 2
    assert outcome.rows_per_epoch == COUNTS["train"]
    auc = outcome.metrics["test"]["roc_auc"]
    assert auc is not None
    assert auc > 0.95
    spec = TrainingSpec.load(str(tmp_path / "run" / "attempts" / "0001" / "spec.json"))
    assert spec.training.augment == {"photo": PHOTO.augment}
    assert spec.training.mix.mixup == 0.4
    assert spec.tensors.pictures["photo"].decoder == decoder.version()
    # As a version it takes files.
    version = mlspark.registry.register(outcome, name="photos", root=str(tmp_path / "home"))
    chance = np.random.default_rng(9)
    files = [file_of(chance, bool(number % 2)) for number in range(12)]
    network = Brightness(spec.tensors, 1)
    network.load_state_dict(checkpoint.load(outcome.checkpoint_uri).weights)
    pixels = torch.from_numpy(np.stack([decoder.encoded(file, PHOTO.spec) for file in files]))
    with torch.inference_mode():
        expected = torch.sigmoid(network(pixels)[:, 0].double()).numpy()
    predictions = Predictor(version.package).predict(pa.table({"file": files}))
    assert predictions["probability"] == pytest.approx(expected, abs=1e-6)
    assert predictions["prediction"].tolist() == [number % 2 for number in range(12)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"images": {}}, ConfigError, r"no columns: give dense=.*, ids=.* or images="),
        ({"images": {"ids": PHOTO}}, ConfigError, "images: batches have another tensor called ids; choose another name"),
        ({"images": {"photo": Picture(size=8)}}, DatasetError, "no column photo; there are file, label, row_id, split"),
        ({"images": {"photo": Picture(column="label", size=8)}}, DatasetError, "label of type float holds no pictures"),
        (
            {"images": {"photo": Picture(column="file", size=8, mode="CMYK")}}, DatasetError,  # type: ignore[arg-type]
            "pictures of photo have mode 'CMYK'; choose one of L, RGB, RGBA",
        ),
        (
            {"training": FAST | {"augment": {"photo": [{"kind": "flip"}]}}}, ConfigError,
            r"training\.augment\.photo: images says it, too; leave one of them out",
        ),
        (
            {"training": FAST | {"augment": {"image": [{"kind": "flip"}]}}}, ConfigError,
            r"training\.augment names image, which is no feature of pictures; there are photo",
        ),
        (
            {"images": ["photo"]}, ConfigError,
            r"images=\['photo'\]: names are of features of a table that prepare wrote, and .*; give images=\{name: Pic",
        ),
        (
            {"dense": ["label"], "training": FAST | {"mix": {"mixup": 1.0}}}, ConfigError,
            r"training\.mix: .* this one reads dense, photo; leave",
        ),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_had_are_refused_before_any_rank_starts(
    tmp_path: Path, table: str, options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        launch(table, tmp_path / "run", object(), **options)  # no session is asked before
    assert not (tmp_path / "run" / "attempts").exists()


def test_a_model_of_pixels_makes_no_version_as_nobody_knows_how_they_came_about(tmp_path: Path, table: str) -> None:
    spec = TensorSpec("photo", ("file",), "uint8", picture=Picture(size=8, store="pixels").spec)
    with pytest.raises(
        RegistryError, match="column file holds pixels, and how they were made of pictures is not known"
    ):
        outcomes._image(spec, spec.picture, delta_files.take(table))  # type: ignore[arg-type]
