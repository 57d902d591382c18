"""A model trained from a notebook becomes a version that scores rows with the columns it was trained on."""

import linecache
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from deltalake import write_deltalake

import mlspark.registry
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import ContractError, RegistryError
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.index import Indexed
from mlspark.features.kinds.number import Scaled
from mlspark.features.kinds.numbers import NumberStatistics
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.custom import CustomSettings
from mlspark.registry import outcomes
from mlspark.scoring.predictor import Predictor
from mlspark.streaming import delta_files
from mlspark.streaming.settings import StreamingSettings
from mlspark.tasks import kinds as tasks
from mlspark.training import checkpoint, custom_model
from mlspark.training.events import EpochEnded
from mlspark.training.outcome import TrainingOutcome
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import TrainingSpec

from .conftest import kept_stores

CELL = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, tensors, num_outputs):
            super().__init__()
            self.embedding = nn.Embedding(tensors.cardinalities[0], 2)
            self.layer = nn.Linear(tensors.num_dense + 2, num_outputs)

        def forward(self, dense, ids):
            return self.layer(torch.cat([dense, self.embedding(ids[:, 0])], 1))

    def net(tensors, num_outputs):
        return Net(tensors, num_outputs)
    """


def function(source: str) -> Any:
    """The function `net` of a notebook's cell."""
    names: dict[str, Any] = {"__name__": "__main__"}
    text, file = textwrap.dedent(source), f"<cell {id(names)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), names)
    return names["net"]


def trained(folder: Path, net: Any) -> Any:
    """What `mlspark.training.launch` returns and leaves, of a run on a table of one's own; with the weights of its start."""
    table = pa.table(
        {
            "height": pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()),
            "width": pa.array([0.5, 0.25, 0.125, 0.0], pa.float32()),
            "colour": pa.array([0, 1, 2, 0], pa.int32()),
            "label": pa.array([0.0, 1.0, 1.0, 0.0], pa.float32()),
            "row_id": pa.array([1, 2, 3, 4], pa.int64()),
            "split": ["train", "train", "train", "validation"],
        }
    )
    write_deltalake(str(folder / "table"), table, partition_by=["split"])
    specs = (
        TensorSpec("dense", ("height", "width"), "float32"),
        TensorSpec("ids", ("colour",), "int64", cardinalities=(3,)),
    )
    spec = TrainingSpec(
        run_uri=str(folder / "run"),
        tensors=Tensors(specs=specs),
        task=tasks.from_settings({"kind": "binary", "target": "label", "classes": [0, 1], "threshold": 0.4}),
        model=CustomSettings(factory="__main__:net"),
        training=TrainingSettings(),
        streaming=StreamingSettings(),
    )
    custom_model._pin(spec, delta_files.take(str(folder / "table")))
    custom_model._keep_source(spec, net)
    spec.save()
    torch.manual_seed(1)
    weights = net(spec.tensors, 1).state_dict()
    checkpoint.save(spec.best_uri, weights=weights, about={})
    epochs = [
        EpochEnded(n, 2, 3 * n, 0.1, 1 / n, 3, 6, 30.0, 0.0, 0.1, 0.0, True, {"accuracy": 0.5, "roc_auc": None})
        for n in (1, 2)
    ]
    return TrainingOutcome(
        run_uri=spec.run_uri,
        world_size=2,
        restarts=0,
        steps=6,
        epochs=tuple(epochs),
        rows_per_epoch=3,
        metrics={},
        best_epoch=1,
        checkpoint_uri=spec.best_uri,
        predictions={},
        data_wait_fraction=0.0,
        train_seconds=1.0,
        seconds=1.0,
    )


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with kept_stores():
        yield str(tmp_path / "home")


ROWS = pa.table({"height": [1.0, 2.0], "width": [0.5, 0.25], "colour": [0, 2]})


