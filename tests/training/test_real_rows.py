"""A model sees the rows of the table and no others: in short batches, in parts of them, and on ranks without a row."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet as pq
from torch import nn
from torch.nn import functional

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.evaluation import predictions
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.custom import CustomSettings
from mlspark.models.tabm import TabmSettings
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.tasks.metrics import Metrics
from mlspark.training import checkpoint
from mlspark.training.data import fewest_rows, parts_of
from mlspark.training.settings import OptimizerSettings
from mlspark.training.spec import Functions, TrainingSpec

from . import forked_ranks
from .conftest import epochs, fit_here, last_checkpoint, new_run, rank_results
from .networks import normalized, unit_length

TENSORS = Tensors((TensorSpec("dense", ("a", "b"), "float32"),))
PLAIN = OptimizerSettings(kind="sgd", learning_rate=0.5, momentum=0.0, weight_decay=0.0, schedule="constant")


def write(folder: Path, splits: Mapping[str, np.ndarray[Any, Any]]) -> Snapshot:
    """Write the rows (n, 2) of each split; the label is 1 where a is above b."""
    files, first = [], 1
    for split, rows in splits.items():
        path = folder / f"split={split}" / "part-00000.parquet"
        path.parent.mkdir(parents=True)
        columns = {"a": rows[:, 0], "b": rows[:, 1], "label": (rows[:, 0] > rows[:, 1]).astype(np.float32)}
        pq.write_table(pa.table({**columns, "row_id": np.arange(first, first + len(rows))}), path)
        first += len(rows)
        files.append(DataFile(str(path.relative_to(folder)), path.stat().st_size, {"split": split}, (len(rows),)))
    return Snapshot(str(folder), 0, {}, tuple(files))


def run(folder: Path, table: Snapshot, factory: str = "normalized", **training: Any) -> TrainingSpec:
    spec = new_run(folder, table, **({"num_processes": 1, "optimizer": PLAIN} | training))
    return replace(spec, tensors=TENSORS, model=CustomSettings(factory=f"tests.training.networks:{factory}"))


def by_hand(spec: TrainingSpec, table: Snapshot, model: nn.Module) -> None:
    """Train `model` on the run's global batches, with torch alone."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with open_feature_table(
        table.where(split="train"), TENSORS, spec.streaming, rank=0, world_size=1,
        global_batch_size=spec.training.global_batch_size, seed=spec.training.seed,
    ) as stream:  # fmt: skip
        for _ in range(spec.training.epochs):
            for batch in stream:
                model.train(len(batch["target"]) > 1)  # batch norm cannot take the variance of one row
                optimizer.zero_grad()
                outputs = model(batch["dense"])[..., 0]  # (B,), or (B, M) of members
                target = batch["target"] if outputs.ndim == 1 else batch["target"].unsqueeze(1).expand_as(outputs)
                functional.binary_cross_entropy_with_logits(outputs, target).backward()
                optimizer.step()


def uniform(count: int, low: float = 1.0, high: float = 2.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).uniform(low, high, (count, 2)).astype(np.float32)


