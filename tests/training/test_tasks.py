"""What a task changes in training: outputs, loss, weights, the best epoch, the predictions that are kept."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import nn
from torch.nn import functional

from mlspark import models, storage
from mlspark.engines import eager
from mlspark.errors import ConfigError
from mlspark.evaluation import predictions
from mlspark.features.tensors import Tensors
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.metrics import Metrics
from mlspark.training import checkpoint
from mlspark.training.spec import Functions, TrainingSpec

from . import forked_ranks
from .conftest import (
    ROWS,
    TARGET_DTYPES,
    TASK,
    TENSORS,
    columns,
    epochs,
    fit_here,
    new_run,
    rank_results,
    write_snapshot,
)
from .test_trainer import tensors

MULTICLASS = from_settings({"kind": "multiclass", "target": "label", "classes": ["a", "b", "c"]})
REGRESSION = from_settings({"kind": "regression", "target": "label", "center": 1.0, "scale": 2.0})


def of_classes(split: str, table: dict[str, Any]) -> None:
    """The label becomes one of three classes, of which age and hours say much."""
    table["label"] = (np.digitize(table["age"] - table["hours"], [-1.0, 1.0])).astype(np.int32)


def of_numbers(split: str, table: dict[str, Any]) -> None:
    table["label"] = 3.0 * table["age"].astype(np.float64) - table["hours"] + table["job"] % 3


def weighted(split: str, table: dict[str, Any]) -> None:
    """Rows of an odd job weigh nothing, others 2 or 6."""
    table["weight"] = np.where(table["job"] % 2 == 1, 0.0, np.where(table["job"] == 0, 2.0, 6.0))


def run_of(folder: Path, snapshot: Snapshot, task: Any, **options: Any) -> TrainingSpec:
    of_tensors = dataclasses.replace(TENSORS, target_dtype=TARGET_DTYPES[task.kind], weight=options.pop("weight", None))
    spec = new_run(folder, snapshot, task=task, **options)
    return dataclasses.replace(spec, tensors=of_tensors)


@pytest.fixture(scope="module")
def weighted_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_snapshot(tmp_path_factory.mktemp("weighted"), weighted)


@pytest.mark.parametrize(
    ("task", "change", "metric", "least"),
    [(MULTICLASS, of_classes, "accuracy", 0.8), (REGRESSION, of_numbers, "r2", 0.9)],
)
def test_other_tasks_learn_and_report_their_metrics(
    tmp_path: Path, task: Any, change: Any, metric: str, least: float
) -> None:
    snapshot = write_snapshot(tmp_path / "table", change)
    spec = run_of(tmp_path / "run", snapshot, task, num_processes=1)
    result = fit_here(spec)
    assert result.metrics["test"][metric] > least
    names = {f"validation_{name}" for name in task.metric_names}
    assert {key for key in result.epochs[0] if key.startswith("validation_")} == names
    best = min(result.epochs, key=lambda epoch: epoch[f"validation_{task.default_metric}"])
    assert result.best_epoch == best["epoch"]
    kept = predictions.read(predictions.uri_of(spec.run_uri, "test"))
    assert kept.outputs.shape == (ROWS["test"], task.num_outputs)
    if task is MULTICLASS:
        assert result.metrics["test"]["accuracy"] == sklearn_metrics.accuracy_score(kept.target, kept.outputs.argmax(1))
    else:
        predicted = task.predictions(kept.outputs)["prediction"]
        assert result.metrics["test"]["rmse"] == pytest.approx(
            sklearn_metrics.root_mean_squared_error(kept.target, predicted), rel=1e-9
        )


def test_predictions_are_kept_and_give_the_reported_metrics(one_rank: TrainingSpec, two_ranks: TrainingSpec) -> None:
    for spec in (one_rank, two_ranks):
        for split in ("validation", "test"):
            kept = predictions.read(predictions.uri_of(spec.run_uri, split))
            assert len(kept) == ROWS[split]
            np.testing.assert_array_equal(kept.row_id, np.sort(columns(split)["row_id"]))
            expected = dict(zip(columns(split)["row_id"].tolist(), columns(split)["label"].tolist(), strict=True))
            assert kept.target.tolist() == [expected[row_id] for row_id in kept.row_id.tolist()]
            reported = Metrics.from_json(rank_results(spec)[0]["metrics"][split])
            assert kept.metrics(TASK) == reported


@pytest.mark.parametrize("batch_size", [256, 100])
def test_engine_gives_the_outputs_that_were_evaluated(tmp_path: Path, snapshot: Snapshot, batch_size: int) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=1, epochs=1, global_batch_size=batch_size)
    fit_here(spec)
    engine = eager.load(eager.pack(spec.model, TENSORS, 1, checkpoint.load(spec.best_uri).weights))
    dense, ids, _ = tensors("test")
    outputs = engine.run({"dense": dense.numpy(), "ids": ids.numpy()})
    kept = predictions.read(predictions.uri_of(spec.run_uri, "test"))
    np.testing.assert_array_equal(outputs[np.argsort(columns("test")["row_id"])].astype(np.float64), kept.outputs)


def test_every_rank_knows_the_metrics(two_ranks: TrainingSpec) -> None:
    first, second = rank_results(two_ranks)
    assert first["metrics"] == second["metrics"]


def test_loss_of_the_first_step_is_the_weighted_mean(tmp_path: Path, weighted_snapshot: Snapshot) -> None:
    spec = run_of(tmp_path, weighted_snapshot, TASK, weight="weight", num_processes=1, epochs=1, global_batch_size=4096)
    fit_here(spec)
    torch.manual_seed(spec.training.seed)
    dense, ids, label = tensors("train")
    of_job = ids[:, 0]
    weight = torch.where(of_job % 2 == 1, 0.0, torch.where(of_job == 0, 2.0, 6.0))
    logits = models.build(spec.model, TENSORS, 1)(dense, ids)[:, 0]
    losses = functional.binary_cross_entropy_with_logits(logits, label, reduction="none")
    expected = float((losses * weight).sum().detach() / weight.sum())
    assert epochs(spec)[0]["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert epochs(spec)[0]["rows"] == ROWS["train"]  # rows of weight 0 were seen, too
    kept = predictions.read(predictions.uri_of(spec.run_uri, "test"))
    assert kept.weight is not None
    assert sorted(set(kept.weight.tolist())) == [0.0, 2.0, 6.0]


def test_weights_of_one_are_no_weights_but_for_last_bits(tmp_path: Path, one_rank: TrainingSpec) -> None:
    def ones(split: str, table: dict[str, Any]) -> None:
        table["weight"] = np.ones(len(table["label"]))

    snapshot = write_snapshot(tmp_path / "table", ones)
    spec = run_of(tmp_path / "run", snapshot, TASK, weight="weight", num_processes=1)
    fit_here(spec)
    losses = [epoch["train_loss"] for epoch in epochs(spec)]
    assert losses == pytest.approx([epoch["train_loss"] for epoch in epochs(one_rank)], rel=1e-6)


def test_weights_mean_the_same_on_one_and_two_ranks(tmp_path: Path, weighted_snapshot: Snapshot) -> None:
    one = run_of(tmp_path / "one", weighted_snapshot, TASK, weight="weight", num_processes=1)
    two = run_of(tmp_path / "two", weighted_snapshot, TASK, weight="weight")
    fit_here(one)
    done = forked_ranks.run(two)
    assert done.returncode == 0, done.output
    assert [epoch["train_loss"] for epoch in epochs(two)] == pytest.approx(
        [epoch["train_loss"] for epoch in epochs(one)], rel=1e-5
    )


def test_best_epoch_goes_by_the_metric_that_was_asked_for(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=1, best="accuracy")
    result = fit_here(spec)
    accuracies = [epoch["validation_accuracy"] for epoch in result.epochs]
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1


def test_metric_of_another_task_is_refused(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=1, best="rmse")
    with pytest.raises(
        ConfigError, match=r"training\.best=rmse: a binary task has no such metric; choose one of accuracy,"
    ):
        fit_here(spec)
    assert not storage.exists(spec.checkpoints_uri)


def test_outputs_of_another_shape_are_refused(tmp_path: Path, snapshot: Snapshot) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.layer(dense)
            return outputs.squeeze(1)

    def make(of_tensors: Tensors, num_outputs: int) -> nn.Module:
        return Flat()

    spec = new_run(tmp_path, snapshot, num_processes=1)
    message = r"model\.kind=tabular returned outputs of shape \(256,\) for 256 rows; it must return \(256, 1\)"
    with pytest.raises(ConfigError, match=message):
        fit_here(spec, functions=Functions(model=make))
