from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.nn import functional

from mlspark import models
from mlspark.errors import TrainingFailed
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.metrics import Metrics
from mlspark.training import checkpoint
from mlspark.training.events import EpochEnded, Evaluated, Event, Progressed
from mlspark.training.settings import OptimizerSettings
from mlspark.training.spec import TrainingSpec

from ..conftest import imported_by
from .conftest import (
    EPOCHS,
    ROWS,
    TENSORS,
    columns,
    epochs,
    fit_here,
    last_checkpoint,
    new_run,
    rank_results,
    weights_manifest,
    write_snapshot,
)

TIMINGS = ("seconds", "rows_per_second", "data_wait_fraction", "train_seconds", "wait_seconds")


def without_timings(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: [without_timings(epoch) for epoch in value] if key == "epochs" and isinstance(value, list) else value
        for key, value in values.items()
        if key not in TIMINGS
    }


def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dense (B, 2), ids (B, 1) and label (B,) of all rows of a split."""
    table = columns(split)
    dense = torch.from_numpy(np.stack([table["age"], table["hours"]], axis=1))
    return dense, torch.from_numpy(table["job"].astype(np.int64))[:, None], torch.from_numpy(table["label"])


def test_spec_survives_its_file(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, optimizer=OptimizerSettings(kind="sgd", learning_rate=1e-3))
    assert TrainingSpec.load(spec.save()) == spec


def test_rank_imports_neither_spark_nor_mlflow() -> None:
    imported = imported_by("mlspark.training.rank", "mlspark.training.loop", "mlspark.training.process_group")
    assert not {"pyspark", "mlflow"} & imported


def test_executors_that_look_and_start_ranks_import_no_torch() -> None:
    assert "torch" not in imported_by("mlspark.training.barrier_stage", "mlspark.training.preflight")


def test_every_row_is_seen_once_per_epoch_in_equal_steps(one_rank: TrainingSpec, two_ranks: TrainingSpec) -> None:
    id_sum = int(columns("train")["row_id"].sum())
    for spec in (one_rank, two_ranks):
        ranks = rank_results(spec)
        assert [rank["steps"] for rank in ranks] == [8 * EPOCHS] * len(ranks)  # ceil(2003 / 256) = 8
        for rank in ranks:
            assert [epoch["rows"] for epoch in rank["epochs"]] == [ROWS["train"]] * EPOCHS
            assert [epoch["row_id_sum"] for epoch in rank["epochs"]] == [id_sum] * EPOCHS


def test_one_and_two_ranks_optimise_the_same_function(one_rank: TrainingSpec, two_ranks: TrainingSpec) -> None:
    # Float sums in another order: about 1e-7 per step, grown over 24 steps of AdamW.
    for one, two in zip(epochs(one_rank), epochs(two_ranks), strict=True):
        assert one.keys() == two.keys()
        for key in one.keys() & {"train_loss", "validation_log_loss", "validation_roc_auc", "log_loss", "roc_auc"}:
            assert two[key] == pytest.approx(one[key], rel=1e-4), key
    # AdamW hides a gradient of the wrong scale; its second moments do not.
    states = [last_checkpoint(spec).state["optimizer"]["state"] for spec in (one_rank, two_ranks)]
    for one, two in zip(states[0].values(), states[1].values(), strict=True):
        torch.testing.assert_close(two["exp_avg_sq"], one["exp_avg_sq"], rtol=1e-2, atol=1e-7)


def test_padded_rows_weigh_nothing(tmp_path: Path, snapshot: Snapshot) -> None:
    # One step of 4,096 rows, of which 2,003 are real: its loss and gradient are those of the mean over the 2,003.
    spec = new_run(tmp_path, snapshot, num_processes=1, epochs=1, global_batch_size=4096)
    fit_here(spec)
    torch.manual_seed(spec.training.seed)
    model = models.build(spec.model, TENSORS, 1)
    dense, ids, label = tensors("train")
    loss = functional.binary_cross_entropy_with_logits(model(dense, ids)[:, 0], label)
    loss.backward()  # type: ignore[no-untyped-call]
    assert epochs(spec)[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-6)
    moments = last_checkpoint(spec).state["optimizer"]["state"]
    for parameter, moment in zip(model.parameters(), moments.values(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(moment["exp_avg_sq"], 0.001 * parameter.grad**2, rtol=1e-3, atol=1e-12)


def test_same_seed_gives_the_same_bits(tmp_path: Path, snapshot: Snapshot) -> None:
    specs = [new_run(tmp_path / name, snapshot, num_processes=1, dropout=0.3) for name in ("first", "second")]
    results = [without_timings(fit_here(spec).to_json()) for spec in specs]
    assert results[0] == results[1]
    assert weights_manifest(specs[0]) == weights_manifest(specs[1])


def test_another_seed_gives_other_weights(tmp_path: Path, snapshot: Snapshot, one_rank: TrainingSpec) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=1, seed=1)
    fit_here(spec)
    assert epochs(spec)[0]["train_loss"] != epochs(one_rank)[0]["train_loss"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_metrics_are_those_of_the_best_checkpoint_over_all_rows(two_ranks: TrainingSpec, split: str) -> None:
    metrics = Metrics.from_json(rank_results(two_ranks)[0]["metrics"][split])
    model = models.build(two_ranks.model, TENSORS, 1).eval()
    model.load_state_dict(checkpoint.load(two_ranks.best_uri).weights)
    dense, ids, label = tensors(split)
    logits = model(dense, ids)[:, 0].detach().double()
    assert metrics.num_rows == ROWS[split]
    assert metrics["accuracy"] == sklearn_metrics.accuracy_score(label, logits >= 0)
    assert metrics["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(label, logits), abs=1e-6)
    assert metrics["log_loss"] == pytest.approx(sklearn_metrics.log_loss(label, logits.sigmoid()), abs=1e-6)
    assert metrics["roc_auc"] is not None
    assert metrics["roc_auc"] > 0.8  # it did learn


def test_best_checkpoint_is_the_epoch_of_lowest_validation_log_loss(two_ranks: TrainingSpec) -> None:
    best = min(epochs(two_ranks), key=lambda event: event["validation_log_loss"])
    assert checkpoint.load(two_ranks.best_uri).about["epoch"] == best["epoch"]
    assert last_checkpoint(two_ranks).about["progress"]["epoch"] == EPOCHS
    assert rank_results(two_ranks)[0]["best_epoch"] == best["epoch"]


def test_events_tell_of_each_epoch_and_of_the_test_rows(tmp_path: Path, snapshot: Snapshot) -> None:
    seen: list[Event] = []
    fit_here(new_run(tmp_path, snapshot, num_processes=1), on_event=seen.append)  # 20 steps are in its third epoch
    reported = [
        (event.name, getattr(event, "epoch", None)) for event in seen if isinstance(event, EpochEnded | Evaluated)
    ]
    assert reported == [("epoch", 1), ("epoch", 2), ("epoch", 3), ("evaluation", None)]
    [progress, *_] = [event for event in seen if isinstance(event, Progressed)]
    assert (progress.step, progress.steps) == (20, 8 * EPOCHS)
    assert progress.seconds_left > 0
    for event in seen:
        if isinstance(event, EpochEnded):
            assert event.rows == ROWS["train"]
            assert 0 <= event.data_wait_fraction <= 1


def test_without_validation_and_test_rows_the_last_epoch_is_the_best(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot.where(split="train"), num_processes=1)
    result = fit_here(spec)
    assert (result.best_epoch, result.metrics) == (EPOCHS, {})
    assert checkpoint.load(spec.best_uri).about["epoch"] == EPOCHS


def test_without_training_rows_says_so(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot.where(split="test"), num_processes=1)
    with pytest.raises(TrainingFailed, match="no rows with split=train"):
        fit_here(spec)


def test_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    def spoil(split: str, table: dict[str, Any]) -> None:
        table["age"][17] = np.inf

    spec = new_run(tmp_path / "run", write_snapshot(tmp_path / "table", spoil), num_processes=1)
    with pytest.raises(
        TrainingFailed,
        match=r"epoch 1, step \d: the training loss is not finite; lower training\.optimizer\.learning_rate",
    ):
        fit_here(spec)
