"""Versions beside one another by the predictions that their runs kept: without Spark, and without any training."""

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from sklearn import metrics as sklearn_metrics

from mlspark import storage
from mlspark.commands import compare as command
from mlspark.engines import engine
from mlspark.errors import ConfigError, MlsparkError, RegistryError
from mlspark.evaluation import comparison_report, predictions
from mlspark.evaluation.predictions import Predictions
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.settings.pipeline import Settings
from mlspark.stages.compare import JSON, PAGE, Wanted, compare_versions
from mlspark.streaming import delta_files
from mlspark.tracking import runs

from ..conftest import SAMPLE, census_settings
from ..registry import example

NUM_ROWS = 300
BOTH = (("census", 1), ("census", 2))


def no_spark() -> NoReturn:
    raise AssertionError("started Spark")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two versions with random weights, of one table; what the second kept is nearer to the truth."""
    home = tmp_path_factory.mktemp("home")
    settings = census_settings(SAMPLE, home)
    client = runs.connect(settings.tracking, settings.root)
    package, random = example.package(), np.random.default_rng(0)
    tensors = package.encoder.tensors(package.task)
    inputs: dict[str, Any] = {
        "dense": random.normal(size=(NUM_ROWS, tensors.num_dense)).astype(np.float32),
        "ids": np.stack([random.integers(0, ids, NUM_ROWS) for ids in tensors.cardinalities], axis=1),
    }
    label, row_id = random.integers(0, 2, NUM_ROWS).astype(np.float32), 100 + np.arange(NUM_ROWS)
    columns = {name: values for of in inputs for name, values in zip(tensors.columns(of), inputs[of].T, strict=True)}
    others = {"label": label, "row_id": row_id, "split": ["test"] * NUM_ROWS}
    write_deltalake(str(home / "table"), pa.table({**columns, **others}), partition_by=["split"])
    outputs = engine.load(package.files).run(inputs)
    for better in (0.0, 1.5):
        run = runs.open_run(client, settings.tracking, "random", tags={})
        run_uri = storage.join(settings.root, "runs", run.run_id)
        delta_files.take(str(home / "table")).save(storage.join(run_uri, "snapshot.json"))
        kept = Predictions.of(row_id, label, outputs + better * (label[:, None] - 0.5))
        predictions.write(predictions.uri_of(run_uri, "test"), kept)
        versioned = Package.pack(
            model={name: package.files[name] for name in ("model.json", "weights.safetensors")},
            encoder=package.encoder, contract=package.contract, task=package.task,
            provenance={**package.provenance, "run_id": run.run_id},
        )  # fmt: skip
        versions.register(client, versioned, run_id=run.run_id, name="census", alias="champion")
        run.end("FINISHED")
    return settings


def test_kept_predictions_are_compared_without_spark_and_kept_with_the_newest_run(
    registered: Settings, tmp_path: Path
) -> None:
    found = compare_versions(registered, Wanted(BOTH, resamples=200), no_spark)

    first, second = found.versions
    assert (first.label, second.label, found.origin) == ("census/1", "census/2", "kept predictions of the test rows")
    for each in found.versions:
        uri = predictions.uri_of(storage.join(registered.root, "runs", each.run_id), "test")
        rows = predictions.read(uri)
        expected = sklearn_metrics.roc_auc_score(rows.target, rows.outputs[:, 0])
        assert each.metrics["roc_auc"] == pytest.approx(expected, abs=1e-9)
        assert each.latency is not None
        assert each.latency.row_milliseconds > 0
        assert each.latency.batch_rows == 256
        assert each.size_bytes > 1000
        assert each.train_seconds is not None
    assert found.comparisons[0].differences["roc_auc"].better == "b"
    client = runs.connect(registered.tracking, registered.root)
    kept = {
        name: Path(client.download_artifacts(second.run_id, name, str(tmp_path))).read_text() for name in (PAGE, JSON)
    }
    assert kept[PAGE] == comparison_report.page(found)
    assert json.loads(kept[JSON])["comparisons"][0]["mcnemar"]["p_value"] == found.comparisons[0].mcnemar.p_value  # type: ignore[union-attr]
    assert not {PAGE, JSON} & {file.path for file in client.list_artifacts(first.run_id)}


def test_the_command_prints_and_writes_it(
    registered: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "census.yaml"
    config.write_text(registered.to_yaml())
    files = {"json_file": str(tmp_path / "out.json"), "page": str(tmp_path / "out.html")}

    command.run(["census/1", "census/2"], [str(config)], resamples=200, **files)

    printed = capsys.readouterr().out
    assert "census/2 less census/1" in printed
    assert "exact McNemar" in printed
    assert printed.endswith(f"wrote {files['json_file']}\nwrote {files['page']}\n")
    assert json.loads(Path(files["json_file"]).read_text())["num_rows"] == NUM_ROWS
    assert "<h2>Calibration</h2>" in Path(files["page"]).read_text()


@pytest.mark.parametrize(
    ("versions", "options", "error", "message"),
    [
        (["census/1"], {}, ConfigError, "compare census/1: give two or more versions"),
        (["census/1", "census/1"], {}, ConfigError, "census/1, census/1: give two or more different versions"),
        (["census/1", "census/77"], {}, RegistryError, "model census: no version or alias 77"),
        (["census/1", "x y/2!"], {}, ConfigError, "x y/2!: names no version"),
        (["census/1", "census/2"], {"slices": ["hair"]}, ConfigError, "hair: not a column of contract census (age,"),
        (["census/1", "census/2"], {"metric": "rmse"}, ConfigError, "--metric=rmse: a binary task has no such metric"),
        (["census/1", "census/2"], {"confidence": 95}, ConfigError, "confidence 95: expected from 0.5 to below 1"),
        (["census/1", "census/2"], {"page": "/nowhere/x.html"}, ConfigError, "--page /nowhere/x.html: the folder does"),
    ],
)
def test_wrong_input_is_refused_by_name(
    registered: Settings, tmp_path: Path, versions: list[str], options: Any, error: type[MlsparkError], message: str
) -> None:
    config = tmp_path / "census.yaml"
    config.write_text(registered.to_yaml())
    with pytest.raises(error) as caught:
        command.run(versions, [str(config)], **options)
    assert message in str(caught.value)
