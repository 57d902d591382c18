"""The outputs of a model for all rows of a split, as a Parquet file of the run. Runs anywhere; no Spark, no torch.

One row group after the other, sorted by row_id, then outputs and target: the file does not depend on the order in which
rows were evaluated, and so not on the number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import MlsparkError

if TYPE_CHECKING:
    from mlspark.tasks.metrics import Metrics
    from mlspark.tasks.task import Task

FOLDER = "predictions"
"""Folder of a run that holds SPLIT.parquet."""
_GROUP_ROWS = 131_072


class PredictionsError(MlsparkError):
    """A file of predictions is absent or not one."""


@dataclass(frozen=True)
class Predictions:
    """Outputs of n rows, in the order of the file."""

    row_id: NDArray[np.int64]
    """(n,): hash of the row's content, so equal rows have equal ids."""
    target: NDArray[Any]
    """(n,): int64 where the task has classes by number, else float64."""
    outputs: NDArray[np.float64]
    """(n, O): outputs of the model, before any sigmoid or softmax."""
    weight: NDArray[np.float64] | None = None
    """(n,): sample weights, if the task has them."""

    @classmethod
    def of(
        cls, row_id: ArrayLike, target: ArrayLike, outputs: ArrayLike, weight: ArrayLike | None = None
    ) -> "Predictions":
        """Return the rows sorted, in the types of the file.

        Args:
            row_id: (n,) integers.
            target: (n,) integers or floats.
            outputs: (n, O) floats; float32 keeps its value.
            weight: (n,) floats.
        """
        ids, targets, scores = np.asarray(row_id, np.int64), np.asarray(target), np.asarray(outputs, np.float64)
        targets = targets.astype(np.int64 if targets.dtype.kind in "iu" else np.float64)
        keys = [targets, *scores.T[::-1], ids]  # the last is the first to sort by
        weights = None if weight is None else np.asarray(weight, np.float64)
        order = np.lexsort(keys if weights is None else [weights, *keys])
        return cls(ids[order], targets[order], scores[order], None if weights is None else weights[order])

    def __len__(self) -> int:
        return len(self.row_id)

    def metrics(self, task: "Task", *, intervals: bool = True) -> "Metrics":
        """Return the task's metrics of these rows; see `Task.metrics` for `intervals`."""
        return task.metrics(self.outputs, self.target, self.weight, intervals=intervals)


def uri_of(run_uri: str, split: str) -> str:
    """Return where a run keeps the predictions of a split."""
    return storage.join(run_uri, FOLDER, f"{split}.parquet")


def write(uri: str, predictions: Predictions) -> None:
    """Write the file, in place of the one there; on any scheme of mlspark.storage. It is whole or absent."""
    schema, buffer = _schema(predictions), pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, schema, compression="zstd", write_statistics=False) as writer:
        for start in range(0, len(predictions), _GROUP_ROWS):
            writer.write_table(_table(predictions, slice(start, start + _GROUP_ROWS), schema))
    storage.write_bytes(uri, buffer.getvalue().to_pybytes())


def read(uri: str) -> Predictions:
    """Return the predictions in file `uri`.

    Raises:
        PredictionsError: there is no such file, or it is not one of predictions.
    """
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    except FileNotFoundError:
        raise PredictionsError(f"{uri}: no predictions here; train first, with validation or test rows") from None
    except pa.ArrowInvalid as error:
        raise PredictionsError(f"{uri}: not a file of predictions ({error}); train again") from error
    missing = [name for name in ("row_id", "target", "outputs") if name not in table.column_names]
    if missing:
        raise PredictionsError(f"{uri}: not a file of predictions: no column {', '.join(missing)}; train again")
    lists = table["outputs"].combine_chunks()
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    num_outputs = len(flat) // max(1, len(table))
    weight = table["weight"].to_numpy() if "weight" in table.column_names else None
    return Predictions(
        table["row_id"].to_numpy(), table["target"].to_numpy(), flat.reshape(len(table), num_outputs), weight
    )


def _schema(predictions: Predictions) -> pa.Schema:
    fields = [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("target", pa.from_numpy_dtype(predictions.target.dtype), nullable=False),
        pa.field("outputs", pa.list_(pa.field("element", pa.float64(), nullable=False)), nullable=False),
    ]
    if predictions.weight is not None:
        fields.append(pa.field("weight", pa.float64(), nullable=False))
    return pa.schema(fields)


def _table(predictions: Predictions, rows: slice, schema: pa.Schema) -> pa.Table:
    def columns() -> Iterator[pa.Array]:
        outputs = predictions.outputs[rows]
        ends = np.arange(len(outputs) + 1, dtype=np.int32) * outputs.shape[1]
        yield pa.array(predictions.row_id[rows])
        yield pa.array(predictions.target[rows])
        yield pa.ListArray.from_arrays(ends, outputs.reshape(-1), type=schema.field("outputs").type)
        if predictions.weight is not None:
            yield pa.array(predictions.weight[rows])

    return pa.Table.from_arrays(list(columns()), schema=schema)
