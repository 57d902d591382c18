"""Rows of a split as a model reads them, in one process. Runs anywhere; needs no Spark."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.features.tensors import Tensors
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot

REFERENCE_ROWS = 256
"""Rows whose mean a network's attributions begin at."""
_AT_ONCE = 4096


def drawn(snapshot: Snapshot, tensors: Tensors, *, most: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return rows with their "target", "row_id" and, if the task has one, "weight", each (n, ...).

    All rows in the table's order, unless there are more than `most`: then row groups are drawn by `seed`, and rows of them.

    Args:
        snapshot: of one split; at least one row.
        tensors: what is read of each row.
        most: rows.
        seed: of the draw.

    Raises:
        DatasetError, TableError: the rows cannot be read any more.
    """
    wanted = min(most, snapshot.num_rows)
    settings = StreamingSettings(
        remainder="keep",
        lanes=1,
        workers=1,
        pool="thread",
        shuffle_window_rows=max(_AT_ONCE, wanted),
        read_ahead_bytes=0,
    )
    batches: list[dict[str, NDArray[Any]]] = []
    num_read = 0
    with open_feature_table(
        snapshot, tensors, settings, rank=0, world_size=1, global_batch_size=min(_AT_ONCE, wanted), seed=seed,
        shuffle=wanted < snapshot.num_rows,
    ) as stream:  # fmt: skip
        for batch in stream:
            # Copies: a stream uses the memory of a batch again.
            arrays = {name: np.array(values.numpy()) for name, values in batch.items() if name != "is_padding"}
            batches.append({name: values[: wanted - num_read] for name, values in arrays.items()})
            num_read += len(batches[-1]["row_id"])
            if num_read == wanted:
                break
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
