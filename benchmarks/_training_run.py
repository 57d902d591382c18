"""Small training runs whose course can be watched and disturbed, and their driver as a process of its own.

python benchmarks/_training_run.py RUN_FOLDER TABLE_FOLDER WORK
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet
from pyspark.sql import SparkSession
from torch.nn import functional

from mlspark import session
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.cnn import CnnSettings
from mlspark.models.model import Model
from mlspark.models.tabular import TabularSettings
from mlspark.pictures.augment import Crop, Erasing, Flip, RandAugment
from mlspark.pictures.mixing import Mix
from mlspark.pictures.spec import PictureSpec
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.tasks.kinds import from_settings
from mlspark.training.events import Event, OnEvent
from mlspark.training.launcher import launch
from mlspark.training.outcome import TrainingOutcome
from mlspark.training.settings import OptimizerSettings, RecoverySettings, TrainingSettings
from mlspark.training.spec import Functions, TrainingSpec

TASK = from_settings(
    {
        "kind": "binary", "target": "label", "classes": [0, 1],
        "loss": {"kind": "custom", "function": "benchmarks:watched_loss"},
    }
)  # fmt: skip
RANKS = 2
_STEP_SECONDS = 0.02  # so that there is time to disturb it


def _columns(random: np.random.Generator, count: int) -> dict[str, Any]:
    age, hours, job = random.normal(size=count), random.normal(size=count), random.integers(0, 7, count)
    label = random.random(count) < 1 / (1 + np.exp(-(2 * age - hours + (job % 3) - 1)))
    return {"age": age.astype("f4"), "hours": hours.astype("f4"), "job": job.astype("i4"), "label": label.astype("f4")}


def _photos(random: np.random.Generator, count: int) -> dict[str, Any]:
    """Noise, brighter in the rows of the event, as JPEG."""
    label, files = random.random(count) < 0.5, []
    for is_event in label:
        pixels, stream = random.integers(0, 180, (30, 34, 3), dtype=np.uint8) + np.uint8(40 * is_event), io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG")
        files.append(stream.getvalue())
    return {"photo": pa.array(files, pa.binary()), "label": label.astype("f4")}


@dataclass(frozen=True)
class Work:
    """What a run learns."""

    name: str
    columns: Callable[[np.random.Generator, int], dict[str, Any]]
    """Makes the columns of so many rows, but for their ids."""
    rows: Mapping[str, int]
    """Rows of each split, prime: no batch size divides them."""
    group_rows: int
    tensors: Tensors
    model: Model
    batch: int
    epochs: int
    calls: int = 1
    """Calls of the loss function in each step."""
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return self.epochs * -(-self.rows["train"] // self.batch)


COLUMNS = Work(
    name="columns",
    columns=_columns,
    rows={"train": 10_007, "validation": 1_009, "test": 1_013},
    group_rows=500,
    tensors=Tensors((TensorSpec("dense", ("age", "hours"), "float32"), TensorSpec("ids", ("job",), "int64", (7,)))),
    model=TabularSettings(hidden=(16,), dropout=0.2),
    batch=256,
    epochs=4,
)
PICTURES = Work(
    name="pictures",
    columns=_photos,
    rows={"train": 1_511, "validation": 199, "test": 197},
    group_rows=100,
    tensors=Tensors((TensorSpec("photo", ("photo",), "uint8", picture=PictureSpec("RGB", 24, 24)),)),
    model=CnnSettings(widths=(8,), depth=1, dropout=0.2),
    batch=64,
    epochs=6,
    calls=2,
    training={
        "augment": {"photo": (Crop(padding=3), Flip(), RandAugment(), Erasing())},
        "mix": Mix(mixup=0.4, cutmix=1.0),
    },
)
WORKS = {work.name: work for work in (COLUMNS, PICTURES)}


def write_table(folder: Path, work: Work = COLUMNS) -> int:
    """Write the rows as Parquet, one file per split, and their snapshot; return the sum of the training rows' ids."""
    files, id_sum = [], 0
    for number, (split, count) in enumerate(work.rows.items()):
        random = np.random.default_rng(number)
        columns, row_id = work.columns(random, count), random.integers(-(2**40), 2**40, count)
        path = folder / f"split={split}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        parquet.write_table(pa.table({**columns, "row_id": row_id}), path, row_group_size=work.group_rows)
        groups = tuple(min(work.group_rows, count - start) for start in range(0, count, work.group_rows))
        files.append(DataFile(str(path.relative_to(folder)), path.stat().st_size, {"split": split}, groups))
        id_sum += int(row_id.sum()) if split == "train" else 0
    Snapshot(str(folder), 0, {}, tuple(sorted(files, key=lambda file: file.path))).save(str(folder / "snapshot.json"))
    return id_sum


def new_spec(run: Path, table: Path, work: Work = COLUMNS) -> TrainingSpec:
    """Return a run with its snapshot in place."""
    run.mkdir(parents=True, exist_ok=True)
    spec = TrainingSpec(
        run_uri=str(run),
        tensors=work.tensors,
        task=TASK,
        model=work.model,
        training=TrainingSettings(
            num_processes=RANKS,
            epochs=work.epochs,
            global_batch_size=work.batch,
            optimizer=OptimizerSettings(learning_rate=1e-2),
            recovery=RecoverySettings(checkpoint_steps=10, backoff_seconds=0.2),
            **work.training,
        ),
        streaming=StreamingSettings(shuffle_window_rows=4 * work.group_rows),
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
    """Return how often a rank has called the loss function, over all starts."""
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


def main(run: Path, table: Path, work: Work) -> None:
    """Train in a session of this process; add each event with its time to RUN/events as a line of JSON."""
    spark = session.start("training-faults", {"spark.master": f"local[{RANKS}]"})
    with open(run / "events", "a", encoding="utf-8", buffering=1) as log:

        def write(event: Event) -> None:
            log.write(json.dumps({"at": time.time(), **event.to_json()}) + "\n")

        outcome = train(spark, new_spec(run, table, work), write)
    (run / "outcome").write_text(json.dumps([epoch.row_id_sum for epoch in outcome.epochs]), encoding="utf-8")
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), WORKS[sys.argv[3]])
