"""A feature table like the census's, encoded, without Spark: what `training.py` and `gpu_steps.py` train on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.tasks.kinds import from_settings

CARDINALITIES = (11, 18, 9, 17, 8, 7, 4, 44)
NUMBERS, TEXTS = tuple(f"number{place}" for place in range(6)), tuple(f"text{place}" for place in range(8))
TENSORS = Tensors((TensorSpec("dense", NUMBERS, "float32"), TensorSpec("ids", TEXTS, "int64", CARDINALITIES)))
TASK = from_settings({"kind": "binary", "target": "label", "classes": [0, 1]})
_GROUP_ROWS = 50_000


def write_table(folder: Path, num_rows: int) -> Snapshot:
    """Write rows like those of the census, encoded."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {name: random.normal(size=num_rows).astype("f4") for name in NUMBERS}
    for name, cardinality in zip(TEXTS, CARDINALITIES, strict=True):
        columns[name] = random.integers(0, cardinality, num_rows).astype("i4")
    label = (columns["number0"] + columns["text0"] * 0.1 + random.normal(size=num_rows) > 1.0).astype("f4")
    table = pa.table({**columns, "label": label, "row_id": random.integers(-(2**62), 2**62, num_rows)})
    path = folder / "split=train" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(table, path, row_group_size=_GROUP_ROWS, compression="lz4")
    (folder / "tensors.json").write_text(json.dumps(TENSORS.to_json()), encoding="utf-8")
    groups = tuple(min(_GROUP_ROWS, num_rows - start) for start in range(0, num_rows, _GROUP_ROWS))
    file = DataFile("split=train/part-0.parquet", path.stat().st_size, {"split": "train"}, groups)
    return Snapshot(str(folder), 0, {}, (file,))
