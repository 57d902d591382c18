"""Single rows of a split: the worst are found, read from their table again, and explained."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from deltalake import write_deltalake
from torch import nn

from mlspark.engines.combination import Combination
from mlspark.engines.eager import Eager
from mlspark.engines.engine import Engine
from mlspark.engines.ensemble import Ensemble
from mlspark.errors import ConfigError
from mlspark.evaluation import examined_rows, predictions, report
from mlspark.evaluation.examined_rows import ExaminedError
from mlspark.evaluation.predictions import Predictions
from mlspark.evaluation.report import Evaluated
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.cnn import CnnSettings
from mlspark.pictures.spec import PictureSpec
from mlspark.streaming import delta_files
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.kinds import from_settings

BINARY = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"]})
NUMBER = from_settings({"kind": "regression", "target": "y", "standardise": False})
TENSORS = Tensors((TensorSpec("dense", ("age", "hours"), "float32"), TensorSpec("ids", ("job",), "int64", (4,))))
NUM_ROWS = 60


class Net(nn.Module):
    """age + 10 * job: what each column adds is known."""

    def __init__(self) -> None:
        super().__init__()
        self.job = nn.Embedding(4, 1, _weight=torch.arange(4.0)[:, None] * 10)

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = dense[:, :1] + self.job(ids[:, 0])
        return outputs


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A feature table of two splits; the last row of test is there twice."""
    folder = str(tmp_path_factory.mktemp("table"))
    places = np.append(np.arange(NUM_ROWS), NUM_ROWS - 1)
    rows = pa.table(
        {
            "age": places.astype(np.float32),
            "hours": (places * 2).astype(np.float32),
            "job": (places % 4).astype(np.int32),
            "label": pa.array(places % 2, pa.float32()),
            "row_id": 1000 + places,
            "split": ["train" if place < 20 else "test" for place in places],
        }
    )
    write_deltalake(folder, rows, partition_by=["split"])
    return delta_files.take(folder)


def kept(outputs: Any, target: Any, weight: Any = None) -> Predictions:
    return Predictions.of(1020 + np.arange(len(target)), target, np.asarray(outputs)[:, None], weight)