def test_batch_norm_takes_its_statistics_of_the_real_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal([50, 5], [10, 1], (21, 2)).astype(np.float32)
    spec = run(tmp_path / "run", write(tmp_path / "table", {"train": rows}), epochs=1, global_batch_size=64)
    fit_here(spec, functions=Functions(model=normalized))
    weights = last_checkpoint(spec).weights
    np.testing.assert_allclose(weights["norm.running_mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(weights["norm.running_var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
    assert weights["norm.num_batches_tracked"] == 1


def test_last_batch_of_one_row_is_trained_on_and_enters_no_statistic(tmp_path: Path) -> None:
    table = write(tmp_path / "table", {"train": uniform(33)})
    spec = run(tmp_path / "run", table, epochs=3, global_batch_size=16)
    fit_here(spec, functions=Functions(model=normalized))
    torch.manual_seed(spec.training.seed)
    model = normalized(TENSORS, 1)
    by_hand(spec, table, model)
    weights = last_checkpoint(spec).weights
    assert weights["norm.num_batches_tracked"] == 6
    torch.testing.assert_close(dict(weights), dict(model.state_dict()), rtol=1e-5, atol=1e-6)


def test_one_row_for_a_model_without_running_statistics_is_an_error_that_names_settings(tmp_path: Path) -> None:
    spec = run(tmp_path / "run", write(tmp_path / "table", {"train": uniform(17)}), global_batch_size=16)

    def make(tensors: Tensors, num_outputs: int) -> nn.Module:
        model = normalized(tensors, num_outputs)
        model.norm = nn.BatchNorm1d(2, track_running_stats=False)
        return model

    with pytest.raises(
        ConfigError, match=r"step with one row on rank 0: .*set streaming\.remainder to drop, or another"
    ):
        fit_here(spec, functions=Functions(model=make))


def test_three_ranks_some_without_a_row_take_the_steps_of_the_global_batches(tmp_path: Path) -> None:
    # Batches of 12, 12, 12 and 1: shares of 5, 4 and 3 rows, then of 1 row of one rank; in two parts each.
    table = write(tmp_path / "table", {"train": uniform(37), "validation": uniform(5), "test": uniform(1)})
    spec = run(
        tmp_path / "run", table, "unit_length", num_processes=3, epochs=2, global_batch_size=12, accumulation_steps=2
    )
    done = forked_ranks.run(spec)
    assert done.returncode == 0, done.output[-3000:]
    torch.manual_seed(spec.training.seed)
    model = unit_length(TENSORS, 1)
    by_hand(spec, table, model)
    torch.testing.assert_close(dict(last_checkpoint(spec).weights), dict(model.state_dict()), rtol=1e-5, atol=1e-6)
    assert [epoch["rows"] for epoch in epochs(spec)] == [37, 37]
    metrics = {split: Metrics.from_json(value) for split, value in rank_results(spec)[0]["metrics"].items()}
    assert {split: of_split.num_rows for split, of_split in metrics.items()} == {"validation": 5, "test": 1}


@pytest.mark.parametrize("settings", [{}, pytest.param({"shard": True}, marks=pytest.mark.slow)])
def test_metrics_are_those_of_the_weights_that_are_saved_on_two_ranks(tmp_path: Path, settings: dict[str, Any]) -> None:
    splits = {"train": uniform(256, 0, 9), "validation": uniform(255, 0, 9)}
    table = write(tmp_path / "table", splits)
    spec = run(tmp_path / "run", table, num_processes=2, epochs=1, global_batch_size=64, **settings)
    done = forked_ranks.run(spec)
    assert done.returncode == 0, done.output[-3000:]
    [epoch], metrics = epochs(spec), rank_results(spec)[0]["metrics"]["validation"]
    for name in spec.task.metric_names:
        assert epoch[f"validation_{name}"] == metrics[name], name
    model = normalized(TENSORS, 1).eval()
    model.load_state_dict(checkpoint.load(spec.best_uri).weights)
    outputs = model(torch.from_numpy(splits["validation"])).detach().numpy()
    label = (splits["validation"][:, 0] > splits["validation"][:, 1]).astype(np.float32)
    expected = spec.task.metrics(outputs, label)
    assert Metrics.from_json(metrics)["roc_auc"] == pytest.approx(expected["roc_auc"], abs=1e-12)
    kept = predictions.read(predictions.uri_of(spec.run_uri, "validation"))
    np.testing.assert_allclose(kept.outputs, outputs, rtol=1e-5, atol=1e-6)
    assert storage.exists(spec.best_uri)


def test_parts_of_a_batch_hold_each_row_once_and_none_is_empty() -> None:
    for num_rows in range(1, 10):
        batch = {"x": torch.arange(num_rows) + 1, "is_padding": torch.zeros(num_rows, dtype=torch.bool)}
        parts = list(parts_of(batch, 4))
        assert len(parts) == 4
        assert [row for part in parts for row in part["x"][~part["is_padding"]].tolist()] == batch["x"].tolist()
        assert all(part["x"].tolist() == [1] for part in parts if part["is_padding"].any())


def test_fewest_rows_of_a_step_follow_from_the_plan(tmp_path: Path) -> None:
    table = write(tmp_path / "table", {"train": uniform(37)})
    spec = run(tmp_path / "run", table, global_batch_size=12)
    assert [fewest_rows(spec, table, 3, step) for step in range(4)] == [3, 3, 3, 0]
    assert [fewest_rows(spec, table, 1, step) for step in range(4)] == [12, 12, 12, 1]


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_member_of_a_model_has_a_loss_of_its_own(tmp_path: Path, ranks: int) -> None:
    """The step's loss is the mean of the members' losses, not the loss of their mean."""
    table = write(tmp_path / "table", {"train": uniform(150), "test": uniform(20)})
    settings = TabmSettings(members=4, hidden=(8,), dropout=0.0)
    spec = run(tmp_path / "run", table, epochs=2, global_batch_size=32, num_processes=ranks)
    spec = replace(spec, model=settings)
    done = forked_ranks.run(spec)
    assert done.returncode == 0, done.output[-3000:]
    torch.manual_seed(spec.training.seed)
    model = settings.build(TENSORS, 1)
    by_hand(spec, table, model)
    torch.testing.assert_close(dict(last_checkpoint(spec).weights), dict(model.state_dict()), rtol=1e-5, atol=1e-6)


def test_a_model_that_gives_members_when_it_is_evaluated_is_refused(tmp_path: Path) -> None:
    class Members(nn.Linear):
        def forward(self, dense: torch.Tensor) -> torch.Tensor:
            return super().forward(dense).unsqueeze(1).expand(-1, 3, -1)

    spec = run(tmp_path / "run", write(tmp_path / "table", {"train": uniform(32), "test": uniform(20)}), epochs=1)
    with pytest.raises(ConfigError, match=r"returned outputs of shape \(\d+, 3, 1\) for \d+ rows; it must return"):
        fit_here(spec, functions=Functions(model=lambda tensors, num_outputs: Members(2, num_outputs)))
