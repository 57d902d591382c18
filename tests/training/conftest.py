"""Training runs on a small feature table that is written without Spark."""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch.distributed as dist
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.tabular import TabularSettings
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.task import Task
from mlspark.training import checkpoint
from mlspark.training.loop import fit
from mlspark.training.settings import OptimizerSettings, TrainingSettings
from mlspark.training.spec import TrainingSpec
from mlspark.training.state import RankResult

from . import forked_ranks

TENSORS = Tensors((TensorSpec("dense", ("age", "hours"), "float32"), TensorSpec("ids", ("job",), "int64", (7,))))
TASK = BinaryTask(kind="binary", target="label", classes=(0, 1))
TARGET_DTYPES = {"binary": "float32", "multiclass": "int64", "regression": "float64"}
ROWS = {"train": 2003, "validation": 301, "test": 307}  # prime: no batch size divides them
EPOCHS = 3
_TESTED_BY = "MLSPARK_TESTED_BY"
os.environ[_TESTED_BY] = str(os.getpid())  # which test process has started what else


def columns(split: str) -> dict[str, np.ndarray[Any, Any]]:
    """The rows of a split: two standard normal columns, an id, and a label that depends on all three."""
    count = ROWS[split]
    random = np.random.default_rng(list(ROWS).index(split))
    age, hours, job = random.normal(size=count), random.normal(size=count), random.integers(0, 7, count)
    label = random.random(count) < 1 / (1 + np.exp(-(2 * age - hours + (job % 3) - 1)))
    row_id = random.integers(-(2**62), 2**62, count)
    return {
        "age": age.astype(np.float32),
        "hours": hours.astype(np.float32),
        "job": job.astype(np.int32),
        "label": label.astype(np.float32),
        "row_id": row_id,
    }


def write_snapshot(folder: Path, change: Callable[[str, dict[str, Any]], None] | None = None) -> Snapshot:
    """Write one file per split, in row groups of 300; `change` may alter the columns of a split first."""
    files = []
    for split in ROWS:
        table = columns(split)
        if change is not None:
            change(split, table)
        path = folder / f"split={split}" / "part-00000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(table), path, row_group_size=300)
        groups = tuple(min(300, ROWS[split] - start) for start in range(0, ROWS[split], 300))
        files.append(DataFile(str(path.relative_to(folder)), path.stat().st_size, {"split": split}, groups))
    return Snapshot(str(folder), 0, {}, tuple(sorted(files, key=lambda file: file.path)))


def binary_task(**loss: Any) -> Task:
    """TASK with settings of its loss."""
    return from_settings(
        {"kind": "binary", "target": "label", "classes": [0, 1], "loss": {"kind": "cross_entropy", **loss}}
    )


def new_run(
    folder: Path | str, snapshot: Snapshot, *, dropout: float = 0.0, task: Task = TASK, **training: Any
) -> TrainingSpec:
    """A run folder with its snapshot in place."""
    optimizer = OptimizerSettings(learning_rate=2e-2)
    defaults = {"num_processes": 2, "epochs": EPOCHS, "global_batch_size": 256, "optimizer": optimizer}
    spec = TrainingSpec(
        run_uri=str(folder),
        tensors=TENSORS,
        task=task,
        model=TabularSettings(hidden=(16,), dropout=dropout),
        training=TrainingSettings(**(defaults | training)),
        streaming=StreamingSettings(shuffle_window_rows=500),
    )
    snapshot.save(spec.snapshot_uri)
    return spec


def fit_here(spec: TrainingSpec, *, backend: str = "gloo", **options: Any) -> RankResult:
    """Train as the only rank, in this process, and leave its result."""
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        result = fit(spec, **options)
        storage.write_json(storage.join(spec.attempt_uri, "rank-0.json"), result.to_json())
        return result
    except Exception as error:
        # The traceback keeps the model alive, and torch may deadlock when that goes after its process group.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        dist.destroy_process_group()


def run_torchrun(spec: TrainingSpec) -> subprocess.CompletedProcess[str]:
    """Train on `num_processes` processes that torchrun starts; forked_ranks.run takes an eighth of the processor time."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
    command += [f"--nproc-per-node={spec.training.num_processes}", "-m", "mlspark.training.rank", spec.save()]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def ranks_of(spec: TrainingSpec) -> list[int]:
    """Ids of the living processes that train the run of `spec`, whichever start of it.

    By their command line; where they are copies of a Python worker, by their names those that this test process has started.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
            is_named = (folder / "comm").read_text().startswith("mlspark rank ")
        except OSError:
            continue
        if arguments[1:3] == [b"-m", b"mlspark.training.rank"]:
            is_rank = arguments[3].startswith(f"{spec.run_uri}/".encode())
        else:
            is_rank = is_named and f"{_TESTED_BY}={os.environ.get(_TESTED_BY)}".encode() in variables
        if is_rank:
            found.append(int(folder.name))
    return found


def rank_results(spec: TrainingSpec) -> list[Mapping[str, Any]]:
    ranks = range(spec.training.num_processes)
    return [storage.read_json(storage.join(spec.attempt_uri, f"rank-{rank}.json")) for rank in ranks]


def epochs(spec: TrainingSpec) -> list[dict[str, Any]]:
    """Figures of each epoch, as rank 0 left them."""
    return list(rank_results(spec)[0]["epochs"])


def weights_manifest(spec: TrainingSpec) -> dict[str, Any]:
    """What names the SHA-256 of the best weights."""
    return dict(storage.read_json(storage.join(spec.best_uri, "manifest.json")))


def last_checkpoint(spec: TrainingSpec) -> checkpoint.Checkpoint:
    [*_, newest] = storage.list_folders(spec.checkpoints_uri)
    return checkpoint.load(newest)


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_snapshot(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot) -> TrainingSpec:
    """A finished run of one rank."""
    spec = new_run(tmp_path_factory.mktemp("one"), snapshot, num_processes=1)
    fit_here(spec)
    return spec


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot) -> TrainingSpec:
    """A finished run of two ranks, like `one_rank` otherwise."""
    spec = new_run(tmp_path_factory.mktemp("two"), snapshot)
    done = forked_ranks.run(spec)
    assert done.returncode == 0, done.output
    return spec
