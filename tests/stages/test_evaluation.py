"""The page that a training keeps, and the one that is made anew; of a version that is registered without any training."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from mlspark.commands import evaluate, importance
from mlspark.engines import engine
from mlspark.errors import ConfigError, RegistryError
from mlspark.evaluation import predictions
from mlspark.evaluation.examined_rows import ExaminedError
from mlspark.evaluation.predictions import Predictions
from mlspark.models.tabular import TabularSettings
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.settings.pipeline import Settings
from mlspark.stages import evaluation
from mlspark.streaming import delta_files
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tracking import runs
from mlspark.tracking.runs import Run
from mlspark.training.learned_model import LearnedModel
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import TrainingSpec

from ..conftest import SAMPLE, census_settings
from ..registry import example

NUM_ROWS = 300


class Trained(NamedTuple):
    """As the train stage has it when its version is registered."""

    settings: Settings
    spec: TrainingSpec
    learned: LearnedModel
    run: Run
    snapshot: Snapshot


@pytest.fixture(scope="module")
def package() -> Package:
    return example.package()


@pytest.fixture(scope="module")
def trained(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A version with random weights, its run, and the table whose test rows it was evaluated on."""
    home = tmp_path_factory.mktemp("home")
    settings = census_settings(SAMPLE, home)
    client = runs.connect(settings.tracking, settings.root)
    run = runs.open_run(client, settings.tracking, "random", tags={})
    tensors = package.encoder.tensors(package.task)
    random = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        "dense": random.normal(size=(NUM_ROWS, tensors.num_dense)).astype(np.float32),
        "ids": np.stack([random.integers(0, ids, NUM_ROWS) for ids in tensors.cardinalities], axis=1),
    }
    label, row_id = random.integers(0, 2, NUM_ROWS), 100 + np.arange(NUM_ROWS)
    columns = {name: values for of in inputs for name, values in zip(tensors.columns(of), inputs[of].T, strict=True)}
    others = {"label": label.astype(np.float32), "row_id": row_id, "split": ["test"] * NUM_ROWS}
    write_deltalake(str(home / "table"), pa.table({**columns, **others}), partition_by=["split"])
    spec = TrainingSpec(
        run_uri=f"{settings.root}/runs/{run.run_id}",
        tensors=tensors,
        task=package.task,
        model=TabularSettings(hidden=(16,)),
        training=TrainingSettings(),
        streaming=StreamingSettings(),
    )
    snapshot = delta_files.take(str(home / "table"))
    snapshot.save(spec.snapshot_uri)
    kept = Predictions.of(row_id, label.astype(float), engine.load(package.files).run(inputs))
    uri = predictions.uri_of(spec.run_uri, "test")
    predictions.write(uri, kept)
    epochs = [{"epoch": epoch, "train_loss": 1 / epoch, "learning_rate": 0.1} for epoch in (1, 2)]
    learned = LearnedModel(
        files=package.files, engine="eager", metrics={"test": kept.metrics(package.task)}, predictions={"test": uri},
        train_seconds=1.0, report={"best_epoch": 2}, epochs=epochs,
    )  # fmt: skip
    provenance = {
        **package.provenance, "run_id": run.run_id, "best_epoch": 2,
        "metrics": {split: of_split.to_json() for split, of_split in learned.metrics.items()},
    }  # fmt: skip
    registered = Package.pack(
        model={name: package.files[name] for name in ("model.json", "weights.safetensors")},
        encoder=package.encoder, contract=package.contract, task=package.task, provenance=provenance,
    )  # fmt: skip
    versions.register(client, registered, run_id=run.run_id, name="census", alias="challenger")
    return Trained(settings, spec, learned, run, snapshot)


def kept_page(trained: Trained, folder: Path) -> str:
    return Path(trained.run.client.download_artifacts(trained.run.run_id, evaluation.PAGE, str(folder))).read_text()


def test_a_training_keeps_the_page_with_its_run(trained: Trained, tmp_path: Path) -> None:
    evaluation.keep(trained.settings, trained.spec, trained.learned, trained.run, trained.snapshot, 1)
    page = kept_page(trained, tmp_path)
    assert "census: evaluation of version 1" in page
    assert f"{trained.learned.metrics['test']['accuracy']:.4f} [" in page
    assert "Loss per row by epoch" in page
    assert "best epoch (2)" in page
    assert page.count("<br>row_id ") == 12
    assert "integrated gradients" in page
    assert str(example.BIG) not in page  # no value of the data


