"""A network of each family at its least size: trained, stopped, gone on with, packed, run; a small one on two ranks."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet as pq

from mlspark import models
from mlspark.engines import eager
from mlspark.evaluation import predictions
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.vision import VisionSettings
from mlspark.pictures.spec import PictureSpec
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.training import checkpoint
from mlspark.training.settings import OptimizerSettings
from mlspark.training.spec import TrainingSpec

from . import forked_ranks
from .conftest import fit_here, last_checkpoint, new_run
from .test_resume import assert_equal, stop_at

PLAIN = OptimizerSettings(kind="sgd", learning_rate=0.01, momentum=0.0, schedule="constant")
# Batch norm of a few rows of one pixel has gradients of 1,000.
CAREFUL = PLAIN.model_copy(update={"learning_rate": 1e-3, "clip_norm": 1.0})
# Family -> name and least size; what takes long, or a gigabyte of memory, is slow.
FAMILIES = {
    "ResNet": ("resnet18", 1), "ResNeXt": ("resnext50", 1), "SENet": ("seresnext50", 1), "DenseNet": ("densenet121", 8),
    "Inception-v4": ("inception_v4", 75), "Inception-ResNet-v2": ("inception_resnet_v2", 75), "Xception": ("xception", 5),
    "NASNet": ("nasnet", 3), "MobileNetV2": ("mobilenet_v2", 1), "ShuffleNetV2": ("shufflenet_v2", 1),
    "SqueezeNet": ("squeezenet", 6), "ResNet for 32 pixels": ("resnet20", 1),
}  # fmt: skip
FAST = {"ShuffleNetV2", "SqueezeNet", "ResNet for 32 pixels"}


def write(folder: Path, size: int, rows: dict[str, int]) -> Snapshot:
    """Pictures as pixels and a float for each of so many rows of each split: bright ones are of class 1."""
    chance, files = np.random.default_rng(0), []
    for split, count in rows.items():
        labels = np.arange(count) % 2
        pixels = chance.integers(0, 130, (count, 3 * size * size), np.uint8) + (90 * labels[:, np.newaxis]).astype(
            np.uint8
        )
        columns = {
            "photo": pa.array([row.tobytes() for row in pixels], pa.binary()),
            "age": chance.normal(size=count).astype(np.float32),
            "label": labels.astype(np.float32),
            "row_id": chance.integers(-(2**62), 2**62, count),
        }
        path = folder / f"split={split}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path, row_group_size=10)
        groups = tuple(min(10, count - start) for start in range(0, count, 10))
        files.append(DataFile(str(path.relative_to(folder)), path.stat().st_size, {"split": split}, groups))
    return Snapshot(str(folder), 0, {}, tuple(files))


def run_of(folder: Path, table: Snapshot, name: str, size: int, **training: Any) -> TrainingSpec:
    photo = PictureSpec("RGB", size, size, store="pixels", mean=(0.5,) * 3, std=(0.25,) * 3)
    specs = (TensorSpec("dense", ("age",), "float32"), TensorSpec("photo", ("photo",), "uint8", picture=photo))
    defaults = {"num_processes": 1, "epochs": 2, "global_batch_size": 8, "optimizer": PLAIN}
    return dataclasses.replace(
        new_run(folder, table, **(defaults | training)), tensors=Tensors(specs), model=VisionSettings(backbone=name)
    )


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[] if family in FAST else [pytest.mark.slow]) for family in FAMILIES]
)
def test_a_network_of_each_family_is_trained_stopped_gone_on_with_and_run(tmp_path: Path, family: str) -> None:
    name, size = FAMILIES[family]
    table = write(tmp_path / "table", size, {"train": 18, "validation": 20})  # batches of 8, 8 and 2
    undisturbed, stopped = (
        run_of(tmp_path / run, table, name, size, optimizer=CAREFUL) for run in ("undisturbed", "stopped")
    )
    fit_here(undisturbed)
    stop_at(stopped, 2)
    fit_here(stopped)
    assert_equal(stopped, undisturbed)
    best = checkpoint.load(undisturbed.best_uri).weights
    engine = eager.load(eager.pack(undisturbed.model, undisturbed.tensors, 1, best))
    kept = predictions.read(predictions.uri_of(undisturbed.run_uri, "validation"))
    with open_feature_table(
        table.where(split="validation"), undisturbed.tensors, StreamingSettings(),
        rank=0, world_size=1, global_batch_size=20, seed=0, shuffle=False,
    ) as stream:  # fmt: skip
        [batch] = list(stream)
    order = batch["row_id"].argsort()
    rows = {tensor: batch[tensor][order].numpy() for tensor in ("dense", "photo")}
    together = engine.run(rows)
    np.testing.assert_allclose(kept.outputs.reshape(together.shape), together, rtol=1e-4, atol=1e-5)
    for row in (0, 7, 19):
        alone = engine.run({tensor: value[row : row + 1] for tensor, value in rows.items()})
        np.testing.assert_array_equal(alone[0], together[row])


def test_batch_norm_of_two_ranks_differs_from_one_only_by_whose_rows_it_sees(tmp_path: Path) -> None:
    """Each rank normalises by its own rows, and the statistics that are kept are rank 0's: torch alone says the same."""
    table = write(tmp_path / "table", 4, {"train": 16})
    spec = run_of(tmp_path / "two", table, "resnet20", 4, num_processes=2, epochs=1, global_batch_size=16)
    done = forked_ranks.run(spec)
    assert done.returncode == 0, done.output[-3000:]
    weights = last_checkpoint(spec).weights

    torch.manual_seed(spec.training.seed)
    model = models.build(spec.model, spec.tensors, 1).train()
    gradients: dict[str, torch.Tensor] = {}
    buffers: dict[str, torch.Tensor] = {}
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for rank in (1, 0):
        model.load_state_dict(start)
        with open_feature_table(
            table.where(split="train"), spec.tensors, spec.streaming,
            rank=rank, world_size=2, global_batch_size=16, seed=spec.training.seed,
        ) as stream:  # fmt: skip
            [batch] = list(stream)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model(dense=batch["dense"], photo=batch["photo"])[:, 0], batch["target"], reduction="sum"
        )
        model.zero_grad()
        (loss / 16).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradients[name] = gradients.get(name, torch.zeros_like(parameter)) + parameter.grad
        buffers = {name: value.clone() for name, value in model.named_buffers()}
    for name, value in weights.items():
        expected = buffers[name] if name in buffers else start[name] * (1 - 0.01 * 1e-2) - 0.01 * gradients[name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6, msg=name)
    one = run_of(tmp_path / "one", table, "resnet20", 4, epochs=1, global_batch_size=16)
    fit_here(one)
    mean = "backbone.photo.bn1.running_mean"
    assert not torch.allclose(last_checkpoint(one).weights[mean], weights[mean], rtol=1e-3)


def test_a_rank_without_a_row_leaves_no_trace_in_batch_norm(tmp_path: Path) -> None:
    """17 rows in batches of 8 for two ranks: in the last step one of them has no row, runs another's, and counts nothing."""
    table = write(tmp_path / "table", 4, {"train": 17})
    counts = {}
    for ranks in (1, 2):
        spec = run_of(tmp_path / str(ranks), table, "resnet20", 4, num_processes=ranks, epochs=1)
        if ranks == 1:
            fit_here(spec)
        else:
            done = forked_ranks.run(spec)
            assert done.returncode == 0, done.output[-3000:]
        weights = last_checkpoint(spec).weights
        counts[ranks] = int(weights["backbone.photo.bn1.num_batches_tracked"])
        assert all(value.isfinite().all() for value in weights.values())
    assert counts[1] == 3
    assert counts[2] in (2, 3)  # 2 where rank 0 is the one without a row
