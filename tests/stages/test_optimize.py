"""A registered network becomes a version of another engine, by its validation rows; what differs or is none is refused."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from mlspark import models
from mlspark.commands import evaluate, optimize
from mlspark.engines import candidates, engine, ensemble, onnx_engine, trees
from mlspark.engines.candidates import Candidate, Source
from mlspark.engines.combination import Combination
from mlspark.errors import ConfigError, RegistryError
from mlspark.evaluation import predictions
from mlspark.models import trees as tree_models
from mlspark.models.trees import Rows, TreesSettings
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.registry.versions import ModelVersion
from mlspark.scoring.predictor import Predictor
from mlspark.settings.pipeline import Settings
from mlspark.streaming import delta_files
from mlspark.tracking import runs
from mlspark.training.engine_trials import Choice, Trial

from ..conftest import SAMPLE, census_settings
from ..registry import example
from ..registry.conftest import kept_stores

NUM_ROWS = 400


class Registered(NamedTuple):
    settings: Settings
    config: Path
    client: Any
    package: Package


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Version 1 of census, with random weights, and a table of random rows in three splits."""
    home = tmp_path_factory.mktemp("home")
    settings = census_settings(SAMPLE, home)
    with kept_stores():
        client = runs.connect(settings.tracking, settings.root)
        package = example.package()
        with runs.open_run(client, settings.tracking, "random", tags={}) as run:
            tensors, random = package.encoder.tensors(package.task), np.random.default_rng(0)
            dense = random.normal(size=(NUM_ROWS, tensors.num_dense)).astype(np.float32)
            ids = np.stack([random.integers(0, ids, NUM_ROWS) for ids in tensors.cardinalities], axis=1)
            columns = dict(zip(tensors.columns("dense"), dense.T, strict=True))
            columns |= dict(zip(tensors.columns("ids"), ids.T, strict=True))
            splits = ["train", "validation", "test", "validation"] * (NUM_ROWS // 4)
            outputs = engine.load(package.files).run({"dense": dense, "ids": ids})[:, 0]
            label = np.where(np.arange(NUM_ROWS) % 7, outputs > 0, outputs <= 0)  # six of seven as it predicts
            others = {"label": label.astype(np.float32), "row_id": np.arange(NUM_ROWS)}
            table = pa.table({**columns, **others, "split": splits})
            write_deltalake(str(home / "table"), table, partition_by=["split"])
            delta_files.take(str(home / "table")).save(f"{settings.root}/runs/{run.run_id}/snapshot.json")
        registered = Package.pack(
            model={name: package.files[name] for name in ("model.json", "weights.safetensors")},
            encoder=package.encoder, contract=package.contract, task=package.task,
            provenance={**package.provenance, "run_id": run.run_id},
        )  # fmt: skip
        versions.register(client, registered, run_id=run.run_id, name="census", alias="champion")
        config = home / "census.yaml"
        config.write_text(settings.to_yaml())
        yield Registered(settings, config, client, registered)


def optimised(registered: Registered, report: dict[str, Any]) -> ModelVersion:
    return versions.find(registered.client, "census", report["model_version"])


@pytest.fixture(scope="module")
def report(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command reports of an engine that is named, so that no machine's speed decides."""
    file = tmp_path_factory.mktemp("report") / "report.json"
    config = str(registered.config)
    optimize.run([config], version="census/1", engine="openvino int8", max_loss=0.1, report_file=str(file))
    made: dict[str, Any] = json.loads(file.read_text())
    return made


def test_the_new_version_is_the_same_model_run_by_another_engine(
    registered: Registered, report: dict[str, Any]
) -> None:
    assert (report["optimized_from"], report["engine"], report["metric"]) == ("census/1", "openvino int8", "accuracy")
    version = optimised(registered, report)
    assert version.version == 2
    assert versions.with_alias(registered.client, "census", "champion") == 1
    files, source = version.package.files, registered.package.files
    same = ("model.json", "weights.safetensors", "encoder.json", "contract.json", "task.json")
    assert {name: files[name] for name in same} == {name: source[name] for name in same}
    assert set(files) - set(source) == {"engine.json", "openvino.xml", "openvino.bin"}
    assert version.package.digest != registered.package.digest
    assert version.package.provenance["optimized_from"] == "census/1"
    required = {line.partition("==")[0] for line in version.package.requirements}
    assert {"openvino", "torch", "safetensors"} <= required
    tags = registered.client.get_model_version("census", "2").tags
    assert tags["optimized_from"] == "census/1"
    description = registered.client.get_model_version("census", "2").description
    assert "Engine: openvino int8." in description
    assert "optimised from version `census/1`" in description


def test_its_predictions_are_kept_and_are_those_that_it_scores_with(
    registered: Registered, report: dict[str, Any]
) -> None:
    package = optimised(registered, report).package
    run_uri = f"{registered.settings.root}/runs/{package.provenance['run_id']}"
    kept = predictions.read(predictions.uri_of(run_uri, "validation"))
    assert (len(kept), len(predictions.read(predictions.uri_of(run_uri, "test")))) == (200, 100)
    trial = report["engines"]["openvino int8"]
    accuracy = kept.metrics(package.task)["accuracy"]
    assert accuracy == package.provenance["metrics"]["validation"]["accuracy"] == trial["metric"]
    assert trial["loss"] == report["engines"]["eager"]["metric"] - trial["metric"] <= 0.1
    assert trial["difference"] > 0  # int8, and not float32 by another name
    rows = example.rows({}, {"small": 1}, {"text": "blue"})
    mine, eagers = Predictor(package).predict(rows), Predictor(registered.package).predict(rows)
    np.testing.assert_allclose(mine["probability"], eagers["probability"], atol=0.3)  # not such rows as calibrated it
    assert (mine["probability"] != eagers["probability"]).any()


def test_mlflow_serves_it_by_its_engine(registered: Registered, report: dict[str, Any]) -> None:
    model = mlflow.pyfunc.load_model(f"models:/census/{report['model_version']}")
    rows = example.rows().to_pandas()
    expected = Predictor(optimised(registered, report).package).predict(example.rows())["probability"]
    assert model.predict(pd.DataFrame(rows))["probability"].tolist() == expected.tolist()


def test_the_same_again_makes_no_version(
    registered: Registered, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    optimize.run([str(registered.config)], version="census/1", engine="openvino int8", max_loss=0.1)
    assert "version 2 of census, made of census/1 (already done)" in capsys.readouterr().out
    assert len(registered.client.search_model_versions("name = 'census'")) == 2
    with pytest.raises(RegistryError, match="census version 2: it was optimised from census/1; optimise that one"):
        optimize.run([str(registered.config)], version="census/2")


def test_its_evaluation_explains_rows_by_the_network(
    registered: Registered, report: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    evaluate.run([str(registered.config)], version="census/2", output=str(page))
    assert "integrated gradients" in page.read_text()


def test_what_differs_or_loses_too_much_is_refused_with_its_figures(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that is one output off, and one that predicts the other class."""

    def shifted(by: float, factor: float) -> Candidate:
        def pack(source: Source) -> dict[str, bytes]:
            last = source.network.network.layers[-1]  # type: ignore[index,union-attr]
            weight, bias = last.weight.detach().clone(), last.bias.detach().clone()
            last.weight.data, last.bias.data = factor * weight, factor * bias + by
            try:
                return candidates.CANDIDATES["onnx"].pack(Source(source.network, ()))
            finally:
                last.weight.data, last.bias.data = weight, bias

        return Candidate(pack, is_exact=factor > 0)

    monkeypatch.setitem(candidates.CANDIDATES, "off", shifted(1e-3, 1.0))
    monkeypatch.setitem(candidates.CANDIDATES, "reversed", shifted(0.0, -1.0))
    of_accuracy = r"accuracy is 0\.\d{4} beside 0\.\d{4}: 0\.\d{4} worse, over 0\.005"
    reasons = {"off": r"an output differs from eager's by 0\.001, more than 0\.0001", "reversed": of_accuracy}
    for name, reason in reasons.items():
        with pytest.raises(RegistryError, match=f"engine {name} is refused: {reason}"):
            optimize.run([str(registered.config)], version="census/1", engine=name)
    assert len(registered.client.search_model_versions("name = 'census'")) <= 2


def test_the_fastest_that_is_not_refused_is_taken() -> None:
    trials = [
        Trial("eager", rows_per_second=10.0),
        Trial("onnx", rows_per_second=30.0),
        Trial("openvino", rows_per_second=40.0, refusal="differs"),
    ]
    assert Choice().of(trials).name == "onnx"
    trials[0].rows_per_second = 31.0
    assert Choice().of(trials).name == "eager"


def of_both(registered: Registered, name: str, network: bool = True) -> None:
    """Register an ensemble of trees, and of the network of census/1 with `network`."""
    package = registered.package
    tensors, random = package.encoder.tensors(package.task), np.random.default_rng(1)
    some = {"dense": random.normal(size=(200, tensors.num_dense)).astype(np.float32)}
    some["ids"] = np.stack([random.integers(0, ids, 200) for ids in tensors.cardinalities], axis=1)
    settings = TreesSettings(num_rounds=3, early_stopping_rounds=0, threads=1, max_depth=2)
    label = (some["dense"][:, 0] > 0).astype(np.float32)
    booster = tree_models.grow(settings, package.task, tensors, train=Rows(some, label), validation=None, seed=1)
    first = {file: package.files[file] for file in ("model.json", "weights.safetensors")}
    of_trees = trees.pack(settings, tensors, 1, booster)
    members = {"network" if network else "others": first if network else of_trees, "trees": of_trees}
    kinds = [{"model": json.loads(files["model.json"])["model"], "name": name} for name, files in members.items()]
    ensemble_settings = models.from_json({"kind": "ensemble", "members": kinds})
    rule = Combination("mean", package.task.link, weights=(1 / len(members),) * len(members))
    made = Package.pack(
        model=ensemble.pack(ensemble_settings, tensors, 1, rule, members),
        encoder=package.encoder, contract=package.contract, task=package.task, provenance=package.provenance,
    )  # fmt: skip
    versions.register(registered.client, made, run_id=package.provenance["run_id"], name=name, alias="champion")


def test_the_networks_of_an_ensemble_are_run_by_the_engine_and_its_trees_stay(registered: Registered) -> None:
    of_both(registered, "both")
    optimize.run([str(registered.config)], version="both/1", engine="onnx")
    source, made = (versions.find(registered.client, "both", number).package for number in (1, 2))
    assert set(made.files) - set(source.files) == {f"members/network/{name}" for name in ("engine.json", "model.onnx")}
    by_name = dict(zip(("network", "trees"), engine.load(made.files).engines, strict=True))  # type: ignore[attr-defined]
    assert isinstance(by_name["network"], onnx_engine.OnnxEngine)
    assert isinstance(by_name["trees"], trees.Trees)
    rows = example.rows({}, {"small": 1}, {"text": "blue"})
    mine, as_trained = (Predictor(package).predict(rows)["probability"] for package in (made, source))
    np.testing.assert_allclose(mine, as_trained, atol=1e-5)
    report = made.provenance["optimization"]
    assert report["engines"]["onnx"]["difference"] < 1e-4
    kept = predictions.read(
        predictions.uri_of(f"{registered.settings.root}/runs/{made.provenance['run_id']}", "validation")
    )
    assert kept.metrics(made.task)["accuracy"] == report["engines"]["onnx"]["metric"]  # of the whole ensemble
    description = registered.client.get_model_version("both", "2").description
    assert "Engine: ensemble (network by onnx float32, trees by trees)." in description
    assert {"onnxruntime", "xgboost"} <= {line.partition("==")[0] for line in made.requirements}


def test_an_ensemble_without_networks_is_refused(registered: Registered) -> None:
    of_both(registered, "forest", network=False)
    with pytest.raises(
        RegistryError, match="forest version 1: engine ensemble of trees; networks as they were trained"
    ):
        optimize.run([str(registered.config)], version="forest/1")


def test_what_cannot_be_optimised_is_named(registered: Registered) -> None:
    config = [str(registered.config)]
    with pytest.raises(ConfigError, match=r"engine fast: there is none; choose one of compiled, onnx, openvino, "):
        optimize.run(config, version="census/1", engine="fast")
    with pytest.raises(RegistryError, match="no version or alias 9"):
        optimize.run(config, version="census/9")