def test_the_command_makes_it_anew_for_chosen_rows_and_in_words(trained: Trained, tmp_path: Path) -> None:
    config, output = tmp_path / "census.yaml", tmp_path / "page.html"
    config.write_text(trained.settings.to_yaml())
    evaluate.run([str(config)], output=str(output))
    assert output.read_text().count("<br>row_id ") == 12
    evaluate.run([str(config)], version="census/1", output=str(output), rows="177, 103")
    page = output.read_text()
    assert page.index("<br>row_id 177") < page.index("<br>row_id 103")
    assert page.count("<br>row_id ") == 2
    many, category = ",".join(map(str, range(100, 160))), f"3 = {example.BIG}"
    evaluate.run([str(config)], output=str(output), rows=many)
    assert category not in output.read_text()
    evaluate.run([str(config)], output=str(output), rows=many, in_words=True)
    assert category in output.read_text()
    with pytest.raises(ExaminedError, match="row_id 5: no such row among the 300"):
        evaluate.run([str(config)], version="census@challenger", output=str(output), rows="5")
    with pytest.raises(RegistryError, match="model census: no version or alias 99"):
        evaluate.run([str(config)], version="census/99", output=str(output))
    with pytest.raises(ConfigError, match=r"--split validation: no predictions of such rows \(there are: test\)"):
        evaluate.run([str(config)], output=str(output), split="validation")


def test_a_page_that_cannot_be_made_is_a_warning_that_says_why(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = LearnedModel(
        files=trained.learned.files, engine="eager", metrics={}, predictions={"test": f"{tmp_path}/nowhere.parquet"},
        train_seconds=1.0, report={},
    )  # fmt: skip
    spec = trained.spec.at(str(tmp_path))
    with caplog.at_level("WARNING"):
        evaluation.keep(trained.settings, spec, nowhere, trained.run, trained.snapshot, 9)
    assert "no page of version 9 is kept: PredictionsError" in caplog.text
    assert "nowhere.parquet: no predictions here" in caplog.text


def test_no_page_is_made_where_none_is_wanted(trained: Trained, tmp_path: Path) -> None:
    settings = census_settings(SAMPLE, Path(trained.settings.root), "registry.evaluation_page=false")
    evaluation.keep(settings, trained.spec.at(str(tmp_path)), trained.learned, trained.run, trained.snapshot, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_version_whose_run_is_elsewhere_is_refused_by_name(trained: Trained, tmp_path: Path) -> None:
    tracking = f"tracking.uri={runs.embedded_uri(trained.settings.root)}"
    settings = census_settings(SAMPLE, tmp_path, tracking)
    with pytest.raises(RegistryError, match=r"model census version 1: its run has no folder .*storage.root"):
        evaluation.page(settings, "census", 1)


def test_the_importance_of_columns_is_kept_with_the_run_and_on_the_page(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, written, output = (tmp_path / name for name in ("census.yaml", "importance.json", "page.html"))
    config.write_text(trained.settings.to_yaml())
    importance.run([str(config)], split="test", repeats=2, json_file=str(written))
    result = json.loads(written.read_text())
    assert (result["metric"], result["rows"], result["repeats"], result["version"]) == ("log_loss", 300, 2, 1)
    assert result["value"] == pytest.approx(trained.learned.metrics["test"]["log_loss"])
    values = [each["importance"] for each in result["columns"]]
    assert values == sorted(values, reverse=True)
    assert {name for each in result["columns"] for name in each["columns"]} == set(example.encoder().inputs)
    assert all(each["interval"][0] < each["importance"] < each["interval"][1] for each in result["columns"])
    folder = trained.run.client.download_artifacts(trained.run.run_id, "importance.json", str(tmp_path))
    assert json.loads(Path(folder).read_text()) == result
    assert "how much worse it is when a column's values are shuffled" in capsys.readouterr().out
    evaluate.run([str(config)], output=str(output))
    assert "What columns are worth" in output.read_text()
    with pytest.raises(ConfigError, match="--split validation: the version was trained without such rows"):
        importance.run([str(config)])
    with pytest.raises(ConfigError, match="--metric=rmse: a binary task has no such metric; choose one of accuracy"):
        importance.run([str(config)], split="test", metric="rmse")
