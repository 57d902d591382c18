"""Pictures in training: changed at random where the model learns, and nowhere else."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet as pq

from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.cnn import CnnSettings
from mlspark.pictures.augment import Crop, Flip, ResizedCrop
from mlspark.pictures.spec import PictureSpec
from mlspark.settings import loading
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.training import network_learner
from mlspark.training.data import RankData, splits_of
from mlspark.training.spec import NO_FUNCTIONS, TrainingSpec
from mlspark.training.state import RankContext

from ..conftest import ROOT
from .conftest import fit_here, new_run, weights_manifest

AUGMENT = {"photo": (Crop(padding=2), Flip())}
SPEC = PictureSpec("RGB", 12, 12, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """40 training pictures and 16 of each other split: bright ones are of class 1."""
    folder, chance, files = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    for split, count in (("test", 16), ("train", 40), ("validation", 16)):
        photos, labels = [], np.arange(count) % 2
        for label in labels:
            pixels, stream = chance.integers(0, 130, (12, 12, 3), dtype=np.uint8) + np.uint8(90 * label), io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            photos.append(stream.getvalue())
        row_ids = chance.integers(-(2**62), 2**62, count)
        rows = {"photo": pa.array(photos, pa.binary()), "label": labels.astype(np.float32), "row_id": row_ids}
        path = folder / f"split={split}" / "part.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table(rows), path, row_group_size=10)
        groups = tuple(min(10, count - start) for start in range(0, count, 10))
        files.append(DataFile(str(path.relative_to(folder)), path.stat().st_size, {"split": split}, groups))
    return Snapshot(str(folder), 0, {}, tuple(files))


def run_of(folder: Path, table: Snapshot, **training: Any) -> TrainingSpec:
    defaults = {"num_processes": 1, "epochs": 2, "global_batch_size": 8, "augment": AUGMENT}
    return dataclasses.replace(
        new_run(folder, table, **(defaults | training)),
        tensors=Tensors((TensorSpec("photo", ("photo",), "uint8", picture=SPEC),)),
        model=CnnSettings(depth=1, widths=(4,)),
    )


def pictures(stream: Any) -> dict[int, torch.Tensor]:
    return {
        row_id: picture
        for batch in stream
        for row_id, picture in zip(batch["row_id"].tolist(), batch["photo"], strict=True)
    }


def test_only_rows_that_a_model_learns_from_are_changed(tmp_path: Path, table: Snapshot) -> None:
    context = RankContext(0, 1, torch.device("cpu"), lambda event: None, lambda: False)
    data = {
        name: RankData(run_of(tmp_path / name, table, augment=augment), splits_of(table), context)
        for name, augment in (("changed", AUGMENT), ("plain", {}))
    }
    learnt = {name: pictures(of.training(0, 0)) for name, of in data.items()}
    assert sum(bool((learnt["changed"][row] == picture).all()) for row, picture in learnt["plain"].items()) < 8
    for split in ("train", "validation"):
        held_out = {name: pictures(of.held_out(split)) for name, of in data.items()}
        assert held_out["changed"].keys() == held_out["plain"].keys()
        assert all(bool((held_out["changed"][row] == picture).all()) for row, picture in held_out["plain"].items())
    assert torch.equal(data["changed"].two_rows()["photo"], data["plain"].two_rows()["photo"])
    for of in data.values():
        of.close()


def test_what_is_done_to_pictures_is_part_of_a_run_and_of_its_weights(tmp_path: Path, table: Snapshot) -> None:
    specs = [run_of(tmp_path / name, table) for name in ("first", "again")]
    plain = run_of(tmp_path / "plain", table, augment={})
    assert specs[0].digest("table") == specs[1].digest("table") != plain.digest("table")
    assert TrainingSpec.from_json(specs[0].to_json()) == specs[0]
    for spec in (*specs, plain):
        fit_here(spec)
    weights = [weights_manifest(spec) for spec in (*specs, plain)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"image": (Flip(),)}, r"training\.augment names image, which is no feature of pictures; there are photo"),
        ({"photo": (Flip(), ResizedCrop())}, r"training\.augment\.photo: resized_crop is number 2"),
    ],
)
def test_what_does_not_fit_is_refused_before_ranks_start(
    tmp_path: Path, table: Snapshot, augment: Any, message: str
) -> None:
    spec = run_of(tmp_path, table, augment=augment)
    with pytest.raises(ConfigError, match=message):
        network_learner.learn(None, spec, lambda event: None, functions=NO_FUNCTIONS)  # type: ignore[arg-type]


def test_settings_come_from_yaml_and_are_refused_by_name() -> None:
    census = str(ROOT / "conf" / "census.yaml")
    text = "training.augment={photo: [{kind: resized_crop, scale: [0.3, 1]}, {kind: flip, vertical: 0.1}]}"
    settings = loading.load([census], [text])
    assert settings.training.augment == {"photo": (ResizedCrop(scale=(0.3, 1.0)), Flip(vertical=0.1))}
    with pytest.raises(ConfigError, match=r"training\.augment\.photo\.0.*padding"):
        loading.load([census], ["training.augment={photo: [{kind: crop, padding: 0}]}"])