def test_the_worst_are_mistakes_with_the_greatest_loss_once_each() -> None:
    outputs, target = [3.0, -2.0, 1.0, -5.0, 9.0, -7.0], [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    rows = kept(outputs, target, [1, 1, 1, 1, 1, 0])
    ids = rows.row_id[examined_rows.worst(BINARY, rows, most=3).places]
    assert ids.tolist() == [1023, 1020, 1021]
    assert examined_rows.worst(BINARY, rows, most=9).note.startswith("Of 4 mistakes")
    twice = Predictions.of([5, 5, 6], [1.0, 1.0, 1.0], [[-3.0], [-3.0], [-1.0]])
    assert twice.row_id[examined_rows.worst(BINARY, twice, most=9).places].tolist() == [5, 6]
    numbers = examined_rows.worst(NUMBER, kept([1.0, 5.0, -9.0], [1.0, 2.0, 3.0]), most=2)
    assert numbers.places.tolist() == [2, 1]


def test_rows_that_are_asked_for_are_found_or_named() -> None:
    rows = kept([1.0, 2.0, 3.0], [0.0, 1.0, 0.0])
    assert examined_rows.asked_for(rows, [1022, 1020]).places.tolist() == [2, 0]
    with pytest.raises(ExaminedError, match="row_id 7, -8: no such row among the 3 that were evaluated"):
        examined_rows.asked_for(rows, [1022, 7, -8])


ALONE = Eager(Net(), TENSORS, 1)
TWICE = Ensemble([ALONE, ALONE], Combination("mean", "logistic", weights=(0.75, 0.25)), TENSORS)


@pytest.mark.parametrize("model", [ALONE, TWICE])
def test_rows_are_read_again_and_what_columns_add_is_what_they_add(snapshot: Snapshot, model: Engine) -> None:
    places = np.arange(20, NUM_ROWS)
    outputs = places + 10.0 * (places % 4)
    rows = kept(outputs, places % 2)
    found = examined_rows.examine(
        BINARY, rows, examined_rows.asked_for(rows, [1059, 1021]),
        engine=model, tensors=TENSORS, snapshot=snapshot, split="test",
    )  # fmt: skip
    assert [row.row_id for row in found.rows] == [1059, 1021]
    assert found.rows[1].title == "yes, predicted so"
    test_rows = np.append(places, NUM_ROWS - 1)
    for row, place in zip(found.rows, (59, 21), strict=True):
        adds = {part.column: part.value for part in row.contributions}
        assert adds == pytest.approx(
            {"age": place - test_rows.mean(), "hours": 0, "job": 10 * (place % 4 - (test_rows % 4).mean())}, abs=1e-4
        )
        assert [part.encoded for part in row.contributions] == [str(place), str(2 * place), str(place % 4)]
    assert "integrated gradients" in found.notes[-1]
    assert "what it is for the mean of other rows; all together lead to the number itself" in found.notes[-1]
    nothing_wrong = examined_rows.worst(BINARY, kept([1.0], [1.0]), most=3)
    none = examined_rows.examine(
        BINARY, rows, nothing_wrong,
        engine=model, tensors=TENSORS, snapshot=snapshot, split="test",
    )  # fmt: skip
    assert none.notes == ("None: all predictions are right.",)


def evaluated(snapshot: Snapshot, folder: Path, **others: Any) -> Evaluated:
    values: dict[str, Any] = {
        "name": "people", "version": 1, "run_id": "r", "files": {"model.json": b'{"engine": "none"}'}, "task": BINARY,
        "tensors": TENSORS, "snapshot": snapshot, "metrics": {}, "predictions": {}, "model": "tabular",
    }  # fmt: skip
    return Evaluated(**values | others)


def test_rows_that_cannot_be_shown_leave_the_figures(snapshot: Snapshot, tmp_path: Path) -> None:
    rows = kept([1.0, -2.0, 3.0], [0.0, 1.0, 0.0])
    uri = predictions.uri_of(str(tmp_path), "test")
    predictions.write(uri, rows)
    known = evaluated(
        snapshot, tmp_path, predictions={"test": uri}, metrics={"test": rows.metrics(BINARY, intervals=False)}
    )
    page = report.page(known)
    assert "No row can be shown: model.json: engine &#39;none&#39; is unknown" in page
    assert "Confusion matrix" in page
    with pytest.raises(ConfigError, match=r"--split validation: no predictions of such rows \(there are: test\)"):
        report.page(known, split="validation")


def test_without_evaluated_rows_there_is_a_page_of_the_training(snapshot: Snapshot, tmp_path: Path) -> None:
    known = evaluated(snapshot, tmp_path, epochs=[{"epoch": 1, "train_loss": 0.5, "learning_rate": 0.1}], best_epoch=1)
    assert "Loss per row" in report.page(known)
    with pytest.raises(ConfigError, match="--rows: no rows were evaluated"):
        report.page(known, row_ids=[1])


def test_epochs_are_kept_with_the_run(tmp_path: Path) -> None:
    assert report.kept_epochs(str(tmp_path)) == []
    report.keep_epochs(str(tmp_path), [{"epoch": 1, "train_loss": 0.5}])
    assert report.kept_epochs(str(tmp_path)) == [{"epoch": 1, "train_loss": 0.5}]


@pytest.mark.parametrize("is_thorough", [False, True])
def test_pictures_come_with_maps_and_columns_beside_them_when_asked(tmp_path: Path, is_thorough: bool) -> None:
    picture = PictureSpec("RGB", 8, 8, store="pixels")
    tensors = Tensors(
        (TensorSpec("dense", ("age",), "float32"), TensorSpec("photo", ("photo",), "uint8", picture=picture))
    )
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), np.uint8)
    rows = pa.table(
        {
            "age": np.arange(6, dtype=np.float32),
            "photo": pa.array([each.tobytes() for each in pixels], pa.binary()),
            "label": pa.array([1.0] * 6, pa.float32()),
            "row_id": np.arange(6),
            "split": ["test"] * 6,
        }
    )
    write_deltalake(str(tmp_path), rows, partition_by=["split"])
    network = CnnSettings(kind="cnn", widths=(4, 4), depth=1, norm="group").build(tensors, 1).eval()
    predicted = Predictions.of(np.arange(6), np.ones(6), np.ones((6, 1)))
    found = examined_rows.examine(
        BINARY, predicted, examined_rows.asked_for(predicted, [4, 2]),
        engine=Eager(network, tensors, 1), tensors=tensors, snapshot=delta_files.take(str(tmp_path)), split="test",
        is_thorough=is_thorough,
    )  # fmt: skip
    for row, place in zip(found.rows, (4, 2), strict=True):
        np.testing.assert_array_equal(row.pictures["photo"], pixels[place])
        assert row.maps["photo"].shape == (8, 8)
        assert [part.column for part in row.contributions] == (["age", "photo"] if is_thorough else [])
    assert "(Grad-CAM)" in found.notes[0]
