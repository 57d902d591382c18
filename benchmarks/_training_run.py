"""A small training run whose course can be watched and disturbed, and its driver as a process of its own.

python benchmarks/_training_run.py RUN_FOLDER TABLE_FOLDER
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from pyspark.sql import SparkSession
from torch.nn import functional

from mlspark import session
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.tabular import TabularSettings
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.tasks.kinds import from_settings
from mlspark.training.events import Event, OnEvent
from mlspark.training.launcher import launch
from mlspark.training.outcome import TrainingOutcome
from mlspark.training.settings import OptimizerSettings, RecoverySettings, TrainingSettings
from mlspark.training.spec import Functions, TrainingSpec

TENSORS = Tensors((TensorSpec("dense", ("age", "hours"), "float32"), TensorSpec("ids", ("job",), "int64", (7,))))
TASK = from_settings(
    {
        "kind": "binary", "target": "label", "classes": [0, 1],
        "loss": {"kind": "custom", "function": "benchmarks:watched_loss"},
    }
)  # fmt: skip
ROWS = {"train": 10_007, "validation": 1_009, "test": 1_013}  # prime: no batch size divides them
BATCH, EPOCHS, RANKS = 256, 4, 2
STEPS = EPOCHS * -(-ROWS["train"] // BATCH)
_STEP_SECONDS = 0.02  # so that there is time to disturb it
_GROUP_ROWS = 500


def write_table(folder: Path) -> int:
    """Write the rows as Parquet, one file per split, and their snapshot; return the sum of the training rows' ids."""
    files, id_sum = [], 0
    for number, (split, count) in enumerate(ROWS.items()):
        random = np.random.default_rng(number)
        age, hours, job = random.normal(size=count), random.normal(size=count), random.integers(0, 7, count)
        label = random.random(count) < 1 / (1 + np.exp(-(2 * age - hours + (job % 3) - 1)))
        row_id = random.integers(-(2**40), 2**40, count)
        columns = {"age": age.astype("f4"), "hours": hours.astype("f4"), "job": job.astype("i4")}
        path = folder / f"split={split}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        rows = pa.table({**columns, "label": label.astype("f4"), "row_id": row_id})
        parquet.write_table(rows, path, row_group_size=_GROUP_ROWS)
        groups = tuple(min(_GROUP_ROWS, count - start) for start in range(0, count, _GROUP_ROWS))
        files.append(DataFile(str(path.relative_to(folder)), path.stat().st_size, {"split": split}, groups))
        id_sum += int(row_id.sum()) if split == "train" else 0
    Snapshot(str(folder), 0, {}, tuple(sorted(files, key=lambda file: file.path))).save(str(folder / "snapshot.json"))
    return id_sum


def new_spec(run: Path, table: Path, *, processes: int = RANKS, **recovery: Any) -> TrainingSpec:
    """Return a run with its snapshot in place."""
    run.mkdir(parents=True, exist_ok=True)
    settings = {"checkpoint_steps": 10, "backoff_seconds": 0.2, **recovery}
    spec = TrainingSpec(
        run_uri=str(run),
        tensors=TENSORS,
        task=TASK,
        model=TabularSettings(hidden=(16,), dropout=0.2),
        training=TrainingSettings(
            num_processes=processes,
            epochs=EPOCHS,
            global_batch_size=BATCH,
            optimizer=OptimizerSettings(learning_rate=1e-2),
            recovery=RecoverySettings(**settings),
        ),
        streaming=StreamingSettings(shuffle_window_rows=2_000),
    )
    Snapshot.load(str(table / "snapshot.json")).save(spec.snapshot_uri)
    return spec


def watched_loss(run: Path, raises_at: tuple[int, int] | None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the usual loss, which notes each call of each rank in RUN/calls-RANK, and may raise once, at (rank, call)."""
    folder, seconds = str(run), _STEP_SECONDS

    def loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        rank = os.environ["RANK"]
        with open(f"{folder}/calls-{rank}", "ab") as calls:
            calls.write(b".")
            count = calls.tell()
        if raises_at is not None and (int(rank), count) == raises_at and not os.path.exists(f"{folder}/raised"):
            with open(f"{folder}/raised", "x") as file:
                file.write(str(time.time()))
            raise RuntimeError("the loss function met an odd number")
        time.sleep(seconds)
        return functional.binary_cross_entropy_with_logits(logits, label, reduction="none")

    return loss


def calls(run: Path, rank: int) -> int:
    """Return how many steps a rank has begun, over all starts."""
    file = run / f"calls-{rank}"
    return file.stat().st_size if file.exists() else 0


def train(
    spark: SparkSession,
    spec: TrainingSpec,
    on_event: OnEvent,
    raises_at: tuple[int, int] | None = None,
) -> TrainingOutcome:
    loss = watched_loss(Path(spec.run_uri), raises_at)
    return launch(spark, spec, on_event, functions=Functions(loss=loss))


def main(run: Path, table: Path) -> None:
    """Train in a session of this process; add each event with its time to RUN/events as a line of JSON."""
    spark = session.start("training-faults", {"spark.master": f"local[{RANKS}]"})
    with open(run / "events", "a", encoding="utf-8", buffering=1) as log:

        def write(event: Event) -> None:
            log.write(json.dumps({"at": time.time(), **event.to_json()}) + "\n")

        outcome = train(spark, new_spec(run, table), write)
    (run / "outcome").write_text(json.dumps([epoch.row_id_sum for epoch in outcome.epochs]), encoding="utf-8")
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