def test_version_scores_the_columns_it_was_trained_on(tmp_path: Path, registry: str) -> None:
    net = function(CELL)
    outcome = trained(tmp_path, net)
    version = mlspark.registry.register(outcome, name="mine", alias="champion", root=registry)
    assert (version.name, version.version) == ("mine", 1)
    network = net(Tensors(specs=version.package.encoder.specs), 1).eval()
    network.load_state_dict(checkpoint.load(outcome.checkpoint_uri).weights)
    dense = torch.tensor([[1.0, 0.5], [2.0, 0.25]])
    with torch.inference_mode():
        expected = torch.sigmoid(network(dense=dense, ids=torch.tensor([[0], [2]]))[:, 0].double()).numpy()
    predictions = Predictor(version.package).predict(ROWS)
    assert predictions["probability"] == pytest.approx(expected, abs=1e-7)
    assert predictions["prediction"].tolist() == (predictions["probability"] >= 0.4).astype(int).tolist()
    served = mlflow.pyfunc.load_model("models:/mine@champion").predict(pd.DataFrame(ROWS.to_pydict()))
    assert np.array_equal(served["probability"], predictions["probability"])
    assert version.package.provenance["table_version"] == 0


def test_run_registers_once(tmp_path: Path, registry: str) -> None:
    outcome = trained(tmp_path, function(CELL))
    first, again = (mlspark.registry.register(outcome, name="mine", root=registry) for _ in range(2))
    assert (first.version, again.version) == (1, 1)
    assert first.package.files == again.package.files


def test_run_of_a_notebook_has_its_figures_settings_and_rows(tmp_path: Path, registry: str) -> None:
    mlspark.registry.register(trained(tmp_path, function(CELL)), name="mine", root=registry)
    client = mlflow.MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED"
    losses = [(figure.step, figure.value) for figure in client.get_metric_history(run.info.run_id, "train_loss")]
    assert losses == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics["validation_accuracy"] == 0.5
    assert run.data.params["model.factory"] == "__main__:net"
    [rows] = run.inputs.dataset_inputs
    assert mlflow.data.get_source(rows.dataset).path == str(tmp_path / "table")
    assert "Predicts `label` (binary) from 3 columns" in run.data.tags["mlflow.note.content"]


@pytest.mark.parametrize(
    ("row", "message"),
    [({"colour": 3}, "colour.max"), ({"colour": -1}, "colour.min"), ({"height": None}, "height.null")],
)
def test_row_that_is_no_row_of_the_table_is_refused(
    tmp_path: Path, registry: str, row: dict[str, Any], message: str
) -> None:
    version = mlspark.registry.register(trained(tmp_path, function(CELL)), name="mine", root=registry)
    bad = pa.Table.from_pylist([{"height": 1.0, "width": 0.5, "colour": 0} | row], schema=ROWS.schema)
    with pytest.raises(ContractError, match=message):
        Predictor(version.package).predict(bad)


def test_run_of_a_model_without_source_is_refused_with_a_remedy(tmp_path: Path, registry: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(CELL), names)
    with pytest.raises(
        RegistryError, match=r"no version can be made of this run: .* source cannot be read.*module file"
    ):
        mlspark.registry.register(trained(tmp_path, names["net"]), name="mine", root=registry)


def test_model_of_a_prepared_table_s_tensors_scores_raw_rows(
    tmp_path: Path, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = NumberStatistics(count=3, nulls=0, mean=0.0, std=1.0, min=0.0, max=1.0)
    numbers = (
        Scaled(name=name, expression=name, center=0.0, scale=2.0, missing=0.0, indicator=False, statistics=statistics)
        for name in ("height", "width")
    )
    colour = Indexed(name="colour", columns=("colour",), values=("blue",), counts=(3,), nulls=0, rare=0)
    types = {"height": "double", "width": "double", "colour": "string"}
    prepared = SimpleNamespace(
        encoder=Encoder(pipeline="raw", rows=3, inputs=types, features=(*numbers, colour)),
        contract=Contract(
            name="raw",
            label="rich",
            columns=tuple(ColumnRule(name=n, type=t) for n, t in {**types, "rich": "string"}.items()),
        ),
        task=tasks.from_settings({"kind": "binary", "target": "rich", "classes": ["no", "yes"]}),
    )
    monkeypatch.setattr(outcomes.preparations, "commit_at", lambda table, version: None)
    monkeypatch.setattr(outcomes.preparations, "of_commit", lambda table, commit: prepared)
    version = mlspark.registry.register(trained(tmp_path, function(CELL)), name="mine", root=registry)
    package = version.package
    assert (package.contract, package.encoder) == (prepared.contract, prepared.encoder)
    assert (package.task.target, package.task.classes, package.task.threshold) == ("rich", ("no", "yes"), 0.4)
    raw = pa.table({"height": [2.0, None], "width": [1.0, 0.0], "colour": ["blue", "green"]})
    assert len(Predictor(package).predict(raw)["probability"]) == 2
