from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet as pq

from mlspark.evaluation import predictions
from mlspark.evaluation.predictions import Predictions, PredictionsError
from mlspark.tasks.kinds import from_settings

BINARY = from_settings({"kind": "binary", "target": "label", "classes": [0, 1]})
MULTICLASS = from_settings({"kind": "multiclass", "target": "label", "classes": ["a", "b", "c"]})


def some(num_outputs: int, *, has_weights: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    rows = {
        "row_id": np.array([5, -7, 5, 0, 2**62]),
        "target": random.integers(0, max(2, num_outputs), 5).astype(np.float32 if num_outputs == 1 else np.int64),
        "outputs": random.normal(size=(5, num_outputs)).astype(np.float32),
    }
    return rows | ({"weight": random.random(5)} if has_weights else {})


@pytest.mark.parametrize("num_outputs", [1, 3])
@pytest.mark.parametrize("has_weights", [False, True])
def test_file_gives_back_what_was_written(tmp_path: Path, num_outputs: int, has_weights: bool) -> None:
    written = Predictions.of(**some(num_outputs, has_weights=has_weights))
    uri = predictions.uri_of(str(tmp_path), "test")
    predictions.write(uri, written)
    read = predictions.read(uri)
    assert uri == f"{tmp_path}/predictions/test.parquet"
    for name, values in vars(written).items():
        np.testing.assert_array_equal(getattr(read, name), values, strict=True)
    task = BINARY if num_outputs == 1 else MULTICLASS
    assert read.metrics(task) == written.metrics(task)


def test_file_has_plain_columns(tmp_path: Path) -> None:
    predictions.write(str(tmp_path / "file"), Predictions.of([2, 1], [1.0, 0.0], [[0.5], [-0.25]]))
    table = pq.read_table(tmp_path / "file")
    assert [str(field.type) for field in table.schema] == ["int64", "double", "list<element: double not null>"]
    assert table.to_pylist() == [
        {"row_id": 1, "target": 0.0, "outputs": [-0.25]},
        {"row_id": 2, "target": 1.0, "outputs": [0.5]},
    ]


def test_order_of_the_rows_changes_no_byte(tmp_path: Path) -> None:
    rows = some(3, has_weights=True)
    contents = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(5)
        predictions.write(str(tmp_path / "file"), Predictions.of(**{name: rows[name][order] for name in rows}))
        contents.append((tmp_path / "file").read_bytes())
    assert len(set(contents)) == 1


def test_rows_are_sorted_by_id_then_outputs() -> None:
    sorted_ = Predictions.of([3, 1, 3, 3], [0, 0, 1, 0], [[2.0, 0.0], [9.0, 9.0], [1.0, 5.0], [1.0, 4.0]])
    assert sorted_.row_id.tolist() == [1, 3, 3, 3]
    assert sorted_.outputs.tolist() == [[9.0, 9.0], [1.0, 4.0], [1.0, 5.0], [2.0, 0.0]]


def test_no_rows(tmp_path: Path) -> None:
    predictions.write(str(tmp_path / "file"), Predictions.of([], np.empty(0, np.int64), np.empty((0, 3))))
    assert len(predictions.read(str(tmp_path / "file"))) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no predictions here; train first"), (b"text", "not a file of predictions .*train again")],
)
def test_file_that_is_none_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(PredictionsError, match=f"{tmp_path}/file: {message}"):
        predictions.read(str(tmp_path / "file"))
